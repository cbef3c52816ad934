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

// errOutdated says that a file is another one by now: its name is to be looked up
// anew.
var errOutdated = errors.New("it has been made anew since it was looked up")

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
		return nil, errOutdated
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
		err = errOutdated
	}
	return size, whole, err
}

// openTable is a handle of either.
type openTable struct {
	*resolve.Table
	closed sync.Once
}

var (
	_ Handle     = (*openTable)(nil)
	_ Identified = (*openTable)(nil)
)

func (h *openTable) Identity() string {
	if sum := h.Sum(); sum != "" {
		return sum
	}
	return fmt.Sprint("table ", h.Serial())
}

func (h *openTable) Close() (err error) {
	h.closed.Do(func() { err = h.Table.Close() })
	return err
}
