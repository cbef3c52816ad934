package resolve

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
)

// Dir is a directory of artifacts: the union of its parts and mounts. Of
// two files, or a file and a directory, of one name the later wins; two
// directories of one name are merged.
type Dir struct {
	Parts  []Part
	Mounts []Mount

	// Texts are files whose content is known, by name. They lie over those of a Part.
	Texts []Item

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

// Part is a directory in a store.
type Part struct {
	Store *artifact.Router
	Path  string // slashes; empty for the store's root
}

// Mount is a directory that stands in another under a name of its own.
type Mount struct {
	Name string
	Dir  Dir
}

// Item is one name in a Dir: a directory, or a file in a store, or a file
// whose content is known.
type Item struct {
	Name string
	Dir  *Dir

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

// Lookup gives one name in o; fs.ErrNotExist where there is none. It asks for
// no more than List does.
func (r *Resolver) Lookup(ctx context.Context, o *Dir, name string) (Item, error) {
	it, err := r.lookup(ctx, o, name)
	if err != nil {
		return Item{}, err
	}
	if o.Meta != "" && name == MetaName {
		if m, err := r.lookup(ctx, o, ModelFile); err != nil {
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

// lookup looks for name in the parts and mounts; nil where there is none.
func (r *Resolver) lookup(ctx context.Context, o *Dir, name string) (it *Item, err error) {
	for _, l := range o.Parts {
		ls, err := r.listings.list(ctx, l, o.Final)
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
	for i := range o.Texts {
		if o.Texts[i].Name == name {
			it = &o.Texts[i]
		}
	}
	return it, nil
}

// overlay puts entry e of part p, listed by the route via, over what is there by
// its name.
func (o *Dir) overlay(below *Item, p Part, e artifact.Entry, via artifact.Access) *Item {
	at := path.Join(p.Path, e.Name)
	if !e.IsDir {
		return &Item{Name: e.Name, Store: p.Store, Path: at, Size: e.Size, Version: e.Version, Via: via, Mtime: e.Mtime, Final: o.Final}
	}
	d := Dir{Mtime: o.Mtime, Final: o.Final}
	if below != nil && below.Dir != nil {
		d = *below.Dir
	}
	d.Parts = append(slices.Clip(d.Parts), Part{p.Store, at})
	return &Item{Name: e.Name, Dir: &d}
}

// mount puts a mount over what is there by its name.
func (o *Dir) mount(below *Item, m *Mount) *Item {
	d := m.Dir
	if below != nil && below.Dir != nil {
		d.Parts = slices.Concat(below.Dir.Parts, d.Parts)
		d.Final = d.Final && below.Dir.Final
	}
	d.Mtime = o.Mtime
	return &Item{Name: m.Name, Dir: &d}
}

func (o *Dir) metaItem() *Item {
	return &Item{Name: MetaName, Content: o.Meta, Size: int64(len(o.Meta)), Final: true}
}

// descend walks from o down a path of directories.
func (r *Resolver) descend(ctx context.Context, o Dir, p string) (Dir, error) {
	it, err := r.walk(ctx, o, p)
	if err != nil {
		return Dir{}, err
	}
	if it.Dir == nil {
		return Dir{}, fmt.Errorf("%s is a file: %w", p, fs.ErrNotExist)
	}
	return *it.Dir, nil
}
