package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/cache/disk"
	"github.com/mlflowfs/mlflowfs/resolve"
)

// cachedFiles is what the commands about the disk cache have in common: the
// files that some URIs lead to.
type cachedFiles struct {
	connection
	caching
	include []string
}

// command makes a command of f, which gets the files that can be in the disk
// cache.
func (t *cachedFiles) command(c *cobra.Command, f func(context.Context, *disk.Dir, []named, *slog.Logger) error) *cobra.Command {
	set := newSettings(c.Flags())
	t.connection.bind(set, "warn")
	t.caching.bind(set)
	c.Flags().StringSliceVar(&t.include, "include", nil, "of directories, only files whose name, or path below the URI, matches one of these (path.Match: * ? [a-z])")
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError{fmt.Errorf("%s takes one or more URIs: `%s`", c.Name(), c.UseLine())}
		}
		return nil
	}
	c.RunE = func(_ *cobra.Command, uris []string) error {
		if err := set.apply(); err != nil {
			return err
		}
		log, err := t.log()
		if err != nil {
			return err
		}
		if err := t.check(); err != nil {
			return err
		}
		for _, g := range t.include {
			if _, err := path.Match(g, ""); err != nil {
				return usageError{fmt.Errorf("--include %q is no pattern: * ? [a-z] and \\ are known", g)}
			}
		}
		d, err := t.disk(log)
		if err != nil {
			return err
		}
		if d == nil {
			return usageError{errors.New("with --cache-dir none there is nothing on disk")}
		}
		defer d.Close()
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		needed := slices.ContainsFunc(uris, func(uri string) bool { _, isNamed, _ := resolve.ParseURI(uri); return isNamed })
		s, err := t.connection.open(time.Minute, needed, nil, log)
		if err != nil {
			return fmt.Errorf("the tracking store: %w", err)
		}
		defer s.close()
		var files []named
		for _, uri := range uris {
			found, err := s.Find(ctx, uri)
			if err == nil {
				err = t.each(ctx, s, found.Item, "", &files)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", resolve.Shown(uri), err)
			}
		}
		return f(ctx, d, files, log)
	}
	return c
}

// named is a file with its path below the URI that led to it.
type named struct {
	path string
	resolve.Item
}

// each collects the files below it that can be in the cache.
func (t *cachedFiles) each(ctx context.Context, s *stores, it resolve.Item, at string, files *[]named) error {
	if it.Dir != nil {
		items, err := s.List(ctx, it.Dir)
		if err != nil {
			return err
		}
		for below := range items.All() {
			if err := t.each(ctx, s, below, path.Join(at, below.Name), files); err != nil {
				return err
			}
		}
		return nil
	}
	if it.Store == nil || it.Size == 0 || (at != "" && !t.included(at)) {
		return nil
	}
	if !it.Store.Local() {
		*files = append(*files, named{at, it})
	}
	return nil
}

func (t *cachedFiles) included(p string) bool {
	for _, g := range t.include {
		for _, s := range []string{p, path.Base(p)} {
			if ok, _ := path.Match(g, s); ok {
				return true
			}
		}
	}
	return len(t.include) == 0
}

func warmCommand() *cobra.Command {
	var t cachedFiles
	var quiet bool
	c := t.command(&cobra.Command{
		Use:   "warm [flags] URI…",
		Short: "Bring artifacts into the disk cache, before a mount needs them",
		Long: `Warm fetches the files that the URIs lead to into the disk cache, which mounts
of the same user share: what is read there then comes from the disk. What is
there already is held against its checksums and not fetched again, so that an
interrupted warm goes on where it was.

Files that may still change (of a running run, in a store that gives no
validators) are not kept, and are named.`,
	}, func(ctx context.Context, d *disk.Dir, files []named, log *slog.Logger) error {
		return warm(ctx, d, files, t.parallel, newProgress(os.Stderr, quiet), log)
	})
	c.Flags().BoolVar(&quiet, "quiet", false, "show no progress")
	return c
}

const warmMemory = 128 << 20

func warm(ctx context.Context, d *disk.Dir, files []named, parallel int, p *progress, log *slog.Logger) error {
	c := newCache(cache.Options{Disk: d, Memory: blocksOnDisk, Parallel: parallel, Fill: 1 << 62, Log: log}, warmMemory)
	var mu sync.Mutex // guards failed
	var failed []error
	fail := func(f named, err error) {
		mu.Lock()
		defer mu.Unlock()
		failed = append(failed, fmt.Errorf("%s: %w", path.Join(f.path, f.Item.Name), err))
	}
	var kept []named
	var g errgroup.Group
	g.SetLimit(parallelFiles)
	for _, f := range files {
		if !f.Known() {
			fail(f, errors.New("it may still change, and is not kept"))
			continue
		}
		kept = append(kept, f)
		p.more(f.Size)
	}
	p.start()
	for _, f := range kept {
		g.Go(func() error {
			h := c.Open(f.Key(), f, true)
			defer h.Close()
			h.Whole = true
			if _, err := io.CopyBuffer(countTo{p}, struct{ io.Reader }{h.Reader(ctx)}, make([]byte, 8*cache.BlockSize)); err != nil {
				fail(f, err)
			}
			return ctx.Err()
		})
	}
	g.Wait()
	c.Wait()
	var there int64
	for _, f := range kept {
		there += d.Has(disk.Key(f.Key()))
	}
	err := context.Cause(ctx)
	if err != nil {
		err = errors.New("interrupted: the same command goes on from here")
	} else if want := p.total.Load(); there < want && len(failed) == 0 {
		err = fmt.Errorf("%s of %s are there: the rest had no room (--cache-size, or the disk)", humanize.IBytes(uint64(there)), humanize.IBytes(uint64(want)))
	} else if len(failed) > 0 {
		err = errors.Join(failed...)
	}
	p.stop(err)
	if err == nil {
		fmt.Printf("%d files, %s, are in the cache\n", len(kept), humanize.IBytes(uint64(there)))
	}
	return err
}

// countTo is an io.Writer that tells a progress of its bytes.
type countTo struct{ p *progress }

var _ io.Writer = countTo{}

func (c countTo) Write(b []byte) (int, error) {
	c.p.add(int64(len(b)))
	return len(b), nil
}

func evictCommand() *cobra.Command {
	var t cachedFiles
	return t.command(&cobra.Command{
		Use:   "evict [flags] URI…",
		Short: "Take artifacts out of the disk cache",
		Long: `Evict removes the files that the URIs lead to from the disk cache, pinned or
not. A program that has one open reads on.`,
	}, func(_ context.Context, d *disk.Dir, files []named, _ *slog.Logger) error {
		var freed int64
		for _, f := range files {
			n, err := d.Evict(disk.Key(f.Key()))
			if err != nil {
				return err
			}
			freed += n
		}
		fmt.Printf("%s freed\n", humanize.IBytes(uint64(freed)))
		return nil
	})
}

func pinCommand(off bool) *cobra.Command {
	var t cachedFiles
	c := &cobra.Command{
		Use:   "pin [flags] URI…",
		Short: "Keep artifacts in the disk cache, whatever else needs room",
		Long: `Pin keeps the files that the URIs lead to from eviction, those that are in the
disk cache and those that come later; it brings none (see warm).`,
	}
	if off {
		c.Use, c.Short, c.Long = "unpin [flags] URI…", "Let artifacts leave the disk cache again", "Unpin takes back what pin did."
	}
	return t.command(c, func(_ context.Context, d *disk.Dir, files []named, _ *slog.Logger) error {
		var size, there int64
		for _, f := range files {
			if err := d.Pin(disk.Key(f.Key()), off); err != nil {
				return err
			}
			size += f.Size
			there += d.Has(disk.Key(f.Key()))
		}
		done := "pinned"
		if off {
			done = "unpinned"
		}
		fmt.Printf("%d files %s, %s; %s of them are in the cache\n", len(files), done, humanize.IBytes(uint64(size)), humanize.IBytes(uint64(there)))
		return nil
	})
}
