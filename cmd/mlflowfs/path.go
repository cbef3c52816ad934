package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/fs/fusefs"
	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// pathFlags are the flags of path.
type pathFlags struct {
	target
	json, automount, quiet bool
}

func (p *process) pathCommand() *cobra.Command {
	var f pathFlags
	c := f.bind(&cobra.Command{
		Use:   "path [--automount] (URI | --run-id ID [--path P])",
		Short: "Print the path at which an artifact can be read on this machine",
		Long: `Path prints where a program can open what a URI leads to, as the server says now:

  on a mount of the same server, with the same registry, credentials and
  workspace, that this user has made;
  with --automount, on one that it makes where there is none, below
  $XDG_RUNTIME_DIR, and which ends when nobody has used it for a while;
  else in a directory of the disk cache that all processes share, to which it is brought
  once (see download --link), or, where that can't be, in a temporary one.

Of an artifact that lies on this machine, without a mount, it prints the own path.`,
	})
	c.Flags().BoolVar(&f.automount, "automount", p.getenv(automountVariable) == "1", "make a mount where there is none [$"+automountVariable+"=1]")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON: the path, and how it is read there (mount, own, shared, copy)")
	c.Flags().BoolVar(&f.quiet, "quiet", false, "show no progress")
	return p.command(c, caching, f.run)
}

const automountVariable = "MLFLOWFS_AUTOMOUNT"

// placed is what path prints.
type placed struct {
	Path  string `json:"path"`
	How   string `json:"how"`             // one of these
	Mount string `json:"mount,omitempty"` // the mount point

	// Otherwise says that MLflow's own download would give something else: see
	// fs.Otherwise.
	Otherwise bool `json:"otherwise,omitempty"`
}

const (
	placedMount  = "mount"
	placedOwn    = "own"    // it lies on this machine
	placedShared = "shared" // it was brought to a directory of the cache
	placedCopy   = "copy"   // it was brought to another one
)

func (f *pathFlags) run(ctx context.Context, o *options, _ []string) error {
	log, err := o.log()
	if err != nil {
		return err
	}
	if f.runID != "" { // all of the run, with its logged models, as a mount shows it
		f.uri, f.runID = resolve.URI{RunID: f.runID, Path: f.path}.String(), ""
	}
	at := f.onMount(ctx, o, log)
	if at.Path == "" {
		if at, err = f.brought(ctx, o); err != nil {
			return err
		}
	}
	if f.json {
		return writeJSON(o.stdout, at)
	}
	_, err = fmt.Fprintln(o.stdout, at.Path)
	return err
}

// brought is where the artifact is once it is on this machine's disk.
func (f *pathFlags) brought(ctx context.Context, o *options) (at placed, err error) {
	err = f.find(ctx, o, func(s *stores, found resolve.Found) error {
		at, err = materialise(ctx, o, s, found, "", newProgress(o.stderr, f.quiet))
		at.Otherwise = found.ByPath()
		return err
	})
	return at, err
}

// onMount is where it is on a mount; an empty path where there is none that has it.
func (f *pathFlags) onMount(ctx context.Context, o *options, log *slog.Logger) placed {
	scope := o.scope()
	point := findMount(ctx, scope, log)
	if point == "" && f.automount {
		var err error
		if point, err = o.autoMount(ctx, scope, log); err != nil {
			log.Warn("it can't be mounted, and is brought to the disk", "err", err)
		}
	}
	if point == "" {
		return placed{}
	}
	at, err := pathOnMount(ctx, point, f.uri)
	switch {
	case errors.Is(err, iofs.ErrNotExist) || errors.Is(err, iofs.ErrPermission):
		return placed{} // what is done without a mount says why
	case err != nil:
		log.Warn("the mount does not give it", "mountpoint", point, "err", err)
		return placed{}
	}
	return at
}

// pathOnMount is where a mount has what a URI leads to, without the links of the way.
func pathOnMount(ctx context.Context, point, uri string) (placed, error) {
	return ofMount(ctx, point, func() (placed, error) {
		link := filepath.Join(point, fs.AnewPath(uri))
		to := make([]byte, 4096) // PATH_MAX: os.Readlink tries with less, and each try asks anew
		n, err := syscall.Readlink(link, to)
		if err != nil {
			return placed{}, err
		}
		target := string(to[:n])
		at := placed{Path: filepath.Join(filepath.Dir(link), target), How: placedMount, Mount: point, Otherwise: fs.Otherwise(target)}
		_, err = os.Stat(at.Path)
		return at, err
	})
}

// ofMount gives what a mount answers. It takes as long as the mount's server does, while
// the mount answers other questions.
func ofMount[T any](ctx context.Context, point string, ask func() (T, error)) (answer T, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		for ctx.Err() == nil {
			if _, err := readScope(ctx, point); err != nil {
				cancel(fmt.Errorf("it does not answer: %w", err))
			}
			time.Sleep(statusWait)
		}
	}()
	answer, err = within(ctx, longestWait, ask)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return answer, err
}

// longestWait is how long a mount may ask its server for the way to one artifact.
const longestWait = 10 * time.Minute

// readScope asks the mount at point for its scope.
func readScope(ctx context.Context, point string) (string, error) {
	return within(ctx, statusWait, func() (string, error) {
		b, err := os.ReadFile(filepath.Join(point, fs.ScopeFile))
		return string(b), err
	})
}

// scope tells what a mount of this configuration shows, and as whom: it is a hash, of no
// secret, and is given to this user alone.
func (c *ClientConfig) scope() string {
	h := sha256.New()
	for _, uri := range []string{c.Server.TrackingURI, cmp.Or(c.Server.RegistryURI, meta.DefaultRegistryURI(c.Server.TrackingURI))} {
		fmt.Fprintf(h, "%q %q %q\n", rest.Redact(absoluteStore(uri)), rest.Asker(uri, c.Env), meta.Identity(absoluteStore(uri), c.Env))
	}
	fmt.Fprintf(h, "%q %q %q %q %v\n", storeScope(c.Env), c.Artifacts.Access, c.Artifacts.AllowAddress, [][]string{c.Artifacts.AllowStore, c.Artifacts.WebHDFS}, c.Server.Offline)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// absoluteStore is a tracking URI, of which a path of this machine is absolute.
func absoluteStore(uri string) string {
	if uri == "" {
		uri = meta.DefaultTrackingURI()
	}
	scheme, path, ok := strings.Cut(uri, ":")
	switch {
	case rest.IsDatabricks(uri):
		return uri
	case !ok:
		scheme, path = "", uri
	case strings.HasPrefix(strings.ToLower(scheme), "sqlite"): // sqlite+pysqlite, too
		scheme, path = "sqlite", strings.TrimPrefix(path, "///")
	default:
		return strings.TrimRight(uri, "/")
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return scheme + ":" + path
}

// findMount is the mount point of this user's mount of a scope; empty where there is
// none that answers. One that does not is waited for only where no other is of the scope.
func findMount(ctx context.Context, scope string, log *slog.Logger) string {
	points, err := fusefs.OwnMounts()
	if err != nil {
		log.Warn("the mounts of this machine can't be seen", "err", err)
		return ""
	}
	type answer struct {
		point, scope string
		err          error
	}
	answers := make(chan answer, len(points))
	for _, point := range points {
		go func() {
			said, err := readScope(ctx, point)
			answers <- answer{point, said, err}
		}()
	}
	var silent []string
	for range points {
		switch a := <-answers; {
		case a.err == nil && a.scope == scope:
			return a.point
		case errors.Is(a.err, context.DeadlineExceeded):
			silent = append(silent, a.point)
		}
	}
	if len(silent) > 0 {
		log.Warn("mounts that do not answer are passed over", "mountpoints", silent)
	}
	return ""
}
