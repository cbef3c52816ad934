package fs

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// hung is a directory with one file, whose reads wait until it is let go.
type hung struct{ let chan struct{} }

func (h hung) node() *Node { return &Node{File: h, Size: 10, TTL: time.Minute} }

func (h hung) Lookup(context.Context, string) (*Node, error) { return h.node(), nil }
func (h hung) List(context.Context) (Listing, error)         { return &entries{{"f", h.node()}}, nil }
func (h hung) Open(context.Context) (Handle, error)          { return h, nil }
func (h hung) Close() error                                  { return nil }
func (h hung) ReadAt(_ context.Context, p []byte, _ int64) (int, error) {
	<-h.let
	return copy(p, "0123456789"), nil
}

type said struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A request that is not answered has the log say, once, where the daemon
// stands.
func TestWatchdog(t *testing.T) {
	h, log, point := hung{make(chan struct{})}, &said{}, t.TempDir()
	m, err := Mount(point, &Node{Dir: h}, MountOptions{Log: slog.New(slog.NewTextHandler(log, nil)), Stuck: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(point, "f")); err != nil {
		t.Error(err)
	}
	time.Sleep(400 * time.Millisecond)
	if strings.Contains(log.String(), "goroutine") {
		t.Errorf("nothing waits, and it was said:\n%s", log)
	}
	got := make(chan string)
	go func() {
		b, err := os.ReadFile(filepath.Join(point, "f"))
		got <- string(b)
		if err != nil {
			t.Error(err)
		}
	}()
	time.Sleep(time.Second)
	if out := log.String(); strings.Count(out, "is not answered") != 1 || !strings.Contains(out, "hung.ReadAt") {
		t.Errorf("the log:\n%s", out)
	}
	close(h.let)
	if g := <-got; g != "0123456789" {
		t.Error(g)
	}
	if _, err := m.Unmount(); err != nil {
		t.Error(err)
	}
	m.Wait()
}
