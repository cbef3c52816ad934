package cache

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// TestLifeHasFourStates fails when a content comes from one state into another
// that does not follow it, misses one of the transitions that there are, or has in
// a state what does not belong to that: an open file that nobody needs, blocks of a
// content that is dead, a wrong count of what is open. Two processes on one
// directory open, read, close, evict and replace it by a seed.
func TestLifeHasFourStates(t *testing.T) {
	bubble(t, func(t *testing.T) {
		seed := seedOf(t)
		t.Logf("seed %d", seed)
		w := &lives{r: rand.New(rand.NewPCG(seed, 5)), dir: t.TempDir(), seen: map[[2]state]int{}}
		w.gated.Source = w
		for range 2 {
			w.caches = append(w.caches, memoryCache(t, Options{Disk: diskAt(t, w.dir, 1<<30), Memory: mib, Linger: time.Minute}))
		}
		for n := 0; n < 4000 || (n < 100_000 && w.missing() > 0); n++ {
			w.step(t)
		}
		close(w.gated.gate())
		for _, h := range w.handles {
			h.Close()
		}
		names := [...]string{idle: "idle", open: "open", lingering: "lingering", dead: "dead"}
		for from := range state(len(names)) {
			for to := range state(len(names)) {
				switch n := w.seen[[2]state{from, to}]; {
				case from == to:
				case n > 0 && !transitions[[2]state{from, to}]:
					t.Errorf("%s became %s %d times", names[from], names[to], n)
				case n == 0 && transitions[[2]state{from, to}]:
					t.Errorf("nothing %s became %s", names[from], names[to])
				}
			}
		}
	})
}

// transitions are those that there are.
var transitions = map[[2]state]bool{
	{idle, open}: true, {idle, dead}: true,
	{open, idle}: true, {open, lingering}: true, {open, dead}: true,
	{lingering, open}: true, {lingering, idle}: true, {lingering, dead}: true,
}

func (w *lives) missing() (n int) {
	for t := range transitions {
		if w.seen[t] == 0 {
			n++
		}
	}
	return n
}

// lives is the contents of one key in several caches.
type lives struct {
	r       *rand.Rand
	dir     string
	caches  []*Cache
	mu      sync.Mutex // guards version and whole
	version int
	whole   bool
	gated   gated
	handles []*File
	was     map[*content]state
	seen    map[[2]state]int
}

const livesSize = 24*mib + 5 // a stream of it has a file

func (w *lives) ReadRange(_ context.Context, off, n int64, validator string) (*Body, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := &Body{Whole: w.whole, Total: livesSize, Validator: fmt.Sprint("v", w.version)}
	if validator != "" && validator != b.Validator {
		return nil, ErrChanged
	}
	if w.whole {
		off, n = 0, livesSize
	}
	b.ReadCloser = io.NopCloser(io.NewSectionReader(zeros{}, off, n))
	return b, nil
}

// zeros is a file of zeros.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// gated is a source whose bodies wait at a gate, when that is closed.
type gated struct {
	Source
	mu sync.Mutex // guards ch
	ch chan struct{}
}

func (g *gated) gate() chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ch == nil {
		g.ch = make(chan struct{})
	}
	return g.ch
}

// open lets through what waits at the gate, and closes it for what comes then.
func (g *gated) open() {
	ch := g.gate()
	g.mu.Lock()
	defer g.mu.Unlock()
	close(ch)
	g.ch = nil
}

func (g *gated) ReadRange(ctx context.Context, off, n int64, validator string) (*Body, error) {
	b, err := g.Source.ReadRange(ctx, off, n, validator)
	if err == nil {
		b.ReadCloser = &waitingBody{b.ReadCloser, ctx, g.gate()}
	}
	return b, err
}

type waitingBody struct {
	io.ReadCloser
	ctx  context.Context
	gate chan struct{}
}

func (b *waitingBody) Read(p []byte) (int, error) {
	select {
	case <-b.gate:
		return b.ReadCloser.Read(p)
	case <-b.ctx.Done():
		return 0, context.Cause(b.ctx)
	}
}

func (w *lives) step(t *testing.T) {
	t.Helper()
	c := w.caches[w.r.IntN(len(w.caches))]
	key := Key{"x", livesSize, ""}
	switch w.r.IntN(12) {
	case 0, 1, 2:
		if len(w.handles) > 2 {
			return // else nothing is ever closed
		}
		w.handles = append(w.handles, c.Open(key, &w.gated, w.r.IntN(8) > 0))
	case 3, 4:
		if len(w.handles) > 0 {
			h := w.handles[w.r.IntN(len(w.handles))]
			off := w.r.Int64N(livesSize)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			go func() {
				defer cancel()
				h.ReadAt(ctx, make([]byte, 3*BlockSize), off)
			}()
		}
	case 5, 6, 7:
		if n := len(w.handles); n > 0 {
			i := w.r.IntN(n)
			w.handles[i].Close()
			w.handles[i] = w.handles[n-1]
			w.handles = w.handles[:n-1]
		}
	case 8: // what was asked for comes
		w.gated.open()
	case 9:
		time.Sleep(time.Duration(w.r.IntN(90)) * time.Second) // of the bubble's clock
	case 10:
		switch w.r.IntN(4) {
		case 0:
			w.mu.Lock()
			w.version++
			w.mu.Unlock()
		case 1:
			w.mu.Lock()
			w.whole = !w.whole
			w.mu.Unlock()
		default:
			c.opt.Disk.Evict(disk.Key(key))
		}
	case 11: // idle contents are pushed out
		c.mu.Lock()
		for _, ct := range c.idle.Keys() {
			c.idle.Remove(ct)
		}
		c.mu.Unlock()
	}
	synctest.Wait()
	w.look(t)
}

// look notes what each content became, and holds it against its state.
func (w *lives) look(t *testing.T) {
	t.Helper()
	was := w.was
	w.was = map[*content]state{}
	for _, c := range w.caches {
		c.mu.Lock()
		opened := map[*content]bool{}
		for _, h := range w.handles {
			if h.ct.c == c && h.ct.life.state == open {
				opened[h.ct] = true
			}
		}
		if c.open != len(opened) {
			t.Errorf("%d contents are open, and %d are counted", len(opened), c.open)
		}
		all := map[*content]bool{}
		for _, ct := range c.contents {
			all[ct] = true
		}
		for ct := range was {
			if ct.c == c {
				all[ct] = true
			}
		}
		held := map[*content]int{}
		for _, k := range c.blocks.Keys() {
			held[k.of]++
			all[k.of] = true
		}
		for ct := range all {
			l := &ct.life
			if from := was[ct]; from != l.state {
				w.seen[[2]state{from, l.state}]++
			}
			if l.unused() && ct.store.open {
				t.Error("a file that nobody needs is open")
			}
			if l.state == dead && held[ct] > 0 || held[ct] != ct.store.blocks {
				t.Errorf("a content in state %d has %d blocks, and counts %d", l.state, held[ct], ct.store.blocks)
			}
			if (l.state == dead) == (c.contents[ct.key] == ct) || (l.state == idle) != c.idle.Has(ct) {
				t.Errorf("a content in state %d is out of its place", l.state)
			}
			if l.state != dead {
				w.was[ct] = l.state
			}
		}
		c.mu.Unlock()
	}
}
