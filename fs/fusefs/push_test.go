package fusefs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/test/count"
)

// TestShortMemoryIsReadFromMeminfo fails when a machine short of memory is not
// seen as such and so keeps getting pages that nobody asked for, or when a machine
// with enough memory, or an unreadable meminfo, stops the pushing.
func TestShortMemoryIsReadFromMeminfo(t *testing.T) {
	t.Parallel()
	for meminfo, want := range map[string]bool{
		"MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:   49 kB\n": true,
		"MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:   51 kB\n": false,
		"": false, "garbage\n:\nMemTotal": false,
	} {
		if got := shortIn(strings.NewReader(meminfo)); got != want {
			t.Errorf("%q: %v", meminfo, got)
		}
	}
}

// eager is a directory with one file, and its handle, which has bytes for the
// kernel as soon as it is told whom to wake.
type eager struct {
	data  []byte
	given atomic.Int64 // bytes
	fails error        // an open does
}

func (e *eager) node() *fs.Node { return &fs.Node{File: e, Size: int64(len(e.data)), TTL: time.Minute} }

func (e *eager) Lookup(_ context.Context, name string) (*fs.Node, error) {
	if name != "f" {
		return nil, os.ErrNotExist
	}
	return e.node(), nil
}

func (e *eager) List(context.Context) (fs.Listing, error) {
	return &entries{{Name: "f", Node: e.node()}}, nil
}
func (e *eager) Open(context.Context) (fs.Handle, error) { return e, e.fails }
func (e *eager) Identity() string                        { return "eager" }
func (e *eager) Close() error                            { return nil }
func (e *eager) Wake(w func())                           { w() }
func (e *eager) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(e.data).ReadAt(p, off)
}

func (e *eager) Fresh(p []byte) (int, int64) {
	off := e.given.Load()
	n := copy(p, e.data[off:])
	e.given.Add(int64(n))
	return n, off
}

// TestPushIsOffWhenMemoryIsShort fails when a machine short of memory gets pages
// that nobody asked for, when one with enough memory gets none ahead of the
// reader, or when the file reads wrong in either case.
func TestPushIsOffWhenMemoryIsShort(t *testing.T) {
	t.Parallel()
	for _, short := range []bool{false, true} {
		t.Run(fmt.Sprint("short ", short), func(t *testing.T) {
			t.Parallel()
			e := &eager{data: bytes.Repeat([]byte("mlflowfs"), 1<<17)}
			point, m := mounted(t, &fs.Node{Dir: e}, MountOptions{})
			var asked atomic.Bool
			m.a.pusher.mu.Lock()
			m.a.pusher.short = func() bool {
				asked.Store(true)
				return short
			}
			m.a.pusher.mu.Unlock()
			f, err := os.Open(filepath.Join(point, "f"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			eventually(t, "the memory is looked at", asked.Load)
			if !short {
				eventually(t, "all bytes are pushed", func() bool { return e.given.Load() == int64(len(e.data)) })
			}
			if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, e.data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			f.Close()
			unmount(t, m) // which waits for the end of the pushing
			if given, pushed := e.given.Load(), m.a.opens.pushed.Load(); short && given+pushed != 0 || !short && pushed == 0 {
				t.Errorf("%d bytes were taken from the file to be pushed, the kernel got %d", given, pushed)
			}
		})
	}
}

// two is a directory with two such files.
type two map[string]*eager

func (d two) Lookup(_ context.Context, name string) (*fs.Node, error) {
	if e := d[name]; e != nil {
		return e.node(), nil
	}
	return nil, os.ErrNotExist
}
func (d two) List(context.Context) (fs.Listing, error) { return &entries{}, nil }

// TestPushEndsWhenMemoryRunsShort fails when a machine that runs short of memory, with
// a mount at work, still gets pages that nobody has asked for a second later.
func TestPushEndsWhenMemoryRunsShort(t *testing.T) {
	t.Parallel()
	d := two{"f": {data: make([]byte, 1<<20)}, "g": {data: make([]byte, 1<<20)}}
	point, m := mounted(t, &fs.Node{Dir: d}, MountOptions{})
	var short atomic.Bool
	m.a.pusher.mu.Lock()
	m.a.pusher.short = short.Load
	m.a.pusher.mu.Unlock()
	open := func(name string) {
		t.Helper()
		f, err := os.Open(filepath.Join(point, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
	}
	open("f")
	eventually(t, "all bytes of the first file are pushed", func() bool { return d["f"].given.Load() == 1<<20 })
	short.Store(true)
	time.Sleep(1100 * time.Millisecond) // it looks once a second
	open("g")
	if out, err := exec.Command("cat", filepath.Join(point, "g")).Output(); err != nil || len(out) != 1<<20 {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	if n := d["g"].given.Load(); n > 0 {
		t.Errorf("%d bytes were taken to be pushed", n)
	}
}

// paused is an eager handle whose first piece is asked for until it is let go, and
// which knows whether it was closed meanwhile.
type paused struct {
	*eager
	asked, goOn chan struct{}
	closed      atomic.Bool
	late        atomic.Bool // it was read from when it was closed
}

func (p *paused) node() *fs.Node {
	return &fs.Node{File: p, Size: int64(len(p.data)), TTL: time.Minute}
}

func (p *paused) Lookup(context.Context, string) (*fs.Node, error) { return p.node(), nil }
func (p *paused) Open(context.Context) (fs.Handle, error)          { return p, nil }

func (p *paused) Fresh(b []byte) (int, int64) {
	close(p.asked)
	<-p.goOn
	p.late.Store(p.closed.Load())
	return 0, 0
}

func (p *paused) Close() error {
	p.closed.Store(true)
	return nil
}

// opened is an inode that the kernel knows, and that is open with h.
func opened(pusher *pagePusher, h fs.Handle, identity string) *inode {
	r := asked(&fs.Node{Dir: fixed{}})
	r.a.pusher = pusher
	i, errno := r.a.names.tell(r.a.root, "f", &fs.Node{File: text("f"), Size: 1})
	if errno != 0 {
		panic(errno)
	}
	i.read = identity
	i.cached = []*openFile{{i: i, h: h, identity: identity, uses: 1}}
	return i
}

// TestPushKeepsItsFileOpen fails when a file is closed while the pushing reads from
// it: what it reads then may be another file's, or takes the disk for broken.
func TestPushKeepsItsFileOpen(t *testing.T) {
	t.Parallel()
	p := &paused{eager: &eager{data: make([]byte, 1<<20)}, asked: make(chan struct{}), goOn: make(chan struct{})}
	pusher := newPagePusher(slog.New(slog.DiscardHandler), false)
	i := opened(pusher, p, p.Identity())
	f := i.cached[0]
	go pusher.work()
	pusher.push(i)
	<-p.asked
	f.released()
	if p.closed.Load() {
		t.Error("it is closed while it is read from")
	}
	close(p.goOn)
	eventually(t, "it is closed", p.closed.Load)
	if p.late.Load() {
		t.Error("it was read from when it was closed")
	}
	pusher.stop()
}

// wrong is a handle with a bug.
type wrong struct{ *eager }

func (wrong) Fresh([]byte) (int, int64) { panic("a bug") }

// TestPushSurvivesAPanic fails when a bug in what is pushed ends the daemon, or the
// pushing of other files.
func TestPushSurvivesAPanic(t *testing.T) {
	t.Parallel()
	var out count.Log
	pusher := newPagePusher(slog.New(slog.NewTextHandler(&out, nil)), false)
	p := &paused{eager: &eager{}, asked: make(chan struct{}), goOn: make(chan struct{})}
	close(p.goOn)
	go pusher.work()
	pusher.push(opened(pusher, wrong{&eager{}}, "eager"))
	pusher.push(opened(pusher, p, "eager"))
	<-p.asked
	pusher.stop()
	if !strings.Contains(out.String(), "a bug") || !strings.Contains(out.String(), "goroutines=") {
		t.Errorf("the log does not tell where: %s", out.String())
	}
}

// TestPushQueueEndsWithItsWorker fails when inodes are queued, and so kept for ever,
// that nobody will push: the kernel takes no pages, or the mount is gone.
func TestPushQueueEndsWithItsWorker(t *testing.T) {
	t.Parallel()
	pusher := newPagePusher(slog.New(slog.DiscardHandler), false)
	for range 10 {
		pusher.push(&inode{})
	}
	close(pusher.stopped)
	pusher.work()
	for range 1000 {
		pusher.push(&inode{})
	}
	if n := len(pusher.queue); n > 0 {
		t.Errorf("%d inodes are kept", n)
	}
}
