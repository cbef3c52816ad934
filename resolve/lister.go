package resolve

import (
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
)

// Lister is what is in a Dir, sorted by name, on its way to one reader. It is
// merged from its sorted listings as it is read, and holds no copy of them.
type Lister struct {
	o      *Dir
	parts  []listing // what is left of each
	mounts []Mount   // left, sorted by name; the later of two of one name wins
	texts  []Item    // left
	left   []artifact.LeftOut
	model  bool
	meta   bool // MetaName is wanted, and was not given yet
}

// List gives what is in o.
func (r *Resolver) List(ctx context.Context, o *Dir) (*Lister, error) {
	it := &Lister{o: o, parts: make([]listing, len(o.Parts)), mounts: slices.Clone(o.Mounts), texts: o.Texts}
	for k, l := range o.Parts {
		ls, err := r.listings.list(ctx, l, o.Final)
		if err != nil {
			return nil, err
		}
		it.parts[k] = ls
		it.left = append(it.left, ls.left...)
	}
	slices.SortStableFunc(it.mounts, func(a, b Mount) int { return strings.Compare(a.Name, b.Name) })
	m, err := r.lookup(ctx, o, ModelFile)
	it.model = m != nil && m.Dir == nil
	it.meta = it.model && o.Meta != ""
	return it, err
}

// Model tells whether the directory is a model's: it holds an MLmodel.
func (l *Lister) Model() bool { return l.model }

// LeftOut is what the stores hold and a directory can't show.
func (l *Lister) LeftOut() []artifact.LeftOut { return l.left }

// All gives the items that Next has not given.
func (l *Lister) All() iter.Seq[Item] {
	return func(yield func(Item) bool) {
		for it, ok := l.Next(); ok && yield(it); it, ok = l.Next() {
		}
	}
}

// Next gives the next item; false behind the last.
func (l *Lister) Next() (Item, bool) {
	name, ok := l.least()
	if !ok {
		return Item{}, false
	}
	var out *Item
	for k := range l.parts {
		if ls := &l.parts[k]; len(ls.entries) > 0 && ls.entries[0].Name == name {
			out = l.o.overlay(out, l.o.Parts[k], ls.entries[0], ls.via)
			ls.entries = ls.entries[1:]
		}
	}
	for len(l.mounts) > 0 && l.mounts[0].Name == name {
		out = l.o.mount(out, &l.mounts[0])
		l.mounts = l.mounts[1:]
	}
	if len(l.texts) > 0 && l.texts[0].Name == name {
		out, l.texts = &l.texts[0], l.texts[1:]
	}
	if l.meta && name == MetaName {
		out, l.meta = l.o.metaItem(), false
	}
	return *out, true
}

// least is the name that comes next.
func (l *Lister) least() (name string, ok bool) {
	see := func(n string) {
		if !ok || n < name {
			name, ok = n, true
		}
	}
	for _, ls := range l.parts {
		if len(ls.entries) > 0 {
			see(ls.entries[0].Name)
		}
	}
	if len(l.mounts) > 0 {
		see(l.mounts[0].Name)
	}
	if len(l.texts) > 0 {
		see(l.texts[0].Name)
	}
	if l.meta {
		see(MetaName)
	}
	return name, ok
}
