package resolve

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/answers"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

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

// listings asks stores for directories, and remembers what they said: for a while, and
// for the time in which their servers can't be asked.
type listings struct {
	recent  *cache.Memo[string, listing]
	answers *answers.Answers // nil: nothing is kept for an outage
	log     *slog.Logger
}

func newListings(opt Options, life meta.Lifetime) *listings {
	return &listings{
		recent: cache.NewMemo[string](500_000,
			func(l listing) int64 { return int64(len(l.entries)) + 8 },
			func(l listing) time.Duration { return life(l.final) }),
		answers: opt.Answers, log: opt.Log,
	}
}

// list gives a part's directory. What a store tells of the directories below it in
// the same answer is remembered with it.
func (l *listings) list(ctx context.Context, p Part, final bool) (listing, error) {
	out, err := l.recent.Get(ctx, dirKey(p.Store, p.Path), func(ctx context.Context) (listing, error) {
		answer, err := l.tree(ctx, p)
		for dir, entries := range answer.Tree {
			if dir != p.Path {
				shown, left := artifact.Clean(l.log, dir, entries)
				l.recent.PutAs(ctx, dirKey(p.Store, dir), listing{shown, left, answer.Via, final})
			}
		}
		shown, left := artifact.Clean(l.log, p.Path, answer.Tree[p.Path])
		return listing{shown, left, answer.Via, final}, err
	})
	var refusal *rest.Error
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, artifact.ErrNoBucket) && !(errors.As(err, &refusal) && refusal.Code != "") {
		return listing{}, nil // a place that nothing was written to; MLflow says so with an empty list
	}
	return out, err
}

// listed is a store's answer as it is kept for an outage, with the route by which it
// came, which is a part of its files' keys.
type listed struct {
	Tree artifact.Tree
	Via  artifact.Access
}

// tree asks a store for a directory, or gives what it said last.
func (l *listings) tree(ctx context.Context, p Part) (listed, error) {
	ask := func(ctx context.Context) (listed, error) {
		tree, err := p.Store.List(ctx, p.Path)
		return listed{tree, p.Store.Route().Access}, err
	}
	if p.Store.Local() || l.answers == nil {
		return ask(ctx)
	}
	answer, err := answers.StaleIfError(ctx, l.answers, server(p.Store), dirKey(p.Store, p.Path), ask, rest.IsAnswer)
	if err != nil && !rest.IsAnswer(err) {
		// It may have come with the answer for a directory above.
		for dir := p.Path; dir != "" && err != nil; {
			if dir = path.Dir(dir); dir == "." {
				dir = ""
			}
			above, ok := answers.Last[listed](l.answers, server(p.Store), dirKey(p.Store, dir))
			if entries, has := above.Tree[p.Path]; ok && has {
				cache.MarkStale(ctx)
				answer, err = listed{artifact.Tree{p.Path: entries}, above.Via}, nil
			}
		}
	}
	if err == nil {
		p.Store.Presume(answer.Via)
	}
	return answer, err
}

// Forget drops what is remembered of the directory that a file lies in: the
// file was found to differ from its listing.
func (r *Resolver) Forget(s artifact.Store, file string) {
	dir := path.Dir(file)
	if dir == "." {
		dir = ""
	}
	r.listings.recent.Drop(dirKey(s, dir))
}

// server is what leads to a store's server.
func server(s artifact.Store) string {
	id := strings.TrimPrefix(strings.TrimPrefix(s.ID(), "served:"), "web:")
	id, _, _ = strings.Cut(id, "\x00")
	return rest.ServerOf(id)
}

func dirKey(s artifact.Store, dir string) string { return s.ID() + "\x00" + dir }
