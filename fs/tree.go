package fs

import (
	"context"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve"
)

// tree is what all directories share.
type tree struct {
	r        *resolve.Resolver
	cache    *cache.Cache
	log      *slog.Logger
	siblings *siblingPrefetch
	laters   atomic.Uint64 // the last number of a table that is made later
}

// Options make a tree.
type Options struct {
	Resolver *resolve.Resolver
	Cache    *cache.Cache // what is read goes through it
	Log      *slog.Logger

	// FirstLater is what the numbers of tables that are made later begin behind: see
	// resolve.Options.FirstSerial.
	FirstLater uint64

	// URIs are object stores' buckets, or directories in them, that are shown below
	// uri/.
	URIs []string

	// About are the files of AboutDir, whose contents are made anew at each look-up.
	About map[string]func() []byte

	// Scope tells what this tree shows, and as whom, from what others do: see ScopeFile.
	Scope string
}

// New makes the tree that a Resolver knows of. An error says which of Options.URIs can't
// be shown.
func New(opt Options) (*Node, error) {
	t := &tree{r: opt.Resolver, cache: opt.Cache, log: opt.Log, siblings: newSiblingPrefetch()}
	t.laters.Store(opt.FirstLater)
	top := func(name string, d Dir) Entry { return Entry{name, &Node{Dir: d, TTL: forever}} }
	root := fixed{
		top("datasets", datasetsDir{t}),
		top("experiments", experimentsDir{t}),
		top("models", modelsDir{t}),
		top("prompts", promptsDir{t}),
		top("runs", runsDir{t}),
	}
	if len(opt.URIs) > 0 {
		d, err := t.uris(opt.URIs)
		if err != nil {
			return nil, err
		}
		root = append(root, top("uri", d))
	}
	about := &Node{Dir: besides{about(opt.About), ownDir, t.own(opt.Scope)}, TTL: forever}
	return &Node{TTL: forever, Dir: besides{root, AboutDir, about}}, nil
}

const forever = 365 * 24 * time.Hour

// leaveOut says in the log that a listing's entry can't be a file's name. It
// gives what a listing's entry function gives then.
func (t *tree) leaveOut(dir, name string) (Entry, bool) {
	t.log.Warn("an entry of a listing is left out: its name is malformed", "directory", dir, "name", shorten(name, ""))
	return Entry{}, false
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

// lazyDir is a directory that is made when somebody looks into it.
type lazyDir func(context.Context) (Dir, error)

var _ Dir = lazyDir(nil)

func (d lazyDir) Lookup(ctx context.Context, name string) (*Node, error) {
	in, err := d(ctx)
	if err != nil {
		return nil, err
	}
	return in.Lookup(ctx, name)
}

func (d lazyDir) List(ctx context.Context) (Listing, error) {
	in, err := d(ctx)
	if err != nil {
		return nil, err
	}
	return in.List(ctx)
}

func notExist(name string) error { return fmt.Errorf("%s: %w", name, iofs.ErrNotExist) }
