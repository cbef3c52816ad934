package cache

import (
	"context"
	"errors"
	"maps"
	"slices"
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
	dropped time.Time // when something was last, or was asked for anew
}

type memoValue[V any] struct {
	v       V
	began   time.Time // when it was asked for; zero: nobody knows
	expires time.Time
	stale   bool // see MarkStale
}

type memoLoad[V any] struct {
	done    chan struct{}
	began   time.Time
	v       V
	err     error
	stale   bool // see MarkStale
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
	since := anewSince(ctx)
	m.mu.Lock()
	if ctx.Value(asItWasKey{}) != nil {
		e, ok := m.values.Peek(key)
		m.mu.Unlock()
		if !ok {
			return e.v, errors.New("nothing of it is remembered")
		}
		return e.v, nil
	}
	if e, ok := m.values.Get(key); ok {
		if m.now().Before(e.expires) && !e.began.Before(since) {
			m.mu.Unlock()
			if e.stale {
				MarkStale(ctx)
			}
			return e.v, nil
		}
		m.values.Remove(key)
	}
	l := m.loading[key]
	if l != nil && l.began.Before(since) {
		l.dropped, l = true, nil
		m.dropped = m.now()
	}
	if l == nil {
		l = &memoLoad[V]{done: make(chan struct{}), began: m.now()}
		m.loading[key] = l
		go m.load(context.WithoutCancel(ctx), key, l, load)
	}
	m.mu.Unlock()

	select {
	case <-l.done:
		if l.stale {
			MarkStale(ctx)
		}
		return l.v, l.err
	case <-ctx.Done():
		var zero V
		return zero, context.Cause(ctx)
	}
}

type anewKey struct{}

// Anew gives a context with which each Memo loads what it was asked for before now, and
// remembers that.
func Anew(ctx context.Context) context.Context {
	return context.WithValue(ctx, anewKey{}, time.Now())
}

// NotAnew takes Anew back, for what is nobody's answer.
func NotAnew(ctx context.Context) context.Context {
	return context.WithValue(ctx, anewKey{}, time.Time{})
}

type asItWasKey struct{}

// AsItWas gives a context with which each Memo gives what it remembers, however old that
// is, and loads nothing: for what may be tried, and is held against the truth.
func AsItWas(ctx context.Context) context.Context {
	return context.WithValue(ctx, asItWasKey{}, true)
}

// IsAnew tells whether a context is one of Anew.
func IsAnew(ctx context.Context) bool { return !anewSince(ctx).IsZero() }

// anewSince is when Anew was called; zero where it was not.
func anewSince(ctx context.Context) time.Time {
	since, _ := ctx.Value(anewKey{}).(time.Time)
	return since
}

// Asked returns the value of key, if it was asked for since ctx was made by [Anew], and is
// not stale.
func (m *Memo[K, V]) Asked(ctx context.Context, key K) (v V, ok bool) {
	since := anewSince(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.values.Peek(key)
	if !ok || since.IsZero() || e.stale || e.began.Before(since) {
		return v, false
	}
	return e.v, true
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
// date, and is to be loaded anew before long; and, by their contexts, who is given it.
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
	ctx, stale := WithStaleMark(ctx)
	ctx = context.WithValue(ctx, beganKey{}, l.began)
	l.err = Guard(func() (err error) {
		l.v, err = load(ctx)
		return err
	})
	l.stale = stale.Load()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.loading[key] == l {
		delete(m.loading, key)
	}
	if l.err == nil && !l.dropped {
		m.put(ctx, key, l.v, l.began)
	}
	close(l.done)
}

type beganKey struct{}

// PutAs remembers v for key, as if it had just been loaded with ctx; unless ctx is that of
// a load that began before something was dropped.
func (m *Memo[K, V]) PutAs(ctx context.Context, key K, v V) {
	began, ofLoad := ctx.Value(beganKey{}).(time.Time)
	m.mu.Lock()
	defer m.mu.Unlock()
	if ofLoad && began.Before(m.dropped) {
		return
	}
	m.put(ctx, key, v, began)
}

// put remembers v, which was loaded with ctx. m.mu is held.
func (m *Memo[K, V]) put(ctx context.Context, key K, v V, began time.Time) {
	d := m.lifetime(v)
	doubt, ok := ctx.Value(staleKey{}).(*atomic.Bool)
	stale := ok && doubt.Load()
	if stale {
		d = min(d, StaleLifetime)
	}
	m.values.Add(key, memoValue[V]{v, began, m.now().Add(d), stale}, m.cost(v))
}

// Drop forgets key; what is being loaded for it now is not remembered.
func (m *Memo[K, V]) Drop(key K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(key)
}

// DropOlder is Drop for each key for which which is true and that was not asked for since
// ctx was made by [Anew].
func (m *Memo[K, V]) DropOlder(ctx context.Context, which func(K) bool) {
	since := anewSince(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dropped.Before(since) { // of what is on its way, too
		m.dropped = since
	}
	for _, key := range slices.Concat(m.values.Keys(), slices.Collect(maps.Keys(m.loading))) {
		if !which(key) {
			continue
		}
		if e, ok := m.values.Peek(key); ok && e.began.Before(since) {
			m.values.Remove(key)
		}
		if l := m.loading[key]; l != nil && l.began.Before(since) {
			m.disown(key, l)
		}
	}
}

// drop is Drop. m.mu is held.
func (m *Memo[K, V]) drop(key K) {
	m.values.Remove(key)
	m.dropped = m.now()
	if l := m.loading[key]; l != nil {
		m.disown(key, l)
	}
}

// disown has what a load gives be remembered no more. m.mu is held.
func (m *Memo[K, V]) disown(key K, l *memoLoad[V]) {
	l.dropped = true
	delete(m.loading, key)
}
