package cache

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var errDown = errors.New("connection refused")

// oracle is a server that is asked by way of a shelf.
type oracle struct {
	says  atomic.Value // string
	err   atomic.Value // func() error
	asked atomic.Int64
	wait  atomic.Pointer[chan struct{}]
}

func (o *oracle) ask(context.Context) (string, error) {
	o.asked.Add(1)
	if w := o.wait.Load(); w != nil {
		<-*w
	}
	if f, _ := o.err.Load().(func() error); f != nil {
		if err := f(); err != nil {
			return "", err
		}
	}
	s, _ := o.says.Load().(string)
	return s, nil
}

func (o *oracle) fails(err error) { o.err.Store(func() error { return err }) }

func notFound(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func onShelf(t *testing.T, d *Disk, opt ShelfOptions) *Shelf {
	t.Helper()
	if opt.Stale == 0 {
		opt.Stale = time.Hour
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	s := NewShelf(d, opt)
	t.Cleanup(func() { settled(s) })
	return s
}

// settled waits until what is kept is on the disk.
func settled(s *Shelf) {
	for range 500 {
		s.mu.Lock()
		busy := s.writing
		s.mu.Unlock()
		if !busy {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// recallOne asks through a Memo's context and tells whether the answer is doubted.
func recallOne(t *testing.T, s *Shelf, o *oracle, key string) (v string, doubted bool, err error) {
	t.Helper()
	flag := new(atomic.Bool)
	v, err = Recall(context.WithValue(t.Context(), doubtKey{}, flag), s, "server", key, o.ask, notFound)
	return v, flag.Load(), err
}

func TestShelf(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	s := onShelf(t, diskAt(t, dir, 1<<30), ShelfOptions{Log: slog.New(slog.NewTextHandler(&log, nil))})
	o := &oracle{}
	want := func(key, v string, doubt bool, err error) {
		t.Helper()
		got, doubted, gerr := recallOne(t, s, o, key)
		if got != v || doubted != doubt || !errors.Is(gerr, err) {
			t.Errorf("%s: %q, doubted %v, %v; and not %q, %v, %v", key, got, doubted, gerr, v, doubt, err)
		}
	}
	o.says.Store("one")
	want("k", "one", false, nil)
	o.says.Store("two")
	want("k", "two", false, nil)
	o.fails(errDown)
	want("k", "two", true, nil)
	want("other", "", false, errDown)
	asked := o.asked.Load()
	for range 10 {
		want("k", "two", true, nil)
	}
	if n := o.asked.Load() - asked; n > 1 {
		t.Errorf("a server that is down was asked %d times", n)
	}
	time.Sleep(50 * time.Millisecond)
	s.mu.Lock()
	s.lines["server"].asked = time.Time{} // as after a while
	s.mu.Unlock()
	o.err.Store(func() error { time.Sleep(20 * time.Millisecond); return nil })
	o.says.Store("three")
	want("k", "two", true, nil) // it asks, and does not wait
	time.Sleep(200 * time.Millisecond)
	want("k", "three", false, nil)
	// The server's word that it is not there ends what was there.
	o.fails(fs.ErrNotExist)
	want("k", "", false, fs.ErrNotExist)
	o.fails(errDown)
	want("k", "", false, errDown)
	if got := log.String(); strings.Count(got, "can't be asked") != 2 || strings.Count(got, "answers again") != 1 {
		t.Errorf("the log:\n%s", got)
	}
}

func TestShelfOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	o := &oracle{}
	o.says.Store("kept")
	s := onShelf(t, diskAt(t, dir, 1<<30), ShelfOptions{})
	recallOne(t, s, o, "a")
	recallOne(t, s, o, "b")
	o.says.Store("https://user:s3cret@host/?x=1")
	recallOne(t, s, o, "secret")
	settled(s)
	o.fails(errDown)
	for _, c := range []struct {
		name string
		opt  ShelfOptions
		do   func(path string) error
		want string
		err  error
	}{
		{name: "as it is", want: "kept"},
		{name: "too old", opt: ShelfOptions{Stale: time.Nanosecond}, err: errDown},
		{name: "too old, offline", opt: ShelfOptions{Stale: time.Nanosecond, Offline: true}, want: "kept"},
		{name: "damaged", do: func(p string) error { return flipBit(p, 30) }, err: errDown},
		{name: "cut", do: func(p string) error { return os.Truncate(p, 20) }, err: errDown},
		{name: "empty", do: func(p string) error { return os.Truncate(p, 0) }, err: errDown},
	} {
		s := onShelf(t, diskAt(t, dir, 1<<30), c.opt)
		if c.do != nil {
			if err := c.do(filepath.Join(s.dir, s.name("server", "a"))); err != nil {
				t.Fatal(err)
			}
		}
		if got, _, err := recallOne(t, s, o, "a"); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
		if got, _, err := recallOne(t, s, o, "secret"); err == nil {
			t.Errorf("a password was kept on the disk: %q", got)
		}
	}
	s = onShelf(t, diskAt(t, dir, 1<<30), ShelfOptions{Offline: true})
	asked := o.asked.Load()
	if got, _, err := recallOne(t, s, o, "b"); got != "kept" || err != nil || o.asked.Load() != asked {
		t.Errorf("offline: %q, %v, %d questions", got, err, o.asked.Load()-asked)
	}
}

// A server that is silent is waited for as long as it takes where nothing is
// known, and not long where something is.
func TestShelfWithASilentServer(t *testing.T) {
	s := onShelf(t, nil, ShelfOptions{Patience: 50 * time.Millisecond})
	o := &oracle{}
	o.says.Store("one")
	recallOne(t, s, o, "k")
	hole := make(chan struct{})
	o.wait.Store(&hole)
	for i := range 3 {
		begin := time.Now()
		got, doubted, err := recallOne(t, s, o, "k")
		if d := time.Since(begin); got != "one" || !doubted || err != nil || d > 40*time.Millisecond+time.Duration(1-min(i, 1))*time.Second {
			t.Errorf("%q, %v, %v after %v", got, doubted, err, d)
		}
	}
	done := make(chan string)
	go func() {
		v, _, _ := recallOne(t, s, o, "unknown")
		done <- v
	}()
	select {
	case <-done:
		t.Error("what is not known was given")
	case <-time.After(200 * time.Millisecond):
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Recall(ctx, s, "server", "unknown", o.ask, notFound); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	o.says.Store("two")
	close(hole)
	if v := <-done; v != "two" {
		t.Error(v)
	}
	time.Sleep(50 * time.Millisecond)
	if v, doubted, _ := recallOne(t, s, o, "k"); v != "two" || doubted {
		t.Error(v, doubted)
	}
}

// A value that was loaded in doubt is loaded anew before its lifetime is over.
func TestMemoDoubts(t *testing.T) {
	m := NewMemo[string](10, nil, func(int) time.Duration { return time.Hour })
	now := time.Now()
	m.now = func() time.Time { return now }
	loads := 0
	get := func(doubt bool) int {
		v, _ := m.Get(t.Context(), "k", func(ctx context.Context) (int, error) {
			if doubt {
				Doubt(ctx)
			}
			loads++
			return loads, nil
		})
		return v
	}
	for range 2 {
		if get(true) != 1 {
			t.Error("it is not believed at all")
		}
	}
	now = now.Add(doubtful + time.Millisecond)
	if get(false) != 2 {
		t.Error("it is believed for long")
	}
	now = now.Add(time.Minute)
	if get(false) != 2 {
		t.Error("what is not doubted is not believed")
	}
}
