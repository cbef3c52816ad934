package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// Shelf keeps the last answer to each question, such as what a directory
// holds, for the time in which the server that knows can't be asked. With a
// Disk it keeps them from one process to the next. See [Recall].
type Shelf struct {
	opt  ShelfOptions
	disk *disk.Dir // keeps the answers from one process to the next; nil: nothing does

	mu      sync.Mutex // guards what follows; no other lock is taken under it
	recent  *costed[disk.Name, answer]
	lines   map[string]*line
	pending map[disk.Name][]byte // on their way to the disk; nil to be removed
	writing bool
}

// ShelfOptions say what a Shelf may give.
type ShelfOptions struct {
	Stale    time.Duration // how old an answer may be that is given for want of a newer one
	Offline  bool          // nothing is asked that has been answered, and an answer of any age is given
	Patience time.Duration // how long a question waits before an old answer is given (900 ms)
	Log      *slog.Logger  // of each server that is gone, and is back
}

// answer is what a question was answered with last.
type answer struct {
	body []byte
	at   time.Time
}

// line is what leads to one server.
type line struct {
	since  time.Time // since when it is down; zero: it is not
	asked  time.Time // when it was last asked whether it is back
	asking int
}

const (
	maxRecent    = 8 << 20 // bytes of answers in memory
	askAgain     = 2 * time.Second
	maxAsking    = 4
	refreshEvery = time.Minute // an answer that is the same is dated anew so often
)

// NewShelf makes a shelf in d, which may be nil.
func NewShelf(d *disk.Dir, opt ShelfOptions) *Shelf {
	if opt.Patience <= 0 {
		opt.Patience = 900 * time.Millisecond
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s := &Shelf{opt: opt, disk: d, lines: map[string]*line{}, pending: map[disk.Name][]byte{}}
	s.recent = newCosted[disk.Name, answer](maxRecent, nil)
	return s
}

// Recall asks a question of the server that line names, and gives its answer.
// Where the server can't be asked, it gives the last answer that there was to
// the question, if it is not too old: at once while the server is known to be down,
// else when no answer has come for a while; the question goes on then, and its
// answer is kept for the next time. A Memo that loads by it is told (see
// [Doubt]).
//
// said tells whether an error of ask is the server's word; it then takes the
// place of the last answer. T goes through JSON. A nil Shelf only asks.
func Recall[T any](ctx context.Context, s *Shelf, line, question string, ask func(context.Context) (T, error), said func(error) bool) (T, error) {
	if s == nil {
		return ask(ctx)
	}
	key := disk.Question(line, question)
	patience := s.opt.Patience
	if down := s.isDown(line); down || s.opt.Offline {
		old, ok := recalled[T](s, key)
		if ok && (s.opt.Offline || !s.mayAsk(line)) {
			Doubt(ctx)
			return old, nil
		}
		patience = 0
	}
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		r.err = guard(func() (err error) {
			r.v, err = ask(context.WithoutCancel(ctx))
			return err
		})
		answered := r.err == nil || said(r.err)
		s.asked(line, answered, r.err)
		switch {
		case r.err == nil:
			s.keep(key, r.v)
		case answered && errors.Is(r.err, fs.ErrNotExist):
			s.put(key, nil)
		}
		done <- r
	}()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		select {
		case r := <-done:
			if r.err != nil && !said(r.err) {
				if old, ok := recalled[T](s, key); ok {
					Doubt(ctx)
					return old, nil
				}
			}
			return r.v, r.err
		case <-late.C:
			if old, ok := recalled[T](s, key); ok {
				if patience > 0 { // else it is known to be gone, and may be back by now
					s.goneSilent(line)
				}
				Doubt(ctx)
				return old, nil
			} // else there is nothing to do but wait
		case <-ctx.Done():
			var zero T
			return zero, context.Cause(ctx)
		}
	}
}

// Recalled gives the last answer to key without asking, if there is one that
// is not too old.
func Recalled[T any](s *Shelf, line, key string) (T, bool) {
	return recalled[T](s, disk.Question(line, key))
}

// recalled gives the last answer to key that is not too old.
func recalled[T any](s *Shelf, key disk.Name) (v T, ok bool) {
	a, ok := s.get(key)
	if !ok || (!s.opt.Offline && time.Since(a.at) > s.opt.Stale) {
		return v, false
	}
	return v, json.Unmarshal(a.body, &v) == nil
}

// get gives the last answer to key, in memory or on disk.
func (s *Shelf) get(key disk.Name) (answer, bool) {
	s.mu.Lock()
	a, ok := s.recent.get(key)
	removed := false
	if b, waits := s.pending[key]; waits && b == nil {
		removed = true
	}
	s.mu.Unlock()
	if ok || removed || s.disk == nil {
		return a, ok
	}
	body, at := s.disk.Answer(key)
	if body == nil {
		return answer{}, false
	}
	a = answer{body, at}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remember(key, a)
	return a, true
}

// remember puts an answer into memory. s.mu is held.
func (s *Shelf) remember(key disk.Name, a answer) {
	if len(a.body) > maxRecent/8 {
		s.recent.remove(key)
		return
	}
	s.recent.add(key, a, int64(len(a.body)))
}

func (s *Shelf) keep(key disk.Name, v any) {
	if b, err := json.Marshal(v); err == nil && len(b) <= disk.MaxAnswer {
		s.put(key, b)
	}
}

// secret is what an answer of a server's may hold that is not to stand on a
// disk: a password in an address, a signature.
var secret = regexp.MustCompile(`://[^/@\s"]*:[^/@\s"]*@|(?i:sig|signature|token|secret|password)=`)

// mayHoldSecret tells, faster than the expression does, whether body has what
// each of its matches has; a listing of a hundred thousand names does not.
func mayHoldSecret(body []byte) bool {
	return bytes.IndexByte(body, '=') >= 0 || bytes.Contains(body, []byte("://"))
}

// put takes body as the last answer to key; nil says that there is none.
func (s *Shelf) put(key disk.Name, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if body == nil {
		s.recent.remove(key)
	} else {
		old, ok := s.recent.get(key)
		if ok && bytes.Equal(old.body, body) && time.Since(old.at) < refreshEvery {
			return
		}
		s.remember(key, answer{body, time.Now()})
		if mayHoldSecret(body) && secret.Match(body) {
			body = nil
		}
	}
	if s.disk == nil {
		return
	}
	s.pending[key] = body
	if !s.writing {
		s.writing = true
		go s.write()
	}
}

// write brings what is pending to the disk. What can't be written is not kept.
func (s *Shelf) write() {
	for {
		s.mu.Lock()
		var key disk.Name
		var body []byte
		for key, body = range s.pending {
			break
		}
		if len(s.pending) == 0 {
			s.writing = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		s.disk.KeepAnswer(key, body)
		s.mu.Lock()
		if b, ok := s.pending[key]; ok && (len(b) == 0) == (len(body) == 0) && (len(b) == 0 || &b[0] == &body[0]) {
			delete(s.pending, key) // else there is a newer one
		}
		s.mu.Unlock()
	}
}

func (s *Shelf) line(name string) *line {
	l := s.lines[name]
	if l == nil {
		l = &line{}
		s.lines[name] = l
	}
	return l
}

func (s *Shelf) isDown(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.line(name).since.IsZero()
}

// mayAsk tells whether a server that is down may be asked now.
func (s *Shelf) mayAsk(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.line(name)
	if time.Since(l.asked) < askAgain || l.asking >= maxAsking {
		return false
	}
	l.asked = time.Now()
	l.asking++
	return true
}

// asked notes how a question to a server ended.
func (s *Shelf) asked(name string, answered bool, err error) {
	s.mu.Lock()
	l := s.line(name)
	was := l.since
	l.asking = max(l.asking-1, 0)
	if answered {
		l.since = time.Time{}
	} else if was.IsZero() {
		l.since = time.Now()
	}
	s.mu.Unlock()
	switch {
	case s.opt.Offline: // nobody was asked
	case answered && !was.IsZero():
		s.opt.Log.Info("a server answers again", "server", name, "after", time.Since(was).Round(time.Second))
	case !answered && was.IsZero():
		s.opt.Log.Warn("a server can't be asked; what it said last is shown where it is known", "server", name, "err", err)
	}
}

// goneSilent notes that a server has not answered for a while.
func (s *Shelf) goneSilent(name string) {
	s.mu.Lock()
	l := s.line(name)
	first := l.since.IsZero()
	if first {
		l.since, l.asked = time.Now(), time.Now()
	}
	s.mu.Unlock()
	if first {
		s.opt.Log.Warn("a server does not answer; what it said last is shown where it is known", "server", name)
	}
}
