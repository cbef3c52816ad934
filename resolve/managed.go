package resolve

import (
	"context"
	"fmt"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// What a registry manages itself is told here: the files of a version of Unity
// Catalog's, which are opened with credentials that it lends for them.

// managed names a version whose files its registry manages.
type managed struct{ name, number string }

// managedPlace is where the files of a version are that its registry manages. Those on
// this machine need nothing that is lent; they are a server's word as any other path is.
func managedPlace(v *meta.Version) place {
	p := rootOf(v.URI, artifact.Door{})
	if s := scheme(p.uri); s != "" && s != "file" {
		p.of = managed{v.Name, v.Version}
	}
	return p
}

// managed are the routes to the files of a version. Nothing of the client's own is used.
func (r *Resolver) managed(p place) (id string, routes []artifact.Route, err error) {
	s := scheme(p.uri)
	at, key, ok := inBucket(p.uri)
	switch {
	case r.lender == nil || r.opt.Lent[s] == nil:
	case !ok:
		routes = unsupported(artifact.Direct, "a %s URI without a bucket", s)
	default:
		where := lentPlace{s, at, p.of}
		b := artifact.NewBlob(Shown(p.uri), keyOf(s, key), func(ctx context.Context, fresh bool) (*artifact.Bucket, error) {
			return r.openLent(ctx, where, fresh)
		})
		routes = []artifact.Route{{Access: artifact.Direct, Says: "the object store itself, with credentials that the registry lends for the version", Store: b}}
	}
	if r.opt.RegistryClient.Databricks() {
		routes = append(routes, r.managedByWorkspace(r.opt.RegistryClient, p.of)...)
	}
	if len(routes) == 0 {
		routes = unsupported(artifact.Direct, "artifacts with the scheme %q, of a registry that manages them itself", s)
	}
	// What was read with credentials of one version is shown of no other place.
	return routes[len(routes)-1].Store.ID() + "\x00managed\x00" + p.of.name + "\x00" + p.of.number, routes, nil
}

// lentPlace is a bucket that is opened with what is lent for a version.
type lentPlace struct {
	scheme, bucket string
	of             managed
}

// lentBucket is a bucket that is open with credentials that are lent.
type lentBucket struct {
	bucket *artifact.Bucket
	at     time.Time
	until  time.Time // the end of the credentials
}

// unsaid is how long credentials are believed of which the registry does not say when
// they end: AWS's least (AssumeRole, DurationSeconds).
const unsaid = 15 * time.Minute

// left is how long the credentials are good for.
func (b lentBucket) left() time.Duration { return time.Until(b.until) }

// renewedIn is when there are to be new ones: a fifth of their life before their end.
// One that is said to be over was good a moment ago, by another clock.
func (b lentBucket) renewedIn() time.Duration { return max(b.left()*4/5, reopenEvery) }

// openLent opens a bucket with what the registry lends for a version, once for all that
// want it; and again before that ends, and where it is refused (fresh). What is good still
// is used where the registry can't be asked.
func (r *Resolver) openLent(ctx context.Context, p lentPlace, fresh bool) (*artifact.Bucket, error) {
	get := func() (lentBucket, error) {
		return r.lent.Get(cache.NotAnew(ctx), p, func(ctx context.Context) (lentBucket, error) {
			b, err := r.borrow(ctx, p)
			if before, ok := r.lentBefore.Peek(p); ok && err != nil && !rest.IsAnswer(err) {
				return before, nil
			}
			if err == nil {
				r.lentBefore.PutAs(ctx, p, b)
			}
			return b, err
		})
	}
	b, err := get()
	if fresh && err == nil && time.Since(b.at) > reopenEvery {
		r.lent.Drop(p)
		r.lentBefore.Drop(p)
		b, err = get()
	}
	return b.bucket, err
}

func (r *Resolver) borrow(ctx context.Context, p lentPlace) (lentBucket, error) {
	l, err := r.lender.Lend(ctx, p.of.name, p.of.number)
	if err != nil {
		return lentBucket{}, err
	}
	if l.Until.IsZero() {
		l.Until = time.Now().Add(unsaid)
	}
	b, err := r.opt.Lent[p.scheme](ctx, p.bucket, l)
	if err != nil {
		return lentBucket{}, fmt.Errorf("what the registry lends for %s %s: %w", p.of.name, p.of.number, err)
	}
	return lentBucket{b, time.Now(), l.Until}, nil
}
