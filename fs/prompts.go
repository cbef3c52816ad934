package fs

import (
	"context"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// promptsDir is prompts/: prompts, and links for their aliases, as models/ has them.
type promptsDir struct{ t *tree }

var (
	_ Dir     = promptsDir{}
	_ Lasting = promptsDir{}
)

func (d promptsDir) Lasting() {}

func (d promptsDir) registered() registered {
	return registered{
		t: d.t, at: "prompts", prompt: true, search: d.t.r.SearchPrompts,
		inside: func(name string) Dir { return promptDir{d.t, name} },
	}
}

func (d promptsDir) Lookup(ctx context.Context, file string) (*Node, error) {
	name := Unescape(file)
	if Escape(name) != file {
		return nil, notExist(file)
	}
	return d.registered().lookup(ctx, name)
}

func (d promptsDir) List(context.Context) (Listing, error) { return d.registered().list(), nil }

// promptDir is prompts/<name>/: its versions, and latest.
type promptDir struct {
	t    *tree
	name string
}

var _ Dir = promptDir{}

func (d promptDir) Lookup(ctx context.Context, name string) (*Node, error) {
	if isVersion(name) {
		p, err := d.t.r.Prompt(ctx, d.name, name)
		if err != nil {
			return nil, err
		}
		return d.version(&meta.Version{Version: p.Version, Created: p.Created}), nil
	}
	if !strings.EqualFold(name, latest) {
		return nil, notExist(name)
	}
	m, err := d.t.r.RegisteredModel(ctx, d.name)
	if err != nil {
		return nil, err
	}
	if v, ok := resolve.Latest(m, ""); ok && isVersion(v.Version) {
		return d.link(v), nil
	}
	return nil, notExist(name)
}

// version is a directory that is made anew while it is looked at: of a version its text
// alone stays what it is.
func (d promptDir) version(v *meta.Version) *Node {
	number := v.Version
	dir := d.t.artifacts(resolve.URI{Name: d.name, Prompt: true, Version: number}.String(), func(ctx context.Context) (resolve.Dir, error) { return d.t.r.PromptDir(ctx, d.name, number) })
	return &Node{Dir: dir, Mtime: v.Created, TTL: d.t.r.TTL(false)}
}

func (d promptDir) link(v meta.Version) *Node {
	return &Node{Link: v.Version, Moves: true, Mtime: v.Created, TTL: d.t.r.TTL(false)}
}

func (d promptDir) List(ctx context.Context) (Listing, error) {
	m, err := d.t.r.RegisteredModel(ctx, d.name)
	if err != nil {
		return nil, err
	}
	var links entries
	if v, ok := resolve.Latest(m, ""); ok && isVersion(v.Version) {
		links = append(links, Entry{latest, d.link(v)})
	}
	return &chain{&links, d.t.versionNumbers("prompts/"+d.name, func(ctx context.Context, token string) (meta.Page[meta.Version], error) {
		return d.t.r.Registry().SearchPromptVersions(ctx, d.name, token)
	}, d.version)}, nil
}
