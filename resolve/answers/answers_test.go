package answers

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
	"testing/synctest"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/cache/disk"
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

// answersOf is a shelf in d. A bubble waits, at its end, until what is kept is on
// the disk.
func answersOf(t *testing.T, d *disk.Dir, opt Options) *Answers {
	t.Helper()
	if opt.Stale == 0 {
		opt.Stale = time.Hour
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	s := New(d, opt)
	t.Cleanup(synctest.Wait)
	return s
}

// recallOne asks through a Memo's context and tells whether the answer is doubted.
func recallOne(t *testing.T, s *Answers, o *oracle, key string) (v string, doubted bool, err error) {
	t.Helper()
	ctx, flag := cache.WithStaleMark(t.Context())
	v, err = StaleIfError(ctx, s, "server", key, o.ask, notFound)
	return v, flag.Load(), err
}

// TestLastAnswersAreGivenForAServerThatIsDown fails when what a server said last is
// not shown while the server is down, is shown for what was never known or is
// known to be gone, or stays when the server is back; when a server that is
// down is asked by every look; or when the log does not say so, once.
func TestLastAnswersAreGivenForAServerThatIsDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log bytes.Buffer
		s := answersOf(t, diskAt(t, t.TempDir(), 1<<30), Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
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
		time.Sleep(askAgain) // of the bubble's clock
		o.err.Store(func() error { time.Sleep(20 * time.Millisecond); return nil })
		o.says.Store("three")
		want("k", "two", true, nil) // it asks, and does not wait
		time.Sleep(20 * time.Millisecond)
		synctest.Wait()
		want("k", "three", false, nil)
		// The server's word that it is not there ends what was there.
		o.fails(fs.ErrNotExist)
		want("k", "", false, fs.ErrNotExist)
		o.fails(errDown)
		want("k", "", false, errDown)
		synctest.Wait()
		if got := log.String(); strings.Count(got, "can't be asked") != 2 || strings.Count(got, "answers again") != 1 {
			t.Errorf("the log:\n%s", got)
		}
	})
}

// TestLastAnswersOutliveTheProcess fails when a mount that starts while its server is
// down shows nothing, or shows an answer that is too old or damaged, or when an
// answer with a credential in it is written to the disk.
func TestLastAnswersOutliveTheProcess(t *testing.T) {
	t.Parallel()
	tooOld := func(path string) error {
		then := time.Now().Add(-2 * time.Hour)
		return os.Chtimes(path, then, then)
	}
	for name, c := range map[string]struct {
		offline bool
		change  func(path string) error // of an answer's file, before the next process
		want    string
		err     error
		asked   int64
	}{
		"as it is":         {want: "kept", asked: 1},
		"too old":          {change: tooOld, err: errDown, asked: 1},
		"too old, offline": {offline: true, change: tooOld, want: "kept"},
		"offline":          {offline: true, want: "kept"},
		"damaged":          {change: func(p string) error { return flipBit(p, 30) }, err: errDown, asked: 1},
		"cut":              {change: func(p string) error { return os.Truncate(p, 20) }, err: errDown, asked: 1},
		"empty":            {change: func(p string) error { return os.Truncate(p, 0) }, err: errDown, asked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				dir := t.TempDir()
				o := &oracle{}
				o.says.Store("kept")
				s := answersOf(t, diskAt(t, dir, 1<<30), Options{})
				recallOne(t, s, o, "a")
				recallOne(t, s, o, "b")
				o.says.Store("https://user:s3cret@host/?x=1")
				recallOne(t, s, o, "secret")
				synctest.Wait() // until they are on the disk
				if c.change != nil {
					if err := c.change(answerFile(t, dir, "server", "a")); err != nil {
						t.Fatal(err)
					}
				}

				o.fails(errDown)
				asked := o.asked.Load()
				s = answersOf(t, diskAt(t, dir, 1<<30), Options{Offline: c.offline})
				if got, _, err := recallOne(t, s, o, "a"); got != c.want || !errors.Is(err, c.err) || o.asked.Load()-asked != c.asked {
					t.Errorf("%q, %v, %d questions", got, err, o.asked.Load()-asked)
				}
				if got, _, err := recallOne(t, s, o, "b"); got != "kept" || err != nil || (c.offline && o.asked.Load() != asked) {
					t.Errorf("another answer: %q, %v, %d questions", got, err, o.asked.Load()-asked)
				}
				if got, _, err := recallOne(t, s, o, "secret"); err == nil {
					t.Errorf("a password was kept on the disk: %q", got)
				}
			})
		})
	}
}

// TestLastAnswersAreGivenForASilentServer fails when a look waits long for a server
// that is silent though its last answer is known, or gives up on one where
// nothing is known.
func TestLastAnswersAreGivenForASilentServer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const patience = 50 * time.Millisecond
		s := answersOf(t, nil, Options{Patience: patience})
		o := &oracle{}
		o.says.Store("one")
		recallOne(t, s, o, "k")
		hole := make(chan struct{})
		o.wait.Store(&hole)
		for i, wait := range []time.Duration{patience, 0, 0} { // then it is known to be down
			begin := time.Now()
			got, doubted, err := recallOne(t, s, o, "k")
			if d := time.Since(begin); got != "one" || !doubted || err != nil || d != wait {
				t.Errorf("look %d: %q, %v, %v after %v, want %v", i, got, doubted, err, d, wait)
			}
		}
		answered := make(chan string, 1)
		go func() {
			v, _, _ := recallOne(t, s, o, "unknown")
			answered <- v
		}()
		time.Sleep(10 * time.Minute) // of the bubble's clock
		if len(answered) > 0 {
			t.Error("what is not known was given")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := StaleIfError(ctx, s, "server", "unknown", o.ask, notFound); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		o.says.Store("two")
		close(hole)
		if v := <-answered; v != "two" {
			t.Error(v)
		}
		synctest.Wait()
		if v, doubted, _ := recallOne(t, s, o, "k"); v != "two" || doubted {
			t.Error(v, doubted)
		}
	})
}

// TestAskersShareNoAnswer fails when an answer to one user, or in one workspace, is
// given to another for want of a newer one.
func TestAskersShareNoAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := diskAt(t, t.TempDir(), 1<<30)
		o := &oracle{}
		o.says.Store("ann's")
		recallOne(t, answersOf(t, d, Options{Scope: "ann"}), o, "k")
		synctest.Wait()
		o.fails(errDown)
		if v, _, err := recallOne(t, answersOf(t, d, Options{Scope: "bob"}), o, "k"); !errors.Is(err, errDown) {
			t.Errorf("bob got %q, %v", v, err)
		}
		if v, _, err := recallOne(t, answersOf(t, d, Options{Scope: "ann"}), o, "k"); v != "ann's" {
			t.Errorf("ann got %q, %v", v, err)
		}
	})
}

// answerFile is where an answer lies; see cache/disk.
func answerFile(t *testing.T, dir, server, question string) string {
	t.Helper()
	name := disk.Question("\x00"+server, question).String()
	return filepath.Join(dir, disk.Layout, "answers", name[:2], name[2:])
}
