package fs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve"
)

// tableNode is a node of a table, whose use ends here.
func tableNode(t *resolve.Table, mtime time.Time, ttl time.Duration) *Node {
	defer t.Close()
	size, known := t.Size()
	n := &Node{File: growingTable{madeTable{t}}, Size: size, Stamp: fmt.Sprint("table ", t.Serial()), Mtime: mtime, TTL: ttl}
	if known {
		n.File, n.Stamp = madeTable{t}, t.Sum()
	}
	return n
}

// madeTable is a table that was whole when it was looked up.
type madeTable struct{ t *resolve.Table }

var _ File = madeTable{}

func (f madeTable) Open(context.Context) (Handle, error) {
	if !f.t.Use() {
		return nil, ErrOutdated
	}
	return &openTable{Table: f.t}, nil
}

// growingTable is one that was not.
type growingTable struct{ madeTable }

var _ Growing = growingTable{}

func (f growingTable) Size() (int64, bool) { return f.t.Size() }

func (f growingTable) Grow(ctx context.Context, n int64) (int64, bool, error) {
	size, whole, err := f.t.Grow(ctx, n)
	if errors.Is(err, cache.ErrSpoolClosed) || f.t.Failed() { // closed by whoever had it open
		err = ErrOutdated
	}
	return size, whole, err
}

// openTable is a handle of either.
type openTable struct {
	*resolve.Table
	closed sync.Once
}

var (
	_ Handle = (*openTable)(nil)
	_ Proven = (*openTable)(nil)
)

func (h *openTable) Identity() string {
	if sum := h.Sum(); sum != "" {
		return sum
	}
	return fmt.Sprint("table ", h.Serial())
}

// Proof is a hash of the whole table; before it is whole none is known.
func (h *openTable) Proof() string { return h.Sum() }

func (h *openTable) Close() (err error) {
	h.closed.Do(func() { err = h.Table.Close() })
	return err
}

// laterTable is a table that is made when it is opened: to look at its name asks for
// nothing.
type laterTable struct {
	make func(context.Context) (*resolve.Table, error)

	mu sync.Mutex // guards t; nothing waits under it
	t  *resolve.Table
}

var _ Growing = (*laterTable)(nil)

// later is a node of such a table.
func (t *tree) later(make func(context.Context) (*resolve.Table, error)) *Node {
	stamp := fmt.Sprint("later table ", t.laters.Add(1)) // what it holds is not known: it is another each time
	return &Node{File: &laterTable{make: make}, Size: resolve.UnknownSize, Stamp: stamp, TTL: t.r.TTL(false)}
}

func (f *laterTable) Open(ctx context.Context) (Handle, error) {
	t, err := f.make(ctx)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.t != nil && f.t != t { // one name has one table
		t.Close()
		return nil, ErrOutdated
	}
	f.t = t
	return &openTable{Table: t}, nil
}

func (f *laterTable) table() *resolve.Table {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.t
}

func (f *laterTable) Size() (int64, bool) {
	if t := f.table(); t != nil {
		return t.Size()
	}
	return resolve.UnknownSize, false
}

func (f *laterTable) Grow(ctx context.Context, n int64) (int64, bool, error) {
	t := f.table()
	if t == nil {
		return 0, false, ErrOutdated
	}
	return growingTable{madeTable{t}}.Grow(ctx, n)
}
