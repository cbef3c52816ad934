package resolve

import (
	"context"
	"strings"

	"github.com/mlflowfs/mlflowfs/cache"
)

// Anew is Resolve by what the server and the stores say from now on, and nothing that is
// remembered. What is below what it finds is asked for anew, too, when it is wanted. Of a
// URI of MLflow's it gives the one that names the same for ever: a run, a logged model, or
// a version, and the path in it. stale says that a server can't be asked, and that it is
// what that said before.
//
// The directory that it led to when it was last asked for is listed meanwhile, unless ctx
// is anew itself: then the caller lists with it.
func (r *Resolver) Anew(ctx context.Context, uri string) (_ URI, _ Found, stale bool, _ error) {
	u, named, err := ParseURI(uri)
	if !cache.IsAnew(ctx) {
		ctx = cache.Anew(ctx)
		if err == nil && named {
			r.listBefore(ctx, uri)
		}
	}
	ctx, mark := cache.WithStaleMark(ctx)
	if err == nil && named && u.Name != "" {
		u, err = r.exact(ctx, u)
		uri = u.String()
	}
	if err != nil {
		return URI{}, Found{}, false, err
	}
	f, err := r.Resolve(ctx, uri)
	if err == nil && f.Dir != nil {
		r.forgetBelow(ctx, f.Dir)
	}
	return u, f, mark.Load(), err
}

// listBefore has the store asked anew for the directory that a URI led to, while the
// server is asked whether it still leads there: what is looked at next is there sooner.
func (r *Resolver) listBefore(ctx context.Context, uri string) {
	f, err := r.Resolve(cache.AsItWas(ctx), uri)
	if err != nil || f.Dir == nil {
		return
	}
	r.forgetBelow(ctx, f.Dir)
	d := *f.Dir
	d.Final = false // nobody has said so since
	go cache.Guard(func() error {
		_, err := r.List(cache.NotAnew(context.WithoutCancel(ctx)), &d)
		return err
	})
}

// forgetBelow drops what is remembered of a directory's listing, and of those below it,
// but what was asked for since ctx is anew.
func (r *Resolver) forgetBelow(ctx context.Context, o *Dir) {
	for _, p := range o.Parts {
		own := dirKey(p.Store, p.Path)
		below := own
		if p.Path != "" {
			below += "/"
		}
		r.listings.recent.DropOlder(ctx, func(key string) bool { return key == own || strings.HasPrefix(key, below) })
	}
	for i := range o.Mounts {
		r.forgetBelow(ctx, &o.Mounts[i].Dir)
	}
}
