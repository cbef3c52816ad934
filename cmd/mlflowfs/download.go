package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/cache/limit"
	"github.com/mlflowfs/mlflowfs/resolve"
)

// downloadFlags are the flags of download.
type downloadFlags struct {
	target
	dst   string
	quiet bool
}

func (p *process) downloadCommand() *cobra.Command {
	var f downloadFlags
	c := f.bind(&cobra.Command{
		Use:   "download [--dst DIR] (URI | --run-id ID [--path P])",
		Short: "Download an artifact or a directory of them, as mlflow.artifacts.download_artifacts does",
		Long: `Download prints the local path of what it brought: DIR, or what is named in it.
Without --dst it makes a new temporary directory, and of an artifact that lies
on this machine it prints the own path and copies nothing.

Files come in parallel ranges. Each grows under another name and is moved to
its own when its size is right, and its checksum where the store gives one;
with the same --dst an interrupted download goes on where it was.`,
	})
	c.Flags().StringVar(&f.dst, "dst", "", "the directory to download to; it is made where it is missing")
	c.Flags().BoolVar(&f.quiet, "quiet", false, "show no progress")
	return p.command(c, client, f.run)
}

func (f *downloadFlags) run(ctx context.Context, o *options, _ []string) error {
	return f.find(ctx, o, func(s *stores, found resolve.Found) error {
		path, err := download(ctx, s, found, f.dst, newProgress(o.stderr, f.quiet))
		if err == nil {
			fmt.Fprintln(o.stdout, path)
		}
		return err
	})
}

// How much goes on at once: directories that are listed, files that are open,
// requests for bytes, and of these those for one file.
const (
	parallelLists = 8
	parallelFiles = 32
	parallelGets  = 24
	parallelInOne = 8
)

// download brings what was found to dst, and gives its path there.
func download(ctx context.Context, s *stores, found resolve.Found, dst string, p *progress) (brought string, err error) {
	if dst == "" {
		if own := ownPath(ctx, s, found); own != "" {
			return own, nil
		}
		if dst, err = os.MkdirTemp("", "mlflowfs-"); err != nil {
			return "", err
		}
	}
	if dst, err = filepath.Abs(dst); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return "", fmt.Errorf("the destination must be a directory: %w", err)
	}
	root, err := os.OpenRoot(dst)
	if err != nil {
		return "", err
	}
	defer root.Close()
	if dir := path.Dir(found.Path); found.Path != "" {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
	}
	d := &downloads{s: s, root: root, lists: make(chan struct{}, parallelLists), files: make(chan struct{}, parallelFiles), progress: p}
	d.one = &cache.Downloader{Root: root, Parallel: parallelInOne, Limit: limit.New(parallelGets, parallelGets), Progress: p.add}
	var gctx context.Context
	d.g, gctx = errgroup.WithContext(ctx)
	p.start()
	if found.Dir == nil {
		d.file(gctx, found.Item, found.Path)
	} else {
		d.dir(gctx, found.Dir, found.Path)
	}
	err = errors.Join(d.g.Wait(), d.failures())
	p.stop(err)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("interrupted: the same command with --dst %s goes on from here", dst)
	}
	return filepath.Join(dst, filepath.FromSlash(found.Returned)), err
}

// ownPath is the path of what lies on this machine and nowhere else.
func ownPath(ctx context.Context, s *stores, found resolve.Found) string {
	store, p := found.Store, found.Item.Path
	if d := found.Dir; d != nil {
		if len(d.Parts) != 1 || len(d.Mounts) > 0 {
			return ""
		}
		if _, err := s.List(ctx, d); err != nil { // it decides where it lies
			return ""
		}
		store, p = d.Parts[0].Store, d.Parts[0].Path
	}
	if store == nil { // its content is known
		return ""
	}
	own, err := store.OwnPath(p)
	if err != nil {
		return ""
	}
	return own
}

// downloads is all the files of one download.
type downloads struct {
	s            *stores
	root         *os.Root
	g            *errgroup.Group
	lists, files chan struct{}
	one          *cache.Downloader
	progress     *progress

	mu     sync.Mutex // guards failed
	failed []error    // of single files
}

// A file that can't be had keeps no other from coming, until they are many.
const maxFailures = 20

func (d *downloads) fail(name string, err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed = append(d.failed, fmt.Errorf("%s: %w", name, err))
	if len(d.failed) < maxFailures {
		return nil
	}
	return errors.New("too many files failed: the rest was left")
}

// failures are the errors of the files that failed.
func (d *downloads) failures() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(d.failed...)
}

// take waits for a place in slots.
func take(ctx context.Context, slots chan struct{}) bool {
	select {
	case slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (d *downloads) dir(ctx context.Context, o *resolve.Dir, at string) {
	d.g.Go(func() error {
		if !take(ctx, d.lists) {
			return ctx.Err()
		}
		list, err := d.s.List(ctx, o)
		<-d.lists
		if err != nil {
			return err
		}
		for _, left := range list.LeftOut() {
			if err := d.fail(cmp.Or(at, "."), left); err != nil {
				return err
			}
		}
		items := slices.Collect(list.All())
		if at != "" {
			if err := d.root.Mkdir(at, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				return err
			}
		}
		for _, it := range items {
			if it.Dir == nil {
				d.progress.more(it.Size)
			}
		}
		for _, it := range items {
			if name := path.Join(at, it.Name); it.Dir != nil {
				d.dir(ctx, it.Dir, name)
			} else if !take(ctx, d.files) {
				return ctx.Err()
			} else {
				d.g.Go(func() error {
					defer func() { <-d.files }()
					return d.bring(ctx, it, name)
				})
			}
		}
		return nil
	})
}

func (d *downloads) file(ctx context.Context, it resolve.Item, name string) {
	d.progress.more(it.Size)
	d.g.Go(func() error { return d.bring(ctx, it, name) })
}

func (d *downloads) bring(ctx context.Context, it resolve.Item, name string) error {
	if it.Store == nil {
		d.progress.add(it.Size)
		return d.root.WriteFile(name, []byte(it.Content), 0o644)
	}
	if err := d.one.Download(ctx, it.Key(), it, name); err != nil {
		return d.fail(name, err)
	}
	return nil
}
