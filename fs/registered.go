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

// registered is what models/ and prompts/ have in common: a directory for each name of
// the registry, and a link for each of its aliases.
type registered struct {
	t      *tree
	at     string // models or prompts
	prompt bool   // which of the two
	search func(ctx context.Context, token string) (meta.Page[meta.RegisteredModel], error)
	inside func(name string) Dir
}

// lookup finds a name, or a name and an alias split at the last @.
func (r registered) lookup(ctx context.Context, name string) (*Node, error) {
	if at := strings.LastIndexByte(name, '@'); at > 0 && at < len(name)-1 {
		m, err := r.named(ctx, name[:at])
		if err != nil && !errors.Is(err, iofs.ErrNotExist) {
			return nil, err
		}
		if err == nil {
			if v, ok := m.Aliases[name[at+1:]]; ok && isVersion(v) {
				return r.alias(m, v), nil
			}
			if v, ok := resolve.Latest(m, ""); ok && isVersion(v.Version) && strings.EqualFold(name[at+1:], latest) {
				return r.alias(m, v.Version), nil
			}
		}
	}
	m, err := r.named(ctx, name)
	if err != nil {
		return nil, err
	}
	return r.node(m), nil
}

// named is the model, or the prompt, of a name.
func (r registered) named(ctx context.Context, name string) (*meta.RegisteredModel, error) {
	m, err := r.t.r.RegisteredModel(ctx, name)
	if err == nil && m.Prompt != r.prompt {
		return nil, notExist(name)
	}
	return m, err
}

func (r registered) node(m *meta.RegisteredModel) *Node {
	return &Node{Dir: r.inside(m.Name), Mtime: m.Created, TTL: r.t.r.TTL(false)}
}

func (r registered) alias(m *meta.RegisteredModel, version string) *Node {
	return &Node{Link: Escape(m.Name) + "/" + version, Moves: true, Mtime: m.Created, TTL: r.t.r.TTL(false)}
}

// list pages through the names, each with its aliases.
func (r registered) list() Listing {
	l := &registeredListing{r: r}
	l.names = pages[meta.RegisteredModel]{search: r.search, entry: l.expand}
	return l
}

// registeredListing gives for each name several entries, which wait in ready.
type registeredListing struct {
	r     registered
	names pages[meta.RegisteredModel]
	ready entries
}

var _ Listing = (*registeredListing)(nil)

func (l *registeredListing) Next(ctx context.Context) (Entry, error) {
	if e, err := l.ready.Next(ctx); err == nil {
		return e, nil
	}
	e, err := l.names.Next(ctx)
	if err == io.EOF { // a name that is left out may have left aliases
		return l.ready.Next(ctx)
	}
	return e, err
}

// expand gives the name's directory and leaves its aliases in ready.
func (l *registeredListing) expand(m *meta.RegisteredModel) (Entry, bool) {
	name := Escape(m.Name)
	for _, a := range slices.Sorted(maps.Keys(m.Aliases)) {
		if n := Escape(m.Name + "@" + a); len(n) > MaxName || !isVersion(m.Aliases[a]) || a == "" || strings.Contains(a, "@") {
			l.r.t.leaveOut(l.r.at, n)
		} else {
			l.ready = append(l.ready, Entry{n, l.r.alias(m, m.Aliases[a])})
		}
	}
	if len(name) > MaxName {
		l.r.t.leaveOut(l.r.at, name) // a look-up finds it all the same
		e, err := l.ready.Next(context.Background())
		return e, err == nil
	}
	return Entry{name, l.r.node(m)}, true
}

// versionNumbers lists versions of a name, each by its number.
func (t *tree) versionNumbers(at string, search func(context.Context, string) (meta.Page[meta.Version], error), node func(*meta.Version) *Node) Listing {
	return &pages[meta.Version]{search: search, entry: func(v *meta.Version) (Entry, bool) {
		if !isVersion(v.Version) {
			return t.leaveOut(at, v.Version)
		}
		return Entry{v.Version, node(v)}, true
	}}
}
