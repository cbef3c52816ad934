package resolve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/answers"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Origin is a directory of artifacts: the union of its layers and mounts. Of
// two files, or a file and a directory, of one name the later wins; two
// directories of one name are merged.
type Origin struct {
	Layers []Layer
	Mounts []Mount

	// Meta is the content of registered_model_meta, which is shown where the
	// directory holds an MLmodel; empty in a directory that gets none.
	Meta string

	// Mtime is what everything in it shows as its modification time: the
	// end of the run, the creation of the model or version.
	Mtime time.Time

	// Final says that its content changes no more: the run has ended, the
	// model is ready.
	Final bool
}

// Layer is a directory in a store.
type Layer struct {
	Store *artifact.Router
	Dir   string // slashes; empty for the store's root
}

// Mount is a directory that stands in another under a name of its own.
type Mount struct {
	Name   string
	Origin Origin
}

// Item is one name in an Origin: a directory, or a file in a store, or a file
// whose content is known.
type Item struct {
	Name string
	Dir  *Origin

	// Of a file:
	Store   *artifact.Router // nil: Content is all of it
	Path    string
	Content string
	Size    int64           // bytes
	Version string          // the content's validator, where a listing gives one
	Via     artifact.Access // the route by which it was listed; empty where there is no choice
	Mtime   time.Time
	Final   bool
}

// Key identifies the content of a file in a store. The route to it is part of
// that: each has validators of its own.
func (it Item) Key() cache.Key {
	return cache.Key{Location: it.Store.ID() + "\x00" + string(it.Store.RouteOf(it.Via)) + "\x00" + it.Path, Size: it.Size, Version: it.Version}
}

// Known tells whether the key of a file in a store means one content for ever,
// so that what was read of it can be kept.
func (it Item) Known() bool { return it.Final || it.Version != "" }

// ReadRange makes a file in a store a cache.Source.
func (it Item) ReadRange(ctx context.Context, off, n int64, validator string) (*cache.Body, error) {
	return it.Store.ReadVia(ctx, it.Via, it.Path, off, n, validator)
}

// Pinned is it with the route that its Key names now, so that a reader stays with
// one content when the directory goes back to an earlier route.
func (it Item) Pinned() Item {
	it.Via = it.Store.RouteOf(it.Via)
	return it
}

var _ cache.Source = Item{}

// Origin names the host, or the bucket, that the requests for a file in a store go
// to.
func (it Item) Origin() string {
	if s := it.Store.Route().Store; s != nil {
		return server(s)
	}
	return server(it.Store)
}

// listing is what a store says of a directory, sorted by name.
type listing struct {
	entries []artifact.Entry
	left    []artifact.LeftOut
	via     artifact.Access // the route by which it came
	final   bool
}

func (l listing) find(name string) (artifact.Entry, bool) {
	i, ok := slices.BinarySearchFunc(l.entries, name, func(e artifact.Entry, n string) int { return strings.Compare(e.Name, n) })
	if !ok {
		return artifact.Entry{}, false
	}
	return l.entries[i], true
}

// list asks for a layer's directory, or remembers it. What a store tells of
// the directories below it in the same answer is remembered with it.
func (r *Resolver) list(ctx context.Context, l Layer, final bool) (listing, error) {
	out, err := r.listings.Get(ctx, dirKey(l.Store, l.Dir), func(ctx context.Context) (listing, error) {
		said, err := r.tree(ctx, l)
		for dir, entries := range said.Tree {
			if dir != l.Dir {
				shown, left := artifact.Clean(r.log, dir, entries)
				r.listings.PutAs(ctx, dirKey(l.Store, dir), listing{shown, left, said.Via, final})
			}
		}
		shown, left := artifact.Clean(r.log, l.Dir, said.Tree[l.Dir])
		return listing{shown, left, said.Via, final}, err
	})
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, artifact.ErrNoBucket) {
		return listing{}, nil // a place that nothing was written to
	}
	return out, err
}

// listed is a store's answer as the shelf keeps it, with the route by which it
// came, which is a part of its files' keys.
type listed struct {
	Tree artifact.Tree
	Via  artifact.Access
}

// tree asks a store for a directory, or gives what it said last.
func (r *Resolver) tree(ctx context.Context, l Layer) (listed, error) {
	ask := func(ctx context.Context) (listed, error) {
		tree, err := l.Store.List(ctx, l.Dir)
		return listed{tree, l.Store.Route().Access}, err
	}
	if l.Store.Local() || r.opt.Answers == nil {
		return ask(ctx)
	}
	said, err := answers.StaleIfError(ctx, r.opt.Answers, server(l.Store), dirKey(l.Store, l.Dir), ask, rest.IsAnswer)
	if err != nil && !rest.IsAnswer(err) {
		// It may have come with the answer for a directory above.
		for dir := l.Dir; dir != "" && err != nil; {
			if dir = path.Dir(dir); dir == "." {
				dir = ""
			}
			above, ok := answers.Last[listed](r.opt.Answers, server(l.Store), dirKey(l.Store, dir))
			if entries, has := above.Tree[l.Dir]; ok && has {
				cache.MarkStale(ctx)
				said, err = listed{artifact.Tree{l.Dir: entries}, above.Via}, nil
			}
		}
	}
	if err == nil {
		l.Store.Presume(said.Via)
	}
	return said, err
}

// server is what leads to a store's server.
func server(s artifact.Store) string {
	id := strings.TrimPrefix(strings.TrimPrefix(s.ID(), "served:"), "web:")
	id, _, _ = strings.Cut(id, "\x00")
	return rest.ServerOf(id)
}

func dirKey(s artifact.Store, dir string) string { return s.ID() + "\x00" + dir }

// Forget drops what is remembered of the directory that a file lies in: the
// file was found to differ from its listing.
func (r *Resolver) Forget(s artifact.Store, file string) {
	dir := path.Dir(file)
	if dir == "." {
		dir = ""
	}
	r.listings.Drop(dirKey(s, dir))
}

// Lookup gives one name in o; fs.ErrNotExist where there is none. It asks for
// no more than List does.
func (r *Resolver) Lookup(ctx context.Context, o *Origin, name string) (Item, error) {
	it, err := r.find(ctx, o, name)
	if err != nil {
		return Item{}, err
	}
	if o.Meta != "" && name == MetaName {
		if m, err := r.find(ctx, o, ModelFile); err != nil {
			return Item{}, err
		} else if m != nil && m.Dir == nil {
			it = o.metaItem()
		}
	}
	if it == nil {
		return Item{}, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return *it, nil
}

// find looks for name in the layers and mounts; nil where there is none.
func (r *Resolver) find(ctx context.Context, o *Origin, name string) (it *Item, err error) {
	for _, l := range o.Layers {
		ls, err := r.list(ctx, l, o.Final)
		if err != nil {
			return nil, err
		}
		if e, ok := ls.find(name); ok {
			it = o.overlay(it, l, e, ls.via)
		}
	}
	for i := range o.Mounts {
		if m := &o.Mounts[i]; m.Name == name {
			it = o.mount(it, m)
		}
	}
	return it, nil
}

// overlay puts entry e of layer l, listed by the route via, over what is there by
// its name.
func (o *Origin) overlay(below *Item, l Layer, e artifact.Entry, via artifact.Access) *Item {
	p := path.Join(l.Dir, e.Name)
	if !e.IsDir {
		return &Item{Name: e.Name, Store: l.Store, Path: p, Size: e.Size, Version: e.Version, Via: via, Mtime: e.Mtime, Final: o.Final}
	}
	d := Origin{Mtime: o.Mtime, Final: o.Final}
	if below != nil && below.Dir != nil {
		d = *below.Dir
	}
	d.Layers = append(slices.Clip(d.Layers), Layer{l.Store, p})
	return &Item{Name: e.Name, Dir: &d}
}

// mount puts a mount over what is there by its name.
func (o *Origin) mount(below *Item, m *Mount) *Item {
	d := m.Origin
	if below != nil && below.Dir != nil {
		d.Layers = slices.Concat(below.Dir.Layers, d.Layers)
		d.Final = d.Final && below.Dir.Final
	}
	d.Mtime = o.Mtime
	return &Item{Name: m.Name, Dir: &d}
}

func (o *Origin) metaItem() *Item {
	return &Item{Name: MetaName, Content: o.Meta, Size: int64(len(o.Meta)), Final: true}
}

// descend walks from o down a path of directories.
func (r *Resolver) descend(ctx context.Context, o Origin, p string) (Origin, error) {
	it, err := r.walk(ctx, o, p)
	if err != nil {
		return Origin{}, err
	}
	if it.Dir == nil {
		return Origin{}, fmt.Errorf("%s is a file: %w", p, fs.ErrNotExist)
	}
	return *it.Dir, nil
}
