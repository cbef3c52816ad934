package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/cache/disk"
	"github.com/mlflowfs/mlflowfs/resolve"
)

// copyVariable names the directory for copies that nobody shares, in the place of that for
// temporary files.
const copyVariable = "MLFLOWFS_COPY_DIR"

// linker shares files with the disk cache.
type linker struct {
	disk  *disk.Dir
	cache *cache.Cache
	log   *slog.Logger
	said  sync.Once // that something can't be kept
}

// notKept says that something can't be had by way of the cache, and why.
type notKept struct{ error }

func (e notKept) Unwrap() error { return e.error }

// openLinker opens the cache; the error is a notKept.
func (o *options) openLinker(log *slog.Logger) (*linker, error) {
	d, err := o.openDisk(log)
	if err == nil && d == nil {
		err = errors.New("there is none on disk (--cache-dir none)")
	}
	if err != nil {
		return nil, notKept{err}
	}
	l := &linker{disk: d, log: log}
	l.cache = o.newCache(cache.Options{
		Disk: d, Memory: blocksOnDisk, Parallel: o.Cache.Parallel, Fill: 1 << 62, Log: log,
		Linger: time.Millisecond, // nobody comes for what was left
	}, warmMemory)
	return l, nil
}

// materialise brings what was found, by way of the disk cache, to dst, and says where it
// is there. With no dst that is in a directory which all processes of this user share,
// or the own path of what lies on this machine. What can't be kept in the cache is
// downloaded.
func materialise(ctx context.Context, o *options, s *stores, found resolve.Found, dst string, p *progress) (at placed, err error) {
	if dst == "" {
		if own := ownPath(ctx, s, found); own != "" {
			return placed{Path: own, How: placedOwn}, nil
		}
	}
	log, err := o.log()
	if err != nil {
		return placed{}, err
	}
	l, err := o.openLinker(log)
	if err == nil {
		defer l.disk.Close()
		if dst != "" {
			at.Path, err = download(ctx, s, found, dst, p, l)
			at.How = placedCopy
			return at, err
		}
		at.Path, err = l.tree(ctx, s, found, p)
		at.How = placedShared
	}
	if err == nil || ctx.Err() != nil || !errors.As(err, new(notKept)) {
		return at, err
	}
	log.Warn("what the cache can't keep is downloaded to a directory that nobody shares", "err", err)
	if base := o.getenv(copyVariable); dst == "" && base != "" {
		if dst, err = os.MkdirTemp(base, "mlflowfs-"); err != nil {
			return placed{}, err
		}
	}
	at.Path, err = download(ctx, s, found, dst, newProgress(o.stderr, p.quiet), nil)
	at.How = placedCopy
	return at, err
}

// collector notes what a walk finds.
type collector struct {
	mu      sync.Mutex // guards what follows
	entries []disk.Entry
	files   map[disk.Key]resolve.Item // whose contents are kept
	size    int64                     // bytes of those
}

var _ visitor = (*collector)(nil)

func (c *collector) dir(at string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries = append(c.entries, disk.Entry{Path: at, Dir: true})
	return nil
}

func (c *collector) file(_ context.Context, it resolve.Item, name string) error {
	e := disk.Entry{Path: name, Text: it.Content}
	if it.Store != nil && it.Size > 0 {
		if err := keepable(it); err != nil {
			return err
		}
		it = it.Pinned()
		e.Key = disk.Key(it.Key())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.files[e.Key]; e.Key.Size > 0 && !known {
		c.files[e.Key] = it
		c.size += it.Size
	}
	c.entries = append(c.entries, e)
	return nil
}

// keepable is why the cache can't keep a file of a store; nil where it can.
func keepable(it resolve.Item) error {
	switch {
	case it.Store.Local():
		return notKept{errors.New("it lies on this machine, with other things elsewhere")}
	case !it.Known():
		return notKept{errors.New("it may still change")}
	}
	return nil
}

// tree gives the path of what was found in a directory of the cache.
func (l *linker) tree(ctx context.Context, s *stores, found resolve.Found, p *progress) (string, error) {
	c := &collector{files: map[disk.Key]resolve.Item{}}
	if err := walk(ctx, s, found, c, newProgress(io.Discard, true)); err != nil {
		return "", err
	}
	if c.size > l.disk.Bound() {
		return "", notKept{fmt.Errorf("%w: --cache-size is too small", disk.ErrNoRoom)}
	}
	var failed error // of an artifact, and not of the cache
	t, err := l.disk.Tree(ctx, c.entries, func(b *disk.Builder) error {
		p.more(c.size)
		p.start()
		err := l.fill(ctx, c, b, p)
		p.stop(err)
		if !errors.As(err, new(notKept)) {
			failed = err
		}
		return err
	})
	switch {
	case ctx.Err() != nil:
		return "", errors.New("interrupted: the same command goes on from here")
	case failed != nil:
		return "", failed
	case err != nil:
		return "", notKept{err}
	}
	defer t.Close()
	return filepath.Join(t.Path, filepath.FromSlash(found.Returned)), nil
}

// fill puts each content into a tree that is made.
func (l *linker) fill(ctx context.Context, c *collector, b *disk.Builder, p *progress) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelFiles)
	for _, it := range c.files {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if err := l.keep(ctx, it, p, b.Put); err != nil {
				return fmt.Errorf("%s: %w", it.Path, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// keep has a file in the cache, and calls use with it there.
func (l *linker) keep(ctx context.Context, it resolve.Item, p *progress, use func(*disk.File) error) error {
	err := l.cache.Keep(ctx, it.Key(), it, p.add, use)
	if why := (*cache.ErrNotKept)(nil); errors.As(err, &why) {
		return notKept{err}
	}
	return err
}

// put puts a file of a store at a name in root, by way of the cache; done is false
// where that can't keep it.
func (l *linker) put(ctx context.Context, it resolve.Item, root *os.Root, name string, p *progress) (done bool, err error) {
	if it.Size == 0 {
		return false, nil
	}
	it = it.Pinned()
	if err = keepable(it); err == nil {
		err = l.keep(ctx, it, p, func(f *disk.File) error { return f.PutAt(root, name) })
	}
	if !errors.As(err, new(notKept)) {
		return err == nil, err
	}
	l.said.Do(func() {
		l.log.Warn("what the cache can't keep is downloaded, and shared with nobody", "err", fmt.Errorf("%s: %w", name, err))
	})
	return false, nil
}
