package resolve

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// likely are the buckets that what is asked for next is likely to lie in: those that were
// asked or expected last.
type likely struct {
	mu      sync.Mutex // guards what follows
	buckets []likelyBucket
}

type likelyBucket struct {
	scheme, place string
	tried         time.Time // when a connection was last made, or could not be made
}

// maxLikely bounds how many connections are made for one question.
const maxLikely = 2

func (l *likely) add(scheme, place string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := likelyBucket{scheme: scheme, place: place}
	for i, o := range l.buckets {
		if o.scheme == scheme && o.place == place {
			b, l.buckets = o, slices.Delete(l.buckets, i, i+1)
			break
		}
	}
	l.buckets = slices.Insert(l.buckets, 0, b)
	l.buckets = l.buckets[:min(len(l.buckets), maxLikely)]
}

// due are those that were not tried for connectAfter, and are now.
func (l *likely) due() (due []likelyBucket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.buckets {
		if b := &l.buckets[i]; time.Since(b.tried) > connectAfter {
			due, b.tried = append(due, *b), time.Now()
		}
	}
	return due
}

// Expect says that artifacts are likely to lie below storage URIs, the likeliest first.
// Nothing is sent before a name is asked for.
func (r *Resolver) Expect(uris []string) {
	for _, uri := range slices.Backward(uris) {
		p := rootOf(uri, artifact.Door{})
		s, direct := scheme(p.uri), r.opt.Access == Auto || r.opt.Access == artifact.Direct
		if place, _, ok := inBucket(p.uri); ok && direct && r.opt.Buckets[s] != nil && r.opt.Allowed.opens(p) {
			r.likely.add(s, place)
		}
	}
}

// connect makes connections to the buckets that are likely, and that were asked for nothing
// in connectAfter, while a store of metadata is asked what a name means: what that leads to
// is listed next, and need not wait for a connection then.
func (r *Resolver) connect(ctx context.Context) {
	for _, b := range r.likely.due() {
		go cache.Guard(func() error {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectWithin)
			defer cancel()
			bucket, err := r.open(ctx, b.scheme, b.place, false)
			if err == nil {
				bucket.Connect(ctx, connectAfter)
			}
			return err
		})
	}
}

const (
	connectAfter  = 65 * time.Second // a connection that was not used for so long is none any more (rest.Settings.Tune)
	connectWithin = 10 * time.Second
)

// connecting is a store of metadata that has connections made while it is asked.
type connecting struct {
	meta.Store
	connect func(context.Context)
}

func (c connecting) Run(ctx context.Context, id string) (*meta.Run, error) {
	c.connect(ctx)
	return c.Store.Run(ctx, id)
}

func (c connecting) LoggedModel(ctx context.Context, id string) (*meta.LoggedModel, error) {
	c.connect(ctx)
	return c.Store.LoggedModel(ctx, id)
}

func (c connecting) RegisteredModel(ctx context.Context, name string) (*meta.RegisteredModel, error) {
	c.connect(ctx)
	return c.Store.RegisteredModel(ctx, name)
}

// inBucket is a storage URI's bucket, or what stands in its place, and the key behind it.
// The key is cut off by hand: it may hold anything, percent signs included.
func inBucket(uri string) (place, key string, ok bool) {
	_, rest, _ := strings.Cut(uri, ":")
	rest, ok = strings.CutPrefix(rest, "//")
	place, key, _ = strings.Cut(rest, "/")
	return place, key, ok && place != ""
}
