package fusefs

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/test/count"
)

// hung is a directory with one file, whose reads wait until let is closed.
type hung struct{ let chan struct{} }

func (h hung) node() *fs.Node { return &fs.Node{File: h, Size: 10, TTL: time.Minute} }

func (h hung) Lookup(context.Context, string) (*fs.Node, error) { return h.node(), nil }
func (h hung) List(context.Context) (fs.Listing, error) {
	return &entries{{Name: "f", Node: h.node()}}, nil
}
func (h hung) Open(context.Context) (fs.Handle, error) { return h, nil }
func (h hung) Close() error                            { return nil }
func (h hung) ReadAt(_ context.Context, p []byte, _ int64) (int, error) {
	<-h.let
	return copy(p, "0123456789"), nil
}

// stuckLine is what the watchdog's line in the log says.
const stuckLine = "is not answered"

// TestStuckRequestIsReportedOnce fails when the log does not say that a request
// hangs, says it again and again, or says it where all requests are answered in
// time.
func TestStuckRequestIsReportedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &count.Log{}
		w := newWatchdog(slog.New(slog.NewTextHandler(log, nil)), time.Minute)
		go w.watch()
		defer close(w.stop)
		after := func(d time.Duration, want int, what string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if got := strings.Count(log.String(), stuckLine); got != want {
				t.Errorf("%s: %d lines in the log, want %d", what, got, want)
			}
		}
		first, second := &killableContext{}, &killableContext{}
		after(time.Hour, 0, "no request")
		w.begins(first)
		after(59*time.Second, 0, "a request of 59 s")
		after(30*time.Second, 1, "a request of 89 s")
		w.begins(second)
		after(time.Hour, 1, "two requests of an hour")
		w.ends(first)
		w.ends(second)
		after(time.Minute, 1, "both are answered")
		for range 10 {
			w.begins(first)
			after(50*time.Second, 1, "many requests of 50 s")
			w.ends(first)
		}
		w.begins(second)
		after(2*time.Minute, 2, "another request of 2 minutes")
		w.ends(second)
	})
}

// TestStuckRequestIsReportedWithItsStack fails when the log does not show where
// in the daemon a read hangs, or when the read does not end well after that.
func TestStuckRequestIsReportedWithItsStack(t *testing.T) {
	t.Parallel()
	h, log := hung{make(chan struct{})}, &count.Log{}
	point, _ := mounted(t, &fs.Node{Dir: h}, MountOptions{Log: slog.New(slog.NewTextHandler(log, nil)), Stuck: 50 * time.Millisecond})
	release := sync.OnceFunc(func() { close(h.let) })
	defer release()
	type answer struct {
		data []byte
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		b, err := os.ReadFile(filepath.Join(point, "f"))
		got <- answer{b, err}
	}()
	eventually(t, "the log shows the goroutine that hangs", func() bool {
		_, line, _ := strings.Cut(log.String(), stuckLine)
		return strings.Contains(line, "hung.ReadAt")
	})
	release()
	if a := <-got; string(a.data) != "0123456789" || a.err != nil {
		t.Errorf("%q, %v", a.data, a.err)
	}
}
