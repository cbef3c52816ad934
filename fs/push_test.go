package fs

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestMemoryShort(t *testing.T) {
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
}

func (e *eager) node() *Node { return &Node{File: e, Size: int64(len(e.data)), TTL: time.Minute} }

func (e *eager) Lookup(_ context.Context, name string) (*Node, error) {
	if name != "f" {
		return nil, os.ErrNotExist
	}
	return e.node(), nil
}

func (e *eager) List(context.Context) (Listing, error) { return &entries{{"f", e.node()}}, nil }
func (e *eager) Open(context.Context) (Handle, error)  { return e, nil }
func (e *eager) Identity() string                      { return "eager" }
func (e *eager) Close() error                          { return nil }
func (e *eager) Wake(w func())                         { w() }
func (e *eager) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(e.data).ReadAt(p, off)
}

func (e *eager) Fresh(p []byte) (int, int64) {
	off := e.given.Load()
	n := copy(p, e.data[off:])
	e.given.Add(int64(n))
	return n, off
}

// Bytes that have come are pushed to the kernel, and left where memory is
// short; either way the file reads right.
func TestPushIsOffWhenMemoryIsShort(t *testing.T) {
	for _, short := range []bool{false, true} {
		e := &eager{data: bytes.Repeat([]byte("mlflowfs"), 1<<17)}
		point := t.TempDir()
		m, err := Mount(point, &Node{Dir: e}, MountOptions{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		if err != nil {
			t.Fatal(err)
		}
		m.kernel.mu.Lock()
		m.kernel.short = func() bool { return short }
		m.kernel.mu.Unlock()
		f, err := os.Open(filepath.Join(point, "f"))
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			time.Sleep(5 * time.Millisecond)
			if e.given.Load() == int64(len(e.data)) {
				break
			}
		}
		if got := e.given.Load(); (got > 0) == short {
			t.Errorf("memory short %v: %d bytes were pushed", short, got)
		}
		if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, e.data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		f.Close()
		if _, err := m.Unmount(); err != nil {
			t.Error(err)
		}
		m.Wait()
	}
}
