package fusefs

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/test/count"
)

// changing is a directory whose file has another content by now, and another file beside it.
type changing struct{ changed atomic.Bool }

func (d *changing) all() entries {
	if d.changed.Load() {
		return entries{{Name: "f", Node: sized("newer!")}, {Name: "g", Node: sized("g")}}
	}
	return entries{{Name: "f", Node: sized("old")}}
}

func (d *changing) Lookup(_ context.Context, name string) (*fs.Node, error) {
	for _, e := range d.all() {
		if e.Name == name {
			return e.Node, nil
		}
	}
	return nil, os.ErrNotExist
}

func (d *changing) List(context.Context) (fs.Listing, error) {
	all := d.all()
	return &all, nil
}

// TestRewoundListingIsAnew fails when a directory that is open, and is read again from its
// beginning, shows what it had before; or when an entry that is given again tells the kernel
// of an inode that its name may lead to no more.
func TestRewoundListingIsAnew(t *testing.T) {
	t.Parallel()
	d := &changing{}
	r := asked(&fs.Node{Dir: d})
	var open fuse.OpenOut
	r.OpenDir(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}}, &open)
	names := func(off uint64) (all []string) {
		got, status := r.list(open.Fh, off, 4096, true)
		if !status.Ok() {
			t.Error(status)
		}
		for _, e := range got {
			all = append(all, e.Name)
		}
		return all
	}
	if got := names(0); !slices.Equal(got, []string{".", "..", "f"}) {
		t.Error(got)
	}
	d.changed.Store(true)
	told := r.find(t, fuse.FUSE_ROOT_ID, "f").NodeId
	leads := func() uint64 {
		number, _ := r.a.names.leads(fuse.FUSE_ROOT_ID, "f")
		return number
	}
	if got := names(2); !slices.Equal(got, []string{"f"}) || leads() != told {
		t.Errorf("%v is given again, and leads to %d; a look-up found %d", got, leads(), told)
	}
	if got := names(0); !slices.Equal(got, []string{".", "..", "f", "g"}) || leads() != told {
		t.Errorf("from the beginning: %v", got)
	}
}

// slowly is a file of one letter, whose bytes come unasked when it is told to go on.
type slowly struct {
	letter      atomic.Value // string
	begun, goOn chan struct{}
}

func (d *slowly) Lookup(_ context.Context, name string) (*fs.Node, error) {
	if name != "f" {
		return nil, os.ErrNotExist
	}
	return &fs.Node{File: d, Size: 4096}, nil
}
func (d *slowly) List(context.Context) (fs.Listing, error) { return &entries{}, nil }
func (d *slowly) Open(context.Context) (fs.Handle, error) {
	return &slowHandle{d: d, letter: d.letter.Load().(string)}, nil
}

type slowHandle struct {
	d      *slowly
	letter string
	pushed bool
}

func (h *slowHandle) Close() error     { return nil }
func (h *slowHandle) Identity() string { return h.letter }
func (h *slowHandle) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	if off >= 4096 {
		return 0, io.EOF
	}
	return copy(p, strings.Repeat(h.letter, 4096)[off:]), nil
}

func (h *slowHandle) Wake(w func()) {
	if h.letter == "o" {
		w()
	}
}

func (h *slowHandle) Fresh(p []byte) (int, int64) {
	if h.pushed {
		return 0, 0
	}
	h.pushed = true
	close(h.d.begun)
	<-h.d.goOn
	return copy(p, strings.Repeat("o", 4096)), 0
}

// TestPushIsOfItsOwnInode fails when bytes that are pushed come to the pages of another
// content, which has the number of the inode that they were of: that was closed and
// forgotten while they were on their way, and nothing tells the contents apart but their
// bytes.
func TestPushIsOfItsOwnInode(t *testing.T) {
	t.Parallel()
	d := &slowly{begun: make(chan struct{}), goOn: make(chan struct{})}
	d.letter.Store("o")
	point, m := mounted(t, &fs.Node{Dir: d}, MountOptions{NoPassing: true})
	name := filepath.Join(point, "f")
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	<-d.begun
	f.Close()
	d.letter.Store("n")
	eventually(t, "the kernel has no more of the file", func() bool { // as the bound of names, and asking anew, bring about
		return m.server.EntryNotify(fuse.FUSE_ROOT_ID, "f") == fuse.ENOENT
	})
	time.Sleep(100 * time.Millisecond) // its FORGET comes
	time.AfterFunc(100*time.Millisecond, func() { close(d.goOn) })
	if f, err = os.Open(name); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	time.Sleep(200 * time.Millisecond) // what is pushed is by now
	out, err := exec.Command("cat", name).Output()
	if err != nil || string(out) != strings.Repeat("n", 4096) {
		t.Errorf("%d bytes, the first %q, %v", len(out), out[:min(1, len(out))], err)
	}
}

// backed is a file that the kernel may read by itself.
type backed string

func (b backed) Open(context.Context) (fs.Handle, error) {
	f, err := os.Open(string(b))
	return backedHandle{f}, err
}

type backedHandle struct{ *os.File }

func (h backedHandle) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return h.File.ReadAt(p, off)
}
func (h backedHandle) Backing() *os.File { return h.File }
func (h backedHandle) Identity() string  { return "x" }

// TestEarlyOpenIsPassed fails when a file that is opened as soon as the mount answers has
// the whole mount do without passthrough.
func TestEarlyOpenIsPassed(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Fatal("only root may have the kernel read files by itself")
	}
	back := filepath.Join(t.TempDir(), "b")
	if err := os.WriteFile(back, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		var out count.Log
		point := t.TempDir()
		early := exec.CommandContext(t.Context(), "sh", "-c", `until true <"$0/f"; do :; done 2>/dev/null`, point)
		if err := early.Start(); err != nil {
			t.Fatal(err)
		}
		m, err := Mount(point, &fs.Node{Dir: fixed{{Name: "f", Node: &fs.Node{File: backed(back), Size: 5}}}}, MountOptions{Log: slog.New(slog.NewTextHandler(&out, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if err := early.Wait(); err != nil {
			t.Error(err)
		}
		if b, err := exec.Command("cat", filepath.Join(point, "f")).Output(); string(b) != "hello" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		if n := m.Stats().PassedOpens; n < 2 {
			t.Errorf("%d opens of two are passed: %s", n, out.String())
		}
		unmount(t, m)
	}
}
