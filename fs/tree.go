package fs

import (
	"context"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve"
)

// tree is what all directories share.
type tree struct {
	r     *resolve.Resolver
	cache *cache.Cache
	log   *slog.Logger
}

// New makes the tree that r knows of. What is read goes through c.
func New(r *resolve.Resolver, c *cache.Cache, log *slog.Logger) *Node {
	t := &tree{r, c, log}
	forever := 365 * 24 * time.Hour
	top := func(name string, d Dir) Entry { return Entry{name, &Node{Dir: d, TTL: forever}} }
	return &Node{TTL: forever, Dir: fixed{
		top("experiments", experimentsDir{t}),
		top("models", modelsDir{t}),
		top("runs", runsDir{t}),
	}}
}

// fixed is a directory whose entries never change.
type fixed []Entry

var _ Dir = fixed(nil)

func (d fixed) Lookup(_ context.Context, name string) (*Node, error) {
	for _, e := range d {
		if e.Name == name {
			return e.Node, nil
		}
	}
	return nil, notExist(name)
}

func (d fixed) List(context.Context) (Listing, error) {
	e := entries(d)
	return &e, nil
}

func notExist(name string) error { return fmt.Errorf("%s: %w", name, iofs.ErrNotExist) }
