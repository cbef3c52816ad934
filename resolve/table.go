package resolve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/cache/lru"
)

// Table is a table of what the tracking server knows, as CSV. It is made page by
// page, as far as it is read: its size is known when the last row is there. Its user
// lets go of it with Close.
type Table struct {
	key    string
	set    *tableSet
	spool  *cache.Spool
	serial int

	began [sha256.Size]byte // of the first page
	guess int64             // see Size; both stand when the first page is there
	sum   string            // of all of it, when that is there

	mu    sync.Mutex    // guards what follows; no other lock is taken under it
	asked time.Time     // when the last page was
	life  time.Duration // how long it is believed after that
	holds bool          // something is open for its rest: a body, or a file

	// Guarded by set.mu:
	users int
	idle  *time.Timer // nobody uses it: until it is old
	gone  bool
}

// Serial tells the table from every other of the process, and of those that it goes on for
// (Options.FirstSerial).
func (t *Table) Serial() int { return t.serial }

// Sum tells what is in a table that has been made from what is in any other; empty
// where it has not.
func (t *Table) Sum() string {
	if _, whole := t.spool.Len(); whole {
		return t.sum
	}
	return ""
}

// Size is how many bytes the table has, where known says that all of it has been
// made. Else it is one that is too large, so that a program which relies on it fails,
// and does not take a part for the whole; or, of what changes no more, the size that
// the last one had which began with the same rows.
func (t *Table) Size() (n int64, known bool) {
	if n, known = t.spool.Len(); known {
		return n, true
	}
	return t.guess, false
}

// Grow has more than n bytes of the table made, and waits for them. It gives how many
// there are then, and whether these are all.
func (t *Table) Grow(ctx context.Context, n int64) (size int64, whole bool, err error) {
	return t.spool.Grow(ctx, n)
}

// Failed tells whether the rest of the table will never be made: the next use is of
// another.
func (t *Table) Failed() bool { return t.spool.Err() != nil }

// ReadAt is [cache.Spool.ReadAt].
func (t *Table) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return t.spool.ReadAt(ctx, p, off)
}

// Use begins another use, by one who has no other; false says that the table is to be
// asked for anew.
func (t *Table) Use() bool { return t.set.use(t) }

// Close ends a use.
func (t *Table) Close() error {
	t.set.release(t)
	return nil
}

// old tells whether the table is to be made anew for who asks now.
func (t *Table) old() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.Failed() || (!t.spool.Making() && time.Since(t.asked) > t.life)
}

// page is the lines of a page of a table.
type page struct {
	text  []byte
	last  bool
	final bool // nothing in the table changes any more
	part  bool // it is part of a page of the server's, so that there may be any number of them, and the rest is open
}

// piece has the table made of pages. large is how many bytes it has at most, as far as
// the first page tells.
func (t *Table) piece(next func(context.Context) (page, error), large func(first int) int64) cache.Piece {
	var pages, whole, total int // whole: those that are no part of one
	all := sha256.New()
	return func(ctx context.Context) ([]byte, bool, error) {
		if whole == maxPages {
			return nil, false, errTooLong
		}
		ctx, doubt := cache.WithStaleMark(ctx)
		p, err := next(ctx)
		if err != nil {
			return nil, false, err
		}
		if pages++; !p.part {
			whole++
		}
		t.mu.Lock()
		t.asked, t.holds = time.Now(), p.part && !p.last
		if t.life = t.set.life(p.final); doubt.Load() {
			t.life = min(t.life, cache.StaleLifetime)
		}
		t.mu.Unlock()
		if pages == 1 && !p.last {
			t.began = sha256.Sum256(p.text)
			t.guess = large(len(p.text))
			if p.final {
				t.guess = t.set.guess(t, t.guess)
			}
		}
		total += len(p.text)
		all.Write(p.text)
		if p.last {
			t.sum = hex.EncodeToString(all.Sum(nil))
		}
		if p.last && pages > 1 && p.final {
			t.set.remember(t, int64(total))
		}
		return p.text, p.last, nil
	}
}

// tableSet is the tables that are being made, or were just now. Those that nobody
// uses are bounded by their memory, and by what they hold open, and let go of when they
// are old.
type tableSet struct {
	cache *cache.Cache
	life  func(final bool) time.Duration

	mu     sync.Mutex // guards what follows; of the locks in it those of a Table and its Spool are taken under it
	serial int
	newest map[string]*Table
	idle   *lru.Costed[*Table, struct{}]
	open   *lru.Costed[*Table, struct{}] // those of idle that hold something open
	sizes  *lru.Costed[string, made]     // of the tables that were made whole, and change no more
}

// made is the size of a table of several pages, and what its first was.
type made struct {
	size  int64
	began [sha256.Size]byte
}

// openTables is how many tables that nobody uses may hold something open: who asks for
// the sizes of many names, as `ls -l`, reads none of them, and who opens a name has just
// looked it up.
const openTables = 8

// madeTables is how many tables' sizes are remembered.
const madeTables = 10_000

func newTableSet(c *cache.Cache, first int, life func(final bool) time.Duration) *tableSet {
	s := &tableSet{cache: c, life: life, serial: first, newest: map[string]*Table{}, sizes: lru.New[string, made](madeTables, nil)}
	gone := func(t *Table, _ struct{}) {
		if t.users == 0 {
			s.drop(t)
		}
	}
	s.idle, s.open = lru.New(tablesBytes, gone), lru.New(openTables, gone)
	return s
}

// remember notes that a table has been made.
func (s *tableSet) remember(t *Table, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sizes.Add(t.key, made{size, t.began}, 1)
}

// guess is the size of the last table that was made and began as t does, or large.
func (s *tableSet) guess(t *Table, large int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m, ok := s.sizes.Get(t.key); ok && m.began == t.began {
		return m.size
	}
	return large
}

// get gives a table, whose first page is there, for one use.
func (s *tableSet) get(ctx context.Context, key string, next func(context.Context) (page, error), large func(first int) int64) (*Table, error) {
	s.mu.Lock()
	t := s.newest[key]
	if t != nil && t.old() {
		delete(s.newest, key)
		if t.users == 0 {
			s.drop(t)
		}
		t = nil
	}
	if t == nil {
		s.serial++
		t = &Table{key: key, set: s, serial: s.serial, asked: time.Now(), life: s.life(false)}
		t.spool = s.cache.NewSpool(t.piece(next, large))
		s.newest[key] = t
	}
	s.takeUse(t)
	s.mu.Unlock()
	if _, _, err := t.spool.Grow(ctx, 0); err != nil {
		s.release(t)
		return nil, err
	}
	return t, nil
}

// takeUse counts a use. s.mu is held.
func (s *tableSet) takeUse(t *Table) {
	t.users++
	if t.idle != nil {
		t.idle.Stop()
		t.idle = nil
		s.idle.Remove(t)
		s.open.Remove(t)
	}
}

func (s *tableSet) use(t *Table) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.gone || t.old() {
		return false
	}
	s.takeUse(t)
	return true
}

func (s *tableSet) release(t *Table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.users--; t.users > 0 || t.gone {
		return
	}
	if s.newest[t.key] != t || t.Failed() {
		s.drop(t)
		return
	}
	t.mu.Lock()
	left, holds := time.Until(t.asked.Add(t.life)), t.holds
	t.mu.Unlock()
	t.idle = time.AfterFunc(max(left, 0), func() { s.expire(t) })
	s.idle.Add(t, struct{}{}, t.spool.Memory())
	if holds {
		s.open.Add(t, struct{}{}, 1)
	}
}

// expire lets go of a table that nobody has used since it was idle.
func (s *tableSet) expire(t *Table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.users == 0 {
		s.drop(t)
	}
}

// drop lets go of a table. s.mu is held.
func (s *tableSet) drop(t *Table) {
	if t.gone {
		return
	}
	t.gone = true
	if t.idle != nil {
		t.idle.Stop()
		s.idle.Remove(t)
		s.open.Remove(t)
	}
	if s.newest[t.key] == t {
		delete(s.newest, t.key)
	}
	t.spool.Close()
}
