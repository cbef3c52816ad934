package fs

import (
	"context"
	"errors"
	"io"
	iofs "io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// modelsDir is models/: registered models, their aliases, and logged models.
type modelsDir struct{ t *tree }

var _ Dir = modelsDir{}

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
	if at := strings.LastIndexByte(name, '@'); at > 0 && at < len(name)-1 {
		m, err := d.t.r.RegisteredModel(ctx, name[:at])
		if err != nil && !errors.Is(err, iofs.ErrNotExist) {
			return nil, err
		}
		if err == nil {
			if v, ok := m.Aliases[name[at+1:]]; ok && isVersion(v) {
				return d.alias(m, v), nil
			}
			if v, ok := resolve.Latest(m, ""); ok && isVersion(v.Version) && strings.EqualFold(name[at+1:], latest) {
				return d.alias(m, v.Version), nil
			}
		}
	}
	m, err := d.t.r.RegisteredModel(ctx, name)
	if err != nil {
		return nil, err
	}
	return d.registered(m), nil
}

func (d modelsDir) loggedModel(m *meta.LoggedModel) *Node {
	id := m.ID
	dir := d.t.artifacts("models:/"+id, func(ctx context.Context) (resolve.Dir, error) { return d.t.r.LoggedModelDir(ctx, id) })
	return &Node{Dir: dir, Mtime: m.Created, TTL: d.t.r.TTL(m.Final())}
}

func (d modelsDir) registered(m *meta.RegisteredModel) *Node {
	return &Node{Dir: modelDir{d.t, m.Name}, Mtime: m.Created, TTL: d.t.r.TTL(false)}
}

func (d modelsDir) alias(m *meta.RegisteredModel, version string) *Node {
	return &Node{Link: Escape(m.Name) + "/" + version, Moves: true, Mtime: m.Created, TTL: d.t.r.TTL(false)}
}

// List pages through the registered models, each with its aliases, and then
// through the logged models.
func (d modelsDir) List(ctx context.Context) (Listing, error) {
	return &modelsListing{d: d, registered: pages[meta.RegisteredModel]{
		search: d.t.r.SearchRegisteredModels,
	}}, nil
}

// modelsListing gives for each registered model several entries, which wait
// in ready.
type modelsListing struct {
	d          modelsDir
	registered pages[meta.RegisteredModel]
	ready      entries
	logged     *pages[meta.LoggedModel] // once the registered ones are through
}

var _ Listing = (*modelsListing)(nil)

func (l *modelsListing) Next(ctx context.Context) (Entry, error) {
	if e, err := l.ready.Next(ctx); err == nil {
		return e, nil
	}
	if l.logged == nil {
		l.registered.entry = l.expand
		e, err := l.registered.Next(ctx)
		if err != io.EOF {
			return e, err
		}
		l.logged = &pages[meta.LoggedModel]{
			search: l.d.t.r.AllLoggedModels(),
			entry: func(m *meta.LoggedModel) (Entry, bool) {
				if !meta.ValidLoggedModelID(m.ID) {
					return l.d.t.leaveOut("models", m.ID)
				}
				return Entry{m.ID, l.d.loggedModel(m)}, true
			},
		}
	}
	return l.logged.Next(ctx)
}

// expand gives the model's directory and leaves its aliases in ready.
func (l *modelsListing) expand(m *meta.RegisteredModel) (Entry, bool) {
	name := Escape(m.Name)
	for _, a := range slices.Sorted(maps.Keys(m.Aliases)) {
		if n := name + "@" + Escape(a); len(n) > maxName || !isVersion(m.Aliases[a]) {
			l.d.t.leaveOut("models", n)
		} else {
			l.ready = append(l.ready, Entry{n, l.d.alias(m, m.Aliases[a])})
		}
	}
	if len(name) > maxName {
		l.d.t.leaveOut("models", name) // a look-up finds it all the same
		e, err := l.ready.Next(context.Background())
		return e, err == nil
	}
	return Entry{name, l.d.registered(m)}, true
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
	return name != "" && name[0] != '0' && len(name) <= maxName && strings.Trim(name, "0123456789") == ""
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
		if l.Stage == "" || l.Stage == noStage || seen[strings.ToLower(name)] || len(name) > maxName {
			continue
		}
		seen[strings.ToLower(name)] = true
		if v, ok := resolve.Latest(m, l.Stage); ok && isVersion(v.Version) {
			links = append(links, Entry{name, d.link(v)})
		}
	}
	return &chain{&links, &pages[meta.Version]{
		search: func(ctx context.Context, token string) (meta.Page[meta.Version], error) {
			return d.t.r.Registry().SearchVersions(ctx, d.name, token)
		},
		entry: func(v *meta.Version) (Entry, bool) {
			if !isVersion(v.Version) {
				return d.t.leaveOut("models/"+d.name, v.Version)
			}
			return Entry{v.Version, d.version(v)}, true
		},
	}}, nil
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
