// Package answers keeps what servers said last, for the time in which they can't be
// asked, and knows which of them can.
package answers

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

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/cache/disk"
	"github.com/mlflowfs/mlflowfs/cache/lru"
)

// Answers keeps the last answer to each question, such as what a directory
// holds, for the time in which the server that knows can't be asked. With a
// Dir it keeps them from one process to the next. See [StaleIfError].
type Answers struct {
	opt  Options
	disk *disk.Dir // keeps the answers from one process to the next; nil: nothing does

	mu       sync.Mutex // guards what follows; no other lock is taken under it
	recent   *lru.Costed[disk.Name, answer]
	breakers *lru.Costed[string, *breaker] // by server
	pending  map[disk.Name][]byte          // on their way to the disk; nil to be removed
	waiting  int                           // bytes in pending
	writing  bool
}

// Options say which answers an Answers may give.
type Options struct {
	Scope    string        // tells apart what a question may mean in two processes: the workspace, and who asks
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

const (
	maxBreakers  = 1000
	maxRecent    = 8 << 20     // bytes of answers in memory
	refreshEvery = time.Minute // an answer that is the same is dated anew so often
)

// New makes an Answers on d, which may be nil.
func New(d *disk.Dir, opt Options) *Answers {
	if opt.Patience <= 0 {
		opt.Patience = 900 * time.Millisecond
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s := &Answers{opt: opt, disk: d, pending: map[disk.Name][]byte{}}
	s.breakers = lru.New[string, *breaker](maxBreakers, nil)
	s.recent = lru.New[disk.Name, answer](maxRecent, nil)
	return s
}

// StaleIfError asks a question of a server, and gives its answer.
// Where the server can't be asked, it gives the last answer that there was to
// the question, if it is not too old: at once while the server is known to be down,
// else when no answer has come for a while; the question goes on then, and its
// answer is kept for the next time. A Memo that loads by it is told (see
// [cache.MarkStale]).
//
// isAnswer tells whether an error of ask is the server's word; it then takes the
// place of the last answer. T goes through JSON. A nil Answers only asks.
func StaleIfError[T any](ctx context.Context, s *Answers, server, question string, ask func(context.Context) (T, error), isAnswer func(error) bool) (T, error) {
	if s == nil {
		return ask(ctx)
	}
	key := s.key(server, question)
	b := s.breaker(server)
	patience := s.opt.Patience
	switch {
	case cache.IsAnew(ctx) && !s.opt.Offline:
		patience = time.Hour // the server has its own to answer in; what it said before is for when it does not
	case b.open() || s.opt.Offline:
		old, ok := last[T](s, key)
		if ok && (s.opt.Offline || !b.mayAsk()) {
			cache.MarkStale(ctx)
			return old, nil
		}
		patience = 0
	}
	done := make(chan asked[T], 1)
	go func() {
		var r asked[T]
		r.err = cache.Guard(func() (err error) {
			r.v, err = ask(context.WithoutCancel(ctx))
			return err
		})
		r.answered = r.err == nil || isAnswer(r.err)
		b.asked(r.answered, r.err)
		switch {
		case r.err == nil:
			s.keep(key, r.v)
		case r.answered && errors.Is(r.err, fs.ErrNotExist):
			s.put(key, nil)
		}
		done <- r
	}()
	late := time.After(patience)
	for {
		select {
		case r := <-done:
			if !r.answered {
				if old, ok := last[T](s, key); ok {
					cache.MarkStale(ctx)
					return old, nil
				}
			}
			return r.v, r.err
		case <-late:
			if old, ok := last[T](s, key); ok {
				if patience > 0 { // else it is known to be gone, and may be back by now
					b.silent()
				}
				cache.MarkStale(ctx)
				return old, nil
			} // else there is nothing to do but wait
		case <-ctx.Done():
			var zero T
			return zero, context.Cause(ctx)
		}
	}
}

// asked is how a question ended.
type asked[T any] struct {
	v        T
	err      error
	answered bool // by the server
}

// Last gives the last answer to a question without asking, if there is one that
// is not too old.
func Last[T any](s *Answers, server, question string) (T, bool) {
	return last[T](s, s.key(server, question))
}

func (s *Answers) key(server, question string) disk.Name {
	return disk.Question(s.opt.Scope+"\x00"+server, question)
}

// breaker is that of a server.
func (s *Answers) breaker(server string) *breaker {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.breakers.Get(server)
	if !ok {
		b = &breaker{log: s.opt.Log.With("server", server)}
		if s.opt.Offline {
			b.log = slog.New(slog.DiscardHandler) // nobody is asked
		}
		s.breakers.Add(server, b, 1)
	}
	return b
}

// last gives the last answer to key that is not too old.
func last[T any](s *Answers, key disk.Name) (v T, ok bool) {
	a, ok := s.get(key)
	if !ok || (!s.opt.Offline && time.Since(a.at) > s.opt.Stale) {
		return v, false
	}
	return v, json.Unmarshal(a.body, &v) == nil
}

// get gives the last answer to key, in memory or on disk.
func (s *Answers) get(key disk.Name) (answer, bool) {
	s.mu.Lock()
	a, ok := s.recent.Get(key)
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
func (s *Answers) remember(key disk.Name, a answer) {
	if len(a.body) > maxRecent/8 {
		s.recent.Remove(key)
		return
	}
	s.recent.Add(key, a, int64(len(a.body)))
}

func (s *Answers) keep(key disk.Name, v any) {
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
func (s *Answers) put(key disk.Name, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if body == nil {
		s.recent.Remove(key)
	} else {
		old, ok := s.recent.Get(key)
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
	if s.waiting += len(body) - len(s.pending[key]); s.waiting > maxRecent { // the disk is slow
		s.waiting -= len(body)
		body = nil
	}
	s.pending[key] = body
	if !s.writing {
		s.writing = true
		go s.write()
	}
}

// write brings what is pending to the disk. What can't be written is not kept.
func (s *Answers) write() {
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
			s.waiting -= len(b)
		}
		s.mu.Unlock()
	}
}
