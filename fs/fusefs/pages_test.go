package fusefs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/fs"
)

// page is a directory with one file, f, whose content can be replaced by
// another of the same size; nothing but what it reads tells.
type page struct {
	mu      sync.Mutex // guards content
	content byte
}

const pageSize = 1 << 20

func (p *page) now() byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.content
}

func (p *page) become(b byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.content = b
}

func (p *page) Lookup(_ context.Context, name string) (*fs.Node, error) {
	if name != "f" {
		return nil, os.ErrNotExist
	}
	return &fs.Node{File: p, Size: pageSize, TTL: time.Hour}, nil
}

func (p *page) List(context.Context) (fs.Listing, error) { return &entries{}, nil }
func (p *page) Open(context.Context) (fs.Handle, error)  { return sheet(p.now()), nil }

// sheet is a handle on one content.
type sheet byte

func (s sheet) Identity() string { return string(rune(s)) }
func (s sheet) Close() error     { return nil }

func (s sheet) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	n := copy(p, bytes.Repeat([]byte{byte(s)}, pageSize)[min(off, pageSize):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// TestPagesAreOfOneContent fails when the kernel's pages of one file hold bytes of
// two versions: whoever has a file open reads that version to its end, whatever
// others open by its name, even if it is of the same size, and whoever opens the
// file reads the newest.
func TestPagesAreOfOneContent(t *testing.T) {
	t.Parallel()
	p := &page{content: 'a'}
	point, _ := mounted(t, &fs.Node{Dir: p}, MountOptions{})
	name := filepath.Join(point, "f")
	countMapped := mapper(t)
	for _, c := range []byte("xyz") { // while nobody has another version open
		p.become(c)
		if b, err := os.ReadFile(name); err != nil || bytes.Count(b, []byte{c}) != pageSize {
			t.Errorf("%d bytes %.8q…, %v; want %d times %c", len(b), b, err, pageSize, c)
		}
	}
	var open []*os.File
	for _, c := range []byte("abcd") {
		p.become(c)
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		open = append(open, f)
		for k, f := range open { // a half of it now, and the other later
			got := make([]byte, pageSize/2)
			if _, err := f.ReadAt(got, int64(len(open)+k)%2*pageSize/2); err != nil {
				t.Fatal(err)
			}
			if want := "abcd"[k]; bytes.Count(got, []byte{want}) != len(got) {
				t.Errorf("the content %c, when %c came: %q…", want, c, got[:8])
			}
		}
		if got, want := countMapped(name), fmt.Sprintf("%d %c\n", pageSize, c); got != want {
			t.Errorf("%c, mapped: %q, want %q", c, got, want)
		}
	}
}

// mapper starts a process that maps the files it is told of. The function returns
// how many of the file's bytes are as the first one, and that byte. It is a
// process of its own because a thread of Go's that faults waits for the daemon,
// which here may wait for that thread.
func mapper(t *testing.T) func(name string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "python3", "-c", `
import mmap, sys
for name in sys.stdin:
    with open(name[:-1]) as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
        print(m[:].count(m[:1]), m[:1].decode(), flush=True)
`)
	c.Stderr = t.Output()
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Wait() }) // the end of the test's context kills it
	lines := bufio.NewReader(out)
	return func(name string) string {
		t.Helper()
		if _, err := fmt.Fprintln(in, name); err != nil {
			t.Fatal(err)
		}
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
}

// TestContentsDoNotMix fails when one read of a file that is opened and replaced
// all the time returns bytes of two versions, or an error other than ESTALE.
// (Half a second here; half a minute with MLFLOWFS_SOAK.)
func TestContentsDoNotMix(t *testing.T) {
	t.Parallel()
	spell := 500 * time.Millisecond
	if soak() {
		spell = 30 * time.Second
	}
	p := &page{content: 'a'}
	point, _ := mounted(t, &fs.Node{Dir: p}, MountOptions{})
	name := filepath.Join(point, "f")
	stop := make(chan struct{})
	var writer, readers sync.WaitGroup
	writer.Go(func() {
		tick := time.NewTicker(500 * time.Microsecond)
		defer tick.Stop()
		for c := byte(0); ; c++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				p.become('a' + c%26)
			}
		}
	})
	var reads atomic.Int64
	for range 8 {
		readers.Go(func() {
			for end := time.Now().Add(spell); time.Now().Before(end); {
				b, err := os.ReadFile(name)
				if errors.Is(err, syscall.ESTALE) {
					continue
				}
				if err != nil || len(b) != pageSize {
					t.Errorf("%d bytes, %v; want %d", len(b), err, pageSize)
					return
				}
				if n := bytes.Count(b, b[:1]); n != pageSize {
					t.Errorf("only %d of %d bytes are as the first", n, pageSize)
					return
				}
				reads.Add(1)
			}
		})
	}
	readers.Wait()
	close(stop)
	writer.Wait()
	if reads.Load() == 0 {
		t.Error("no read succeeded")
	}
	t.Logf("figure: %d reads of one version each in %v, while the file was replaced all the time", reads.Load(), spell)
}

// cutShort is a directory with one file, f, that is listed with more bytes than its
// handle has: it was cut since.
type cutShort struct{}

func (cutShort) Lookup(context.Context, string) (*fs.Node, error) {
	return &fs.Node{File: cutShort{}, Size: pageSize, TTL: time.Hour}, nil
}
func (cutShort) List(context.Context) (fs.Listing, error) { return &entries{}, nil }
func (cutShort) Open(context.Context) (fs.Handle, error)  { return cutShort{}, nil }
func (cutShort) Close() error                             { return nil }
func (cutShort) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return max(0, copy(p, make([]byte, max(0, pageSize/2-off)))), io.EOF
}

// TestCutFileIsStaleAndNotShort fails when a file that was cut after it was listed
// reads as a shorter one, with no error.
func TestCutFileIsStaleAndNotShort(t *testing.T) {
	t.Parallel()
	point, _ := mounted(t, &fs.Node{Dir: cutShort{}}, MountOptions{})
	out, err := exec.Command("cat", filepath.Join(point, "f")).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("Stale file handle")) {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}
