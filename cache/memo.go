package cache

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mlflowfs/mlflowfs/cache/lru"
)

// Memo remembers one value for each key until the value's lifetime is over.
// While a value is being loaded, everyone who asks for the key waits for that
// one load; the load is not ended when a waiter gives up. Errors are given to
// those who waited and are not remembered.
//
// The zero Memo is not usable: see [NewMemo].
type Memo[K comparable, V any] struct {
	cost     func(V) int64
	lifetime func(V) time.Duration
	now      func() time.Time

	mu      sync.Mutex // guards what follows; no other lock is taken under it
	values  *lru.Costed[K, memoValue[V]]
	loading map[K]*memoLoad[V]
}

type memoValue[V any] struct {
	v       V
	expires time.Time
}

type memoLoad[V any] struct {
	done    chan struct{}
	v       V
	err     error
	dropped bool // Drop was called while loading: don't remember the result
}

// NewMemo makes a Memo whose values cost at most maxCost together, the least
// recently used going first. cost nil means 1 for each value. lifetime says
// how long a value is believed.
func NewMemo[K comparable, V any](maxCost int64, cost func(V) int64, lifetime func(V) time.Duration) *Memo[K, V] {
	if cost == nil {
		cost = func(V) int64 { return 1 }
	}
	m := &Memo[K, V]{
		cost:     cost,
		lifetime: lifetime,
		now:      time.Now,
		loading:  map[K]*memoLoad[V]{},
	}
	m.values = lru.New[K, memoValue[V]](maxCost, nil)
	return m
}

// Get returns the remembered value of key, or loads it. load runs with a
// context of its own, which ends with none of the callers.
func (m *Memo[K, V]) Get(ctx context.Context, key K, load func(context.Context) (V, error)) (V, error) {
	m.mu.Lock()
	if e, ok := m.values.Get(key); ok {
		if m.now().Before(e.expires) {
			m.mu.Unlock()
			return e.v, nil
		}
		m.values.Remove(key)
	}
	l := m.loading[key]
	if l == nil {
		l = &memoLoad[V]{done: make(chan struct{})}
		m.loading[key] = l
		go m.load(context.WithoutCancel(ctx), key, l, load)
	}
	m.mu.Unlock()

	select {
	case <-l.done:
		return l.v, l.err
	case <-ctx.Done():
		var zero V
		return zero, context.Cause(ctx)
	}
}

// Peek returns the remembered value of key, if there is one. That is no use of it.
func (m *Memo[K, V]) Peek(key K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.values.Peek(key)
	return e.v, ok
}

// StaleLifetime is how long a value is believed that was loaded in doubt.
const StaleLifetime = 2 * time.Second

type staleKey struct{}

// MarkStale tells the Memo whose load has ctx that the value it gets may be out of
// date, and is to be loaded anew before long.
func MarkStale(ctx context.Context) {
	if d, ok := ctx.Value(staleKey{}).(*atomic.Bool); ok {
		d.Store(true)
	}
}

// WithStaleMark gives a context, and whether [MarkStale] was called with it.
func WithStaleMark(ctx context.Context) (context.Context, *atomic.Bool) {
	mark := new(atomic.Bool)
	return context.WithValue(ctx, staleKey{}, mark), mark
}

func (m *Memo[K, V]) load(ctx context.Context, key K, l *memoLoad[V], load func(context.Context) (V, error)) {
	ctx, _ = WithStaleMark(ctx)
	l.err = Guard(func() (err error) {
		l.v, err = load(ctx)
		return err
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.loading[key] == l {
		delete(m.loading, key)
	}
	if l.err == nil && !l.dropped {
		m.put(key, l.v, m.believed(ctx, l.v))
	}
	close(l.done)
}

// PutAs remembers v for key, as if it had just been loaded with ctx.
func (m *Memo[K, V]) PutAs(ctx context.Context, key K, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(key, v, m.believed(ctx, v))
}

// believed is how long a value is that was loaded with ctx.
func (m *Memo[K, V]) believed(ctx context.Context, v V) time.Duration {
	d := m.lifetime(v)
	if doubt, ok := ctx.Value(staleKey{}).(*atomic.Bool); ok && doubt.Load() {
		d = min(d, StaleLifetime)
	}
	return d
}

func (m *Memo[K, V]) put(key K, v V, lifetime time.Duration) {
	m.values.Add(key, memoValue[V]{v, m.now().Add(lifetime)}, m.cost(v))
}

// Drop forgets key; what is being loaded for it now is not remembered.
func (m *Memo[K, V]) Drop(key K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values.Remove(key)
	if l := m.loading[key]; l != nil {
		l.dropped = true
		delete(m.loading, key)
	}
}
