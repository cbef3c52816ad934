package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Found is what a URI leads to: a directory of artifacts (Dir) or a file.
type Found struct {
	Item

	// Path is where mlflow.artifacts.download_artifacts puts it below its
	// destination; empty for a root. Prefix is what list_artifacts puts before
	// each name, which is the same but for a run_id with a path. Returned is the
	// path below the destination that download_artifacts gives to its caller, which
	// is Path but for a logged model's directory whose URI ends in a slash.
	Path, Prefix, Returned string

	// Trail is how it was found, from the URI's name to the last one.
	Trail []Step

	// Of a run's path of which a logged model has a part, too: what the run itself has
	// of it, and where download_artifacts puts the model's. nil: one has all of it.
	own         *Item
	modelPrefix string
}

// Parted is what download_artifacts brings one after the other: of what a run and its
// logged model both have, first the run's, which it gives to its caller, and then the
// model's, which it puts elsewhere but where the path is the model's name.
func (f Found) Parted() []Found {
	if f.own == nil || f.Path == f.modelPrefix {
		return []Found{f}
	}
	own, model := f, f
	own.Item, own.own = *f.own, nil
	model.Path, model.Prefix, model.own = f.modelPrefix, f.modelPrefix, nil
	if f.Dir != nil && own.Dir != nil {
		d := *f.Dir
		d.Parts = d.Parts[len(own.Dir.Parts):]
		model.Dir = &d
	}
	return []Found{own, model}
}

// ByPath tells whether a part of it lies where a path of a machine names it.
func (f Found) ByPath() bool {
	if f.Dir == nil {
		return f.Store != nil && f.Store.ByPath()
	}
	return slices.ContainsFunc(f.Dir.Parts, func(p Part) bool { return p.Store.ByPath() })
}

// Step is one name on the way from a URI to a place.
type Step struct {
	Kind  string // run, model, version
	Name  string
	Leads string // to what, in words or as a URI
}

// Resolve goes to where an artifact URI leads: runs:/…, models:/…, or a storage
// URI, in all the forms that mlflow.artifacts takes, and runs:/<run_id> with
// nothing behind it for all of a run. What is not there is fs.ErrNotExist.
func (r *Resolver) Resolve(ctx context.Context, uri string) (Found, error) {
	u, found, err := ParseURI(uri)
	if err != nil {
		return Found{}, err
	}
	if !found {
		r.name(uri)
		return r.findPlace(ctx, uri)
	}
	var f Found
	o, _, p, err := r.root(ctx, u, 0, &f.Trail)
	if err != nil {
		return Found{}, err
	}
	f.Item, err = r.walk(ctx, o, p)
	if err == nil && u.Inside && f.Dir == nil {
		err = fmt.Errorf("%s is a file: %w", p, fs.ErrNotExist)
	}
	f.Path, f.Returned = p, p
	if u.RunID != "" && p != "" {
		f.modelPrefix = p
		f.Path, f.Returned, f.own = r.placeInRun(ctx, o, u)
	}
	f.Prefix = f.Path
	return f, err
}

// name lets the host of a web address be reached that a user gave.
func (r *Resolver) name(uri string) {
	s, behind, _ := strings.Cut(uri, ":")
	switch strings.ToLower(s) {
	case "mlflow-artifacts":
		if r.opt.Client == nil || !strings.HasPrefix(behind, "//") {
			return
		}
		uri = r.opt.Client.Base().Scheme + ":" + behind
	case "http", "https":
	default:
		return
	}
	for _, c := range []*rest.Client{r.opt.Client, r.opt.Web} {
		if c != nil {
			c.Reach().Name(uri)
		}
	}
}

// placeInRun is where download_artifacts puts u, which has a path, of the run's
// directory o, and what it gives to its caller; and what the run itself has of a path that
// a logged model may have, too. That is rooted at u's directory, what a logged model has
// at the run (mlflow.store.artifact.runs_artifact_repo).
func (r *Resolver) placeInRun(ctx context.Context, o Dir, u URI) (at, returned string, own *Item) {
	at = path.Base(u.Path)
	if u.Inside {
		at = ""
	}
	name, below, _ := strings.Cut(u.Path, "/")
	model := slices.IndexFunc(o.Mounts, func(m Mount) bool { return m.Name == name })
	if model < 0 {
		return at, at, nil
	}
	of := o.Mounts[model].Dir
	o.Mounts = nil
	it, err := r.walk(ctx, o, u.Path)
	switch {
	case err == nil:
		if _, err := r.walk(ctx, of, below); err == nil {
			own = &it
		}
		return at, at, own
	case u.Inside:
		return u.Path, "", nil
	}
	return u.Path, u.Path, nil
}

// ResolveRun is Resolve for run_id and path as mlflow.artifacts takes them: with no
// path, the run's own artifacts without its logged models.
func (r *Resolver) ResolveRun(ctx context.Context, runID, p string) (Found, error) {
	inside := strings.HasSuffix(p, "/")
	if p = strings.Trim(p, "/"); p != "" && meta.ValidRunID(runID) {
		u := URI{RunID: runID, Path: parts(p), Inside: inside}
		f, err := r.Resolve(ctx, u.String())
		f.Prefix, f.modelPrefix = u.Path, u.Path
		return f, err
	}
	run, err := r.Run(ctx, runID)
	if err != nil {
		return Found{}, err
	}
	o, err := r.at(ctx, rootOf(run.ArtifactURI, artifact.Door{RunID: run.ID}))
	o.Mtime, o.Final = run.Mtime(), run.Final()
	return Found{Item: Item{Dir: &o}, Trail: []Step{{"run", run.ID, Shown(run.ArtifactURI)}}}, err
}

// walk looks a path up, from o on; an empty one is o.
func (r *Resolver) walk(ctx context.Context, o Dir, p string) (Item, error) {
	it := Item{Dir: &o}
	if p == "" {
		return it, nil
	}
	for _, name := range strings.Split(p, "/") {
		if it.Dir == nil {
			return Item{}, fmt.Errorf("%s: %s is a file: %w", p, it.Name, fs.ErrNotExist)
		}
		next, err := r.Lookup(ctx, it.Dir, name)
		if err != nil {
			return Item{}, err
		}
		it = next
	}
	return it, nil
}

// At is the directory at a storage URI that the user named, of which nothing is known but
// that.
func (r *Resolver) At(ctx context.Context, uri string) (Dir, error) {
	return r.at(ctx, place{uri: uri, typed: true})
}

// AtRoot is At for a URI that a store of metadata names as a root of artifacts.
func (r *Resolver) AtRoot(ctx context.Context, uri string) (Dir, error) {
	return r.at(ctx, rootOf(uri, artifact.Door{}))
}

// findPlace finds what a storage URI names. Its last name may hold a ? or a #; where
// nothing has that name, it is what the URI without a query means.
func (r *Resolver) findPlace(ctx context.Context, uri string) (Found, error) {
	if s := scheme(uri); s == "" || s == "file" {
		return r.findLocal(ctx, uri)
	}
	f, err := r.findKey(ctx, uri)
	if root := withoutQuery(uri); root != uri && errors.Is(err, fs.ErrNotExist) {
		return r.findKey(ctx, root)
	}
	return f, err
}

func (r *Resolver) findKey(ctx context.Context, uri string) (Found, error) {
	dir, name := split(uri)
	if s := scheme(uri); s == "http" || s == "https" {
		if n, err := url.PathUnescape(name); err == nil {
			name = n
		}
	}
	inside := strings.HasSuffix(uri, "/") // what is in it is meant
	root := func(uri string) (Found, error) {
		o, err := r.At(ctx, uri)
		o.Final = true
		f := Found{Item: Item{Dir: &o}}
		if !inside {
			f.Path, f.Prefix, f.Returned = name, name, name
		}
		return f, err
	}
	if name == "" {
		return root(dir)
	}
	s, err := r.store(ctx, place{uri: dir, typed: true})
	if err != nil {
		return Found{}, err
	}
	e, err := s.Stat(ctx, name)
	if err != nil && rest.IsAnswer(err) && !errors.Is(err, fs.ErrNotExist) {
		// What lies beside it is not for this user; what is in it may be.
		if f, rerr := root(uri); rerr == nil && r.hasEntries(ctx, f.Dir) {
			return f, nil
		}
	}
	if err != nil {
		return Found{}, err
	}
	if e.IsDir {
		return root(uri)
	}
	if inside {
		return Found{}, fmt.Errorf("%s is a file: %w", name, fs.ErrNotExist)
	}
	o := Dir{Final: true}
	return Found{Item: *o.overlay(nil, Part{Store: s}, e, s.Route().Access), Path: name, Prefix: name, Returned: name}, nil
}

// hasEntries tells whether a directory is known to be one.
func (r *Resolver) hasEntries(ctx context.Context, o *Dir) bool {
	l, err := r.List(ctx, o)
	if err != nil {
		return false
	}
	_, ok := l.Next()
	return ok
}

// findLocal follows symbolic links in the path that the user gave; below it,
// the store's rules hold.
func (r *Resolver) findLocal(ctx context.Context, uri string) (Found, error) {
	p, ok := localPath(uri)
	if !ok {
		return Found{}, fmt.Errorf("%s names a file of another host: %w", Shown(uri), errors.ErrUnsupported)
	}
	name := filepath.Base(p)
	st, err := os.Stat(p)
	if errors.Is(err, syscall.ENOTDIR) {
		err = fmt.Errorf("%s: a part of it is a file: %w", p, fs.ErrNotExist)
	}
	if err != nil {
		return Found{}, err
	}
	if p, err = filepath.EvalSymlinks(p); err != nil {
		return Found{}, err
	}
	if p, err = filepath.Abs(p); err != nil {
		return Found{}, err
	}
	dir := p
	if !st.IsDir() {
		dir = filepath.Dir(p)
	}
	o, err := r.At(ctx, dir)
	o.Final = true
	f := Found{Item: Item{Dir: &o}}
	if !strings.HasSuffix(uri, "/") {
		f.Path, f.Prefix, f.Returned = name, name, name
	}
	if err == nil && !st.IsDir() {
		f.Item, err = r.Lookup(ctx, &o, filepath.Base(p))
	}
	return f, err
}

// Reason is a place in which an artifact lies, and how it is reached.
type Reason struct {
	Where     string
	Routes    []artifact.RouteStatus
	Err       error  // it can't be reached
	Elsewhere string // why it is not on this machine, though its name says so
}

// Explain asks for what f leads to and says where that is and by which routes
// each place was reached. To learn how files come it reads a byte of a small
// one, where there is one.
func (r *Resolver) Explain(ctx context.Context, f Found) []Reason {
	if f.Dir == nil {
		if f.Store == nil {
			return nil
		}
		var err error
		if f.Size > 0 {
			err = r.probe(ctx, f.Store, f.Item)
		}
		return []Reason{reasonOf(f.Store, err)}
	}
	var out []Reason
	for _, l := range f.Dir.Parts {
		ls, err := r.listings.list(ctx, l, f.Dir.Final)
		if err == nil {
			small := slices.DeleteFunc(slices.Clone(ls.entries), func(e artifact.Entry) bool { return e.IsDir || e.Size < 2 || e.Size > 1<<20 })
			if len(small) > 0 {
				e := slices.MinFunc(small, func(a, b artifact.Entry) int { return cmp.Compare(a.Size, b.Size) })
				err = r.probe(ctx, l.Store, *f.Dir.overlay(nil, l, e, ls.via))
			}
		}
		out = append(out, reasonOf(l.Store, err))
	}
	for _, m := range f.Dir.Mounts {
		out = append(out, r.Explain(ctx, Found{Item: Item{Dir: &m.Dir}})...)
	}
	return out
}

func reasonOf(s *artifact.Router, err error) Reason {
	return Reason{Where: s.Where, Routes: s.Statuses(), Err: err, Elsewhere: s.Elsewhere()}
}

// probe reads the first byte of a file.
func (r *Resolver) probe(ctx context.Context, s *artifact.Router, it Item) error {
	body, err := s.ReadRange(ctx, it.Path, 0, 1, it.Version)
	if err != nil {
		return err
	}
	return body.Close()
}
