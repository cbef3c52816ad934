package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"
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
	include []string
}

// command makes a command of f, which gets the files that can be in the disk
// cache.
func (t *cachedFiles) command(p *process, c *cobra.Command, f func(context.Context, *options, *cached) error) *cobra.Command {
	c.Flags().StringSliceVar(&t.include, "include", nil, "of directories, only files whose name, or path below the URI, matches one of these (path.Match: * ? [a-z])")
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError{fmt.Errorf("%s takes one or more URIs: `%s`", c.Name(), c.UseLine())}
		}
		return nil
	}
	return p.command(c, caching, func(ctx context.Context, o *options, uris []string) error {
		for _, g := range t.include {
			if _, err := path.Match(g, ""); err != nil {
				return usageError{fmt.Errorf("--include %q is no pattern: * ? [a-z] and \\ are known", g)}
			}
		}
		log, err := o.log()
		if err != nil {
			return err
		}
		d, err := o.openDisk(log)
		if err != nil {
			return err
		}
		if d == nil {
			return usageError{errors.New("with --cache-dir none there is nothing on disk")}
		}
		defer d.Close()
		s, err := o.open(openOptions{ttl: time.Minute, needed: slices.ContainsFunc(uris, isNamed)}, log)
		if err != nil {
			return fmt.Errorf("the tracking store: %w", err)
		}
		defer s.close()
		found := &cached{disk: d, log: log}
		if found.files, err = t.find(ctx, s, uris); err != nil {
			return err
		}
		return f(ctx, o, found)
	})
}

// isNamed tells whether a URI is of MLflow, and not of storage.
func isNamed(uri string) bool {
	_, named, _ := resolve.ParseURI(uri)
	scheme, _, _ := strings.Cut(uri, ":")
	return named || strings.EqualFold(scheme, "mlflow-artifacts")
}

// cached are files with the directory of the cache that they are in, or may be.
type cached struct {
	disk  *disk.Dir
	files []named
	log   *slog.Logger
}

// find collects the files that the URIs lead to.
func (t *cachedFiles) find(ctx context.Context, s *stores, uris []string) (files []named, err error) {
	for _, uri := range uris {
		found, err := s.Resolve(ctx, uri)
		if err == nil {
			err = t.each(ctx, s, found.Item, "", &files)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", resolve.Shown(uri), err)
		}
	}
	return files, nil
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

func (p *process) warmCommand() *cobra.Command {
	var t cachedFiles
	var quiet bool
	c := t.command(p, &cobra.Command{
		Use:   "warm [flags] URI…",
		Short: "Bring artifacts into the disk cache, before a mount needs them",
		Long: `Warm fetches the files that the URIs lead to into the disk cache, which mounts
of the same user share: what is read there then comes from the disk. What is
there already is held against its checksums and not fetched again, so that an
interrupted warm goes on where it was.

Files that may still change (of a running run, in a store that gives no
validators) are not kept, and are named.`,
	}, func(ctx context.Context, o *options, found *cached) error {
		return found.warm(ctx, o, newProgress(o.stderr, quiet))
	})
	c.Flags().BoolVar(&quiet, "quiet", false, "show no progress")
	return c
}

const warmMemory = 128 << 20

// warm fetches the files that can be kept.
func (w *cached) warm(ctx context.Context, o *options, p *progress) error {
	c := o.newCache(cache.Options{Disk: w.disk, Memory: blocksOnDisk, Parallel: o.Cache.Parallel, Fill: 1 << 62, Log: w.log}, warmMemory)
	var failed failures
	var kept []named
	for _, f := range w.files {
		if f.Known() {
			kept = append(kept, f)
			p.more(f.Size)
		} else {
			failed.add(f, errors.New("it may still change, and is not kept"))
		}
	}
	p.start()
	var g errgroup.Group
	g.SetLimit(parallelFiles)
	for _, f := range kept {
		g.Go(func() error {
			h := c.Open(f.Key(), f, true)
			defer h.Close()
			h.Whole = true
			if _, err := io.CopyBuffer(countTo{p}, struct{ io.Reader }{h.Reader(ctx)}, make([]byte, 8*cache.BlockSize)); err != nil {
				failed.add(f, err)
			}
			return ctx.Err()
		})
	}
	g.Wait()
	c.Wait()
	there, err := int64(0), failed.join()
	for _, f := range kept {
		there += w.disk.Has(disk.Key(f.Key()))
	}
	if want := p.total.Load(); ctx.Err() != nil {
		err = errors.New("interrupted: the same command goes on from here")
	} else if err == nil && there < want {
		err = fmt.Errorf("%s of %s are there: the rest had no room (--cache-size, or the disk)", humanize.IBytes(uint64(there)), humanize.IBytes(uint64(want)))
	}
	p.stop(err)
	if err == nil {
		fmt.Fprintf(o.stdout, "%d files, %s, are in the cache\n", len(kept), humanize.IBytes(uint64(there)))
	}
	return err
}

// failures are the errors of files.
type failures struct {
	mu  sync.Mutex // guards all
	all []error
}

func (x *failures) add(f named, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.all = append(x.all, fmt.Errorf("%s: %w", path.Join(f.path, f.Item.Name), err))
}

// join is all of them, once there come no more.
func (x *failures) join() error { return errors.Join(x.all...) }

// countTo is an io.Writer that tells a progress of its bytes.
type countTo struct{ p *progress }

var _ io.Writer = countTo{}

func (c countTo) Write(b []byte) (int, error) {
	c.p.add(int64(len(b)))
	return len(b), nil
}

func (p *process) evictCommand() *cobra.Command {
	var t cachedFiles
	return t.command(p, &cobra.Command{
		Use:   "evict [flags] URI…",
		Short: "Take artifacts out of the disk cache",
		Long: `Evict removes the files that the URIs lead to from the disk cache, pinned or
not, and each directory of download --link that has one of them. A program that
has a file open reads on; a directory that a program has locked stays for it, and
is given to nobody else.`,
	}, func(_ context.Context, o *options, found *cached) error {
		keys := make([]disk.Key, 0, len(found.files))
		for _, f := range found.files {
			keys = append(keys, disk.Key(f.Key()))
		}
		freed, inUse, err := found.disk.EvictTrees(keys)
		if err != nil {
			return err
		}
		for _, key := range keys {
			n, err := found.disk.Evict(key)
			if err != nil {
				return err
			}
			freed += n
		}
		fmt.Fprintf(o.stdout, "%s freed\n", humanize.IBytes(uint64(max(freed, 0))))
		if inUse > 0 {
			fmt.Fprintf(o.stdout, "%d directories are in use, and stay for those who use them\n", inUse)
		}
		return nil
	})
}

func (p *process) pinCommand(off bool) *cobra.Command {
	var t cachedFiles
	c := &cobra.Command{
		Use:   "pin [flags] URI…",
		Short: "Keep artifacts in the disk cache, whatever else needs room",
		Long: `Pin keeps the files that the URIs lead to from eviction, those that are in the
disk cache and those that come later, and the directories of download --link that
have one of them; it brings none (see warm).`,
	}
	done := "pinned"
	if off {
		c.Use, c.Short, c.Long, done = "unpin [flags] URI…", "Let artifacts leave the disk cache again", "Unpin takes back what pin did.", "unpinned"
	}
	return t.command(p, c, func(_ context.Context, o *options, found *cached) error {
		var size, there int64
		for _, f := range found.files {
			if err := found.disk.Pin(disk.Key(f.Key()), off); err != nil {
				return err
			}
			size += f.Size
			there += found.disk.Has(disk.Key(f.Key()))
		}
		fmt.Fprintf(o.stdout, "%d files %s, %s; %s of them are in the cache\n", len(found.files), done, humanize.IBytes(uint64(size)), humanize.IBytes(uint64(there)))
		return nil
	})
}
