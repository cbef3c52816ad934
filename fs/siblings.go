package fs

import (
	"context"
	"io"
	"path"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve"
)

// siblingPrefetch has the small files of a directory fetched when the first of them
// is read: a program that reads one after another then waits for a few round
// trips, and not for one with each.
type siblingPrefetch struct {
	began *cache.Memo[string, struct{}] // directories
}

const (
	smallFile   = 256 << 10 // bytes
	smallAtOnce = 32        // files
	siblingsFor = time.Minute
	leastRoom   = cache.BlockSize / 32 // bytes that a file takes, however small
)

func newSiblingPrefetch() *siblingPrefetch {
	return &siblingPrefetch{cache.NewMemo[string](10_000, nil, func(struct{}) time.Duration { return siblingsFor })}
}

// begin is told of the first read of f. It does not wait.
func (p *siblingPrefetch) begin(f artifactFile) {
	room := f.d.t.cache.Ahead()
	if f.it.Size > smallFile || room <= 0 || !f.it.Known() {
		return
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel() // the Memo loads for nobody: what begins once for a directory goes on by itself
	p.began.Get(gone, f.it.Store.ID()+"\x00"+path.Dir(f.it.Path), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, f.fetchSiblings(ctx, room)
	})
}

// fetchSiblings fetches the small files of f's directory that follow it in the
// listing, and then those before it, up to room bytes.
func (f artifactFile) fetchSiblings(ctx context.Context, room int64) error {
	items, err := f.d.t.r.List(ctx, f.d.o)
	if err != nil {
		return err // the next look into the directory tells
	}
	var before, after []resolve.Item // small files
	for it := range items.All() {
		switch {
		case it.Dir != nil || it.Store == nil || it.Size == 0 || it.Size > smallFile || !it.Known() || it.Name == f.it.Name:
		case it.Name < f.it.Name:
			before = append(before, it)
		case int64(len(after))*leastRoom < room:
			after = append(after, it)
		}
	}
	var g errgroup.Group
	g.SetLimit(smallAtOnce)
	for _, it := range append(after, before...) {
		if room -= max(it.Size, leastRoom); room < 0 {
			break
		}
		g.Go(func() error {
			Contain(f.d.t.log, "a fetch ahead", func() { fetchSmall(f.d.t.cache, it) })
			return nil
		})
	}
	return g.Wait()
}

func fetchSmall(c *cache.Cache, it resolve.Item) {
	f := c.Open(it.Key(), it, true)
	defer f.Close()
	f.Later = true
	io.Copy(io.Discard, f.Reader(context.Background())) // an error comes again to whoever reads the file
}
