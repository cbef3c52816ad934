package fs

import (
	"context"
	"errors"
	"io"
	iofs "io/fs"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// modelsDir is models/: registered models, their aliases, and logged models.
type modelsDir struct{ t *tree }

var (
	_ Dir     = modelsDir{}
	_ Lasting = modelsDir{}
)

func (d modelsDir) Lasting() {}

// Lookup takes a name as MLflow takes what follows models:/ — a logged
// model's id, a name and an alias split at the last @, a name.
func (d modelsDir) Lookup(ctx context.Context, file string) (*Node, error) {
	name := Unescape(file)
	if Escape(name) != file {
		return nil, notExist(file)
	}
	if meta.ValidLoggedModelID(name) {
		m, err := d.t.r.LoggedModel(ctx, name)
		if err == nil {
			return d.loggedModel(m), nil
		}
		if !errors.Is(err, iofs.ErrNotExist) {
			return nil, err
		}
	}
	return d.registered().lookup(ctx, name)
}

func (d modelsDir) registered() registered {
	return registered{
		t: d.t, at: "models", search: d.t.r.SearchRegisteredModels,
		inside: func(name string) Dir { return modelDir{d.t, name} },
	}
}

func (d modelsDir) loggedModel(m *meta.LoggedModel) *Node {
	id := m.ID
	dir := d.t.artifacts("models:/"+id, func(ctx context.Context) (resolve.Dir, error) { return d.t.r.LoggedModelDir(ctx, id) })
	return &Node{Dir: dir, Mtime: m.Created, TTL: d.t.r.TTL(m.Final())}
}

// List pages through the registered models, each with its aliases, and then
// through the logged models.
func (d modelsDir) List(context.Context) (Listing, error) {
	return &chain{d.registered().list(), &pages[meta.LoggedModel]{
		search: d.t.r.AllLoggedModels(),
		entry: func(m *meta.LoggedModel) (Entry, bool) {
			if !meta.ValidLoggedModelID(m.ID) {
				return d.t.leaveOut("models", m.ID)
			}
			return Entry{m.ID, d.loggedModel(m)}, true
		},
	}}, nil
}

// modelDir is models/<name>/: versions, latest, stages, and the model's card.
type modelDir struct {
	t    *tree
	name string
}

var _ Dir = modelDir{}

const latest = "latest"

// noStage is the stage of a version that nobody gave one. models:/<name>/None
// means it, so that it can be looked up; no listing shows it.
const noStage = "None"

func (d modelDir) Lookup(ctx context.Context, name string) (*Node, error) {
	if isVersion(name) {
		v, err := d.t.r.Version(ctx, d.name, name)
		if err != nil {
			return nil, err
		}
		return d.version(v), nil
	}
	m, err := d.t.r.RegisteredModel(ctx, d.name)
	if err != nil {
		return nil, err
	}
	if name == modelCard {
		return d.card(m)
	}
	stage := name
	if strings.EqualFold(name, latest) {
		stage = ""
	}
	if v, ok := resolve.Latest(m, stage); ok && isVersion(v.Version) {
		return d.link(v), nil
	}
	return nil, notExist(name)
}

// isVersion tells whether name is a version's number. 01 is none: one
// directory has one name.
func isVersion(name string) bool {
	return name != "" && name[0] != '0' && len(name) <= MaxName && strings.Trim(name, "0123456789") == ""
}

func (d modelDir) version(v *meta.Version) *Node {
	number := v.Version
	dir := d.t.artifacts("models:/"+d.name+"/"+number, func(ctx context.Context) (resolve.Dir, error) { return d.t.r.VersionDir(ctx, d.name, number) })
	return &Node{Dir: dir, Mtime: v.Created, TTL: d.t.r.TTL(v.Final())}
}

func (d modelDir) link(v meta.Version) *Node {
	return &Node{Link: v.Version, Moves: true, Mtime: v.Created, TTL: d.t.r.TTL(false)}
}

func (d modelDir) List(ctx context.Context) (Listing, error) {
	m, err := d.t.r.RegisteredModel(ctx, d.name)
	if err != nil {
		return nil, err
	}
	card, err := d.card(m)
	if err != nil {
		return nil, err
	}
	links := entries{{modelCard, card}}
	if v, ok := resolve.Latest(m, ""); ok && isVersion(v.Version) {
		links = append(links, Entry{latest, d.link(v)})
	}
	seen := map[string]bool{latest: true, modelCard: true}
	for _, l := range m.Latest {
		name := Escape(l.Stage)
		if l.Stage == "" || l.Stage == noStage || seen[strings.ToLower(name)] || len(name) > MaxName {
			continue
		}
		seen[strings.ToLower(name)] = true
		if v, ok := resolve.Latest(m, l.Stage); ok && isVersion(v.Version) {
			links = append(links, Entry{name, d.link(v)})
		}
	}
	return &chain{&links, d.t.versionNumbers("models/"+d.name, func(ctx context.Context, token string) (meta.Page[meta.Version], error) {
		return d.t.r.Registry().SearchVersions(ctx, d.name, token)
	}, d.version)}, nil
}

// chain is one listing after another.
type chain []Listing

var _ Listing = (*chain)(nil)

func (c *chain) Next(ctx context.Context) (Entry, error) {
	for len(*c) > 0 {
		e, err := (*c)[0].Next(ctx)
		if err != io.EOF {
			return e, err
		}
		*c = (*c)[1:]
	}
	return Entry{}, io.EOF
}
