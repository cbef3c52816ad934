package fs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// mounted mounts a tree for one test, and gives its place.
func mounted(t *testing.T, root *Node, opt MountOptions) (string, *Mounted) {
	t.Helper()
	point := t.TempDir()
	if opt.Log == nil {
		opt.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	m, err := Mount(point, root, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := m.Unmount(); err != nil {
			t.Error(err)
		}
		m.Wait()
	})
	return point, m
}

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

func (p *page) Lookup(_ context.Context, name string) (*Node, error) {
	if name != "f" {
		return nil, os.ErrNotExist
	}
	return &Node{File: p, Size: pageSize, TTL: time.Hour}, nil
}

func (p *page) List(context.Context) (Listing, error) { return &entries{}, nil }
func (p *page) Open(context.Context) (Handle, error)  { return sheet(p.now()), nil }

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

// Who has a file open reads that content to its end, whatever others open by its
// name, and be it of the same size; who opens it gets what is there.
func TestPagesAreOfOneContent(t *testing.T) {
	p := &page{content: 'a'}
	point, _ := mounted(t, &Node{Dir: p}, MountOptions{})
	name := filepath.Join(point, "f")
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
		// In a process of its own: a thread of Go's that faults waits for the daemon,
		// which here may wait for that thread.
		out, err := exec.Command("python3", "-c", "import mmap,sys; f=open(sys.argv[1]); m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ); print(m[:].count(m[:1]), m[:1].decode())", name).CombinedOutput()
		if want := fmt.Sprintf("%d %c\n", pageSize, c); string(out) != want || err != nil {
			t.Errorf("%c, mapped: %s, %v", c, out, err)
		}
	}
}

// A file that is opened and replaced all the time reads as one content each
// time.
func TestContentsDoNotMix(t *testing.T) {
	p := &page{content: 'a'}
	point, _ := mounted(t, &Node{Dir: p}, MountOptions{})
	name := filepath.Join(point, "f")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for c := byte(0); ; c++ {
			select {
			case <-stop:
				return
			case <-time.After(500 * time.Microsecond):
				p.become('a' + c%26)
			}
		}
	})
	wrong := make(chan string, 100)
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
				b, err := os.ReadFile(name)
				switch {
				case err != nil && !isStale(err):
					wrong <- err.Error()
				case err == nil && bytes.Count(b, b[:1]) != pageSize:
					wrong <- fmt.Sprintf("%d bytes, of which %d are the first's", len(b), bytes.Count(b, b[:1]))
				}
			}
		})
	}
	readers.Wait()
	close(stop)
	wg.Wait()
	close(wrong)
	for w := range wrong {
		t.Error(w)
	}
}

func isStale(err error) bool {
	e, ok := err.(*os.PathError)
	return ok && e.Err == syscall.ESTALE
}
