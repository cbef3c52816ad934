package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Shelf keeps the last answer to each question, such as what a directory
// holds, for the time in which the server that knows can't be asked. With a
// Disk it keeps them from one process to the next. See [Recall].
type Shelf struct {
	opt ShelfOptions
	dir string // of the answers; empty without a Disk

	mu      sync.Mutex // guards what follows; no other lock is taken under it
	recent  *simplelru.LRU[string, answer]
	held    int // bytes in recent
	lines   map[string]*line
	pending map[string][]byte // on their way to the disk; nil to be removed
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
	maxRecent    = 8 << 20   // bytes of answers in memory
	maxAnswer    = 16 << 20  // bytes of one that is kept
	maxAnswers   = 256 << 20 // bytes of all on disk
	answersAge   = 30 * 24 * time.Hour
	answersDir   = "answers"
	askAgain     = 2 * time.Second
	maxAsking    = 4
	refreshEvery = time.Minute // an answer that is the same is dated anew so often
)

// NewShelf makes a shelf in d, which may be nil.
func NewShelf(d *Disk, opt ShelfOptions) *Shelf {
	if opt.Patience <= 0 {
		opt.Patience = 900 * time.Millisecond
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s := &Shelf{opt: opt, lines: map[string]*line{}, pending: map[string][]byte{}}
	var err error
	if s.recent, err = simplelru.NewLRU(math.MaxInt, func(_ string, a answer) { s.held -= len(a.body) }); err != nil {
		panic(err) // only for a size below 1
	}
	if d != nil {
		s.dir = filepath.Join(d.dir, answersDir)
		go s.tidy()
	}
	return s
}

// Recall asks a question of the server that line names, and gives its answer.
// Where the server can't be asked, it gives the last answer that there was to
// key, if it is not too old: at once while the server is known to be down,
// else when no answer has come for a while; the question goes on then, and its
// answer is kept for the next time. A Memo that loads by it is told (see
// [Doubt]).
//
// said tells whether an error of ask is the server's word; it then takes the
// place of the last answer. T goes through JSON. A nil Shelf only asks.
func Recall[T any](ctx context.Context, s *Shelf, line, key string, ask func(context.Context) (T, error), said func(error) bool) (T, error) {
	if s == nil {
		return ask(ctx)
	}
	key = s.name(line, key)
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

func (s *Shelf) name(line, key string) string {
	h := sha256.New()
	for _, p := range []string{line, key} {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	n := hex.EncodeToString(h.Sum(nil))
	return n[:2] + "/" + n[2:]
}

// Recalled gives the last answer to key without asking, if there is one that
// is not too old.
func Recalled[T any](s *Shelf, line, key string) (T, bool) {
	return recalled[T](s, s.name(line, key))
}

// recalled gives the last answer to key that is not too old.
func recalled[T any](s *Shelf, key string) (v T, ok bool) {
	a, ok := s.get(key)
	if !ok || (!s.opt.Offline && time.Since(a.at) > s.opt.Stale) {
		return v, false
	}
	return v, json.Unmarshal(a.body, &v) == nil
}

// get gives the last answer to key, in memory or on disk.
func (s *Shelf) get(key string) (answer, bool) {
	s.mu.Lock()
	a, ok := s.recent.Get(key)
	removed := false
	if b, waits := s.pending[key]; waits && b == nil {
		removed = true
	}
	s.mu.Unlock()
	if ok || removed || s.dir == "" {
		return a, ok
	}
	path := filepath.Join(s.dir, key)
	st, err := os.Stat(path)
	if err != nil || st.Size() > maxAnswer+100 {
		return answer{}, false
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return answer{}, false
	}
	head, body, _ := bytes.Cut(b, []byte("\n"))
	if string(head) != headOf(key, body) {
		return answer{}, false // cut, damaged, or another's
	}
	a = answer{body, st.ModTime()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remember(key, a)
	return a, true
}

// headOf is the first line of an answer on disk.
func headOf(key string, body []byte) string {
	return fmt.Sprintf("mlflowfs answer 1 %08x", crc32.Update(crc32.Checksum([]byte(key), castagnoli), castagnoli, body))
}

// remember puts an answer into memory. s.mu is held.
func (s *Shelf) remember(key string, a answer) {
	s.recent.Remove(key)
	if len(a.body) > maxRecent/8 {
		return
	}
	s.recent.Add(key, a)
	s.held += len(a.body)
	for s.held > maxRecent {
		s.recent.RemoveOldest()
	}
}

func (s *Shelf) keep(key string, v any) {
	if b, err := json.Marshal(v); err == nil && len(b) <= maxAnswer {
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
func (s *Shelf) put(key string, body []byte) {
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
	if s.dir == "" {
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
		var key string
		var body []byte
		for key, body = range s.pending {
			break
		}
		if key == "" {
			s.writing = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		guard(func() error { return s.writeOne(filepath.Join(s.dir, key), key, body) })
		s.mu.Lock()
		if b, ok := s.pending[key]; ok && (len(b) == 0) == (len(body) == 0) && (len(b) == 0 || &b[0] == &body[0]) {
			delete(s.pending, key) // else there is a newer one
		}
		s.mu.Unlock()
	}
}

func (s *Shelf) writeOne(path, key string, body []byte) error {
	if body == nil {
		return os.Remove(path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append([]byte(headOf(key, body)+"\n"), body...))
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// answerFile is what the files below dir are called.
var answerFile = regexp.MustCompile(`^[0-9a-f]{2}/([0-9a-f]{62}|\.new-[0-9]+)$`)

// tidy removes the answers that nobody has renewed for long, and the oldest
// where there are too many.
func (s *Shelf) tidy() {
	type file struct {
		path string
		st   os.FileInfo
	}
	var files []file
	var total int64
	filepath.WalkDir(s.dir, func(p string, e fs.DirEntry, err error) error {
		rel, rerr := filepath.Rel(s.dir, p)
		if err != nil || rerr != nil || e.IsDir() || !answerFile.MatchString(rel) {
			return nil
		}
		if st, err := e.Info(); err == nil {
			files = append(files, file{p, st})
			total += st.Size()
		}
		return nil
	})
	slices.SortFunc(files, func(a, b file) int { return a.st.ModTime().Compare(b.st.ModTime()) })
	for _, f := range files {
		if total <= maxAnswers && time.Since(f.st.ModTime()) < answersAge {
			return
		}
		os.Remove(f.path)
		total -= f.st.Size()
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
