package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/cache/limit"
	"github.com/mlflowfs/mlflowfs/resolve"
)

// downloadFlags are the flags of download.
type downloadFlags struct {
	target
	dst   string
	link  bool
	quiet bool
}

func (p *process) downloadCommand() *cobra.Command {
	var f downloadFlags
	c := f.bind(&cobra.Command{
		Use:   "download [--dst DIR] [--link] (URI | --run-id ID [--path P])",
		Short: "Download an artifact or a directory of them, as mlflow.artifacts.download_artifacts does",
		Long: `Download prints the local path of what it brought: DIR, or what is named in it.
Without --dst it makes a new temporary directory, and of an artifact that lies
on this machine it prints the own path and copies nothing.

Files come in parallel ranges. Each grows under another name and is moved to
its own when its size is right, and its checksum where the store gives one;
with the same --dst an interrupted download goes on where it was.

With --link files come by way of the disk cache, which keeps them, as warm does.
Without --dst the path is then of a directory of the cache that all processes of
this user share: who asks for the same again gets the same path, and moves and
copies nothing. Its files are read-only, and share their disk with the cache
(reflinks, else hard links, else copies). It stays for ten minutes, and as long as
a process has a shared lock (flock) on the file "lock" beside "files" in that path.
With --dst the files of DIR share their disk with the cache in the same way; where
they are hard links, they are read-only. What can't be kept in the cache is
downloaded as without --link, and a warning says why.`,
	})
	c.Flags().StringVar(&f.dst, "dst", "", "the directory to download to; it is made where it is missing")
	c.Flags().BoolVar(&f.link, "link", false, "share what is brought with the disk cache, and so with other processes")
	c.Flags().BoolVar(&f.quiet, "quiet", false, "show no progress")
	return p.command(c, caching, f.run)
}

func (f *downloadFlags) run(ctx context.Context, o *options, _ []string) error {
	return f.find(ctx, o, func(s *stores, found resolve.Found) error {
		var at placed
		var err error
		if p := newProgress(o.stderr, f.quiet); f.link {
			at, err = materialise(ctx, o, s, found, f.dst, p)
		} else {
			at.Path, err = download(ctx, s, found, f.dst, p, nil)
		}
		if err == nil {
			fmt.Fprintln(o.stdout, at.Path)
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

// download brings what was found to dst, and gives its path there. l, where there is
// one, has files come from the cache.
func download(ctx context.Context, s *stores, found resolve.Found, dst string, p *progress, l *linker) (brought string, err error) {
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
	d := &downloads{root: root, link: l, progress: p}
	d.one = &cache.Downloader{Root: root, Parallel: parallelInOne, Limit: limit.New(parallelGets, parallelGets), Progress: p.add}
	p.start()
	err = walk(ctx, s, found, d, p)
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
	root     *os.Root
	one      *cache.Downloader
	link     *linker // nil: no file comes from the cache
	progress *progress
}

var _ visitor = (*downloads)(nil)

func (d *downloads) dir(at string) error { return d.root.MkdirAll(at, 0o755) }

func (d *downloads) file(ctx context.Context, it resolve.Item, name string) error {
	if it.Store == nil {
		d.progress.add(it.Size)
		return d.root.WriteFile(name, []byte(it.Content), 0o644)
	}
	if d.link != nil {
		if done, err := d.link.put(ctx, it, d.root, name, d.progress); done || err != nil {
			return err
		}
	}
	return d.one.Download(ctx, it.Key(), it, name)
}
