package fs

import (
	"context"
	"maps"
	"slices"
)

// AboutDir is the directory of a mount that tells of the mount itself. It stands
// in no listing: who walks a mount is after artifacts.
const AboutDir = ".mlflowfs"

// besides is a directory with one more name, which is not listed.
type besides struct {
	Dir
	name string
	node *Node
}

var (
	_ Dir     = besides{}
	_ Lasting = besides{}
)

func (d besides) Lasting() {}

func (d besides) Lookup(ctx context.Context, name string) (*Node, error) {
	if name == d.name {
		return d.node, nil
	}
	return d.Dir.Lookup(ctx, name)
}

// about is AboutDir. Its files' contents are made anew at each look-up.
type about map[string]func() []byte

var _ Dir = about(nil)

func (d about) Lookup(_ context.Context, name string) (*Node, error) {
	content, ok := d[name]
	if !ok {
		return nil, notExist(name)
	}
	return sized(string(content())), nil
}

func (d about) List(ctx context.Context) (Listing, error) {
	var out entries
	for _, name := range slices.Sorted(maps.Keys(d)) {
		n, err := d.Lookup(ctx, name)
		if err != nil {
			return nil, err
		}
		out = append(out, Entry{name, n})
	}
	return &out, nil
}
