package artifact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mlflowfs/mlflowfs/cache"
)

// Remote is a directory in the file system of a [Host]. Symbolic links are followed as
// MLflow's client follows them: wherever they lead on the host, but for a directory that a
// server's word opened, where they lead no further than what the user's settings name.
//
// A file is known by the time of its last change and its size, as fine as its host tells
// the time. What is read is given out once the open file was found unchanged behind it.
type Remote struct {
	host   *Host
	uri    string // as it may be shown
	id     string
	root   string // absolute
	within string // what links must not lead out of; empty: they may lead anywhere
	log    *slog.Logger
}

var (
	_ Store  = (*Remote)(nil)
	_ stater = (*Remote)(nil)
)

// RemoteOptions make a Remote.
type RemoteOptions struct {
	URI    string // as it may be shown
	ID     string // with the user, where the URI names one: two may see two trees
	Root   string // the directory
	Within string // what symbolic links must not lead out of; empty: they may lead anywhere
	Log    *slog.Logger
}

// NewRemote makes a store of a directory of h, which need not exist yet.
func NewRemote(h *Host, opt RemoteOptions) *Remote {
	return &Remote{
		host: h, uri: strings.TrimRight(opt.URI, "/"), id: strings.TrimRight(opt.ID, "/"), root: "/" + strings.Trim(opt.Root, "/"),
		within: strings.TrimRight(opt.Within, "/"), log: opt.Log,
	}
}

// ID is the directory's URI, with the user.
func (r *Remote) ID() string { return r.id }

// full is the path on the host of what lies at p: below the root, whatever p is.
func (r *Remote) full(p string) string {
	return cmp.Or(strings.TrimSuffix(r.root, "/")+strings.TrimSuffix(path.Clean("/"+p), "/"), "/") // an empty one is the user's home to SFTP
}

func (r *Remote) fail(p string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", strings.TrimRight(r.uri+"/"+p, "/"), err)
}

// settle is how old a change must be for the time of it to tell the content from that of
// another change: some hosts tell the time in seconds.
const settle = 2 * time.Second

// List reads the directory.
func (r *Remote) List(ctx context.Context, dir string) (tree Tree, err error) {
	err = r.host.with(ctx, func(c Connection) error {
		at, err := r.enter(ctx, c, r.full(dir))
		if err != nil {
			return err
		}
		found, err := c.List(ctx, at)
		if err != nil {
			return err
		}
		entries, err := r.entries(ctx, c, at, found)
		tree = Tree{dir: entries}
		return err
	})
	if err != nil {
		return nil, r.fail(dir, err)
	}
	return tree, nil
}

// linksAtOnce is how many symbolic links of a directory are followed at once.
const linksAtOnce = 16

// entries are what of a directory can be shown.
func (r *Remote) entries(ctx context.Context, c Connection, dir string, found []Attributes) ([]Entry, error) {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(linksAtOnce)
	for i := range found {
		a := &found[i]
		if a.Type != fs.ModeSymlink || BadName(a.Name) != "" {
			continue
		}
		g.Go(func() error {
			to, err := r.follow(gctx, c, path.Join(dir, a.Name))
			if err != nil && c.Broken() == nil && gctx.Err() == nil {
				r.log.Warn("an entry of a listing is left out: it is a link that leads to nothing here", "directory", r.uri, "name", a.Name, "err", err)
				return nil
			}
			to.Name = a.Name
			*a = to
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(found))
	for _, a := range found {
		e := a.Entry
		switch e.IsDir = a.Type == fs.ModeDir; {
		case a.Type == fs.ModeSymlink && BadName(a.Name) == "":
			continue // the log says why
		case a.Type == fs.ModeDir:
			e = Entry{Name: e.Name, IsDir: true}
		case a.Type != 0:
			r.log.Warn("an entry of a listing is left out: it is neither a file nor a directory", "directory", r.uri, "name", a.Name)
			continue
		case time.Since(e.Mtime) < settle:
			e.Version = ""
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// follow gives what lies at a path, where that is inside.
func (r *Remote) follow(ctx context.Context, c Connection, p string) (Attributes, error) {
	p, err := r.enter(ctx, c, p)
	if err != nil {
		return Attributes{}, err
	}
	return c.Stat(ctx, p)
}

// enter is the path to ask for what lies at p: where links must not lead out of a
// directory, the one without links, which lies in it.
//
// Who changes a directory on the way to a link just then is not seen: SFTP opens paths,
// and nothing below a directory that is open.
func (r *Remote) enter(ctx context.Context, c Connection, p string) (string, error) {
	if r.within == "" {
		return p, nil
	}
	within, err := c.Real(ctx, r.within)
	if err != nil {
		return "", err
	}
	real, err := c.Real(ctx, p)
	if err != nil {
		return "", err
	}
	if real != within && !strings.HasPrefix(real, strings.TrimSuffix(within, "/")+"/") {
		return "", fmt.Errorf("a symbolic link leads out of what --allow-store names: %w", fs.ErrPermission)
	}
	return real, nil
}

// Stat asks for the one name.
func (r *Remote) Stat(ctx context.Context, p string) (e Entry, err error) {
	err = r.host.with(ctx, func(c Connection) error {
		a, err := r.follow(ctx, c, r.full(p))
		if err != nil {
			return err
		}
		if a.Type != 0 && a.Type != fs.ModeDir {
			return fmt.Errorf("it is neither a file nor a directory: %w", fs.ErrNotExist)
		}
		e = a.Entry
		e.Name, e.IsDir = path.Base(path.Clean("/"+p)), a.Type == fs.ModeDir
		if time.Since(e.Mtime) < settle {
			e.Version = ""
		}
		return nil
	})
	return e, r.fail(p, err)
}

// ReadRange reads from one open file, whose content is that which validator names, where
// it is not empty.
func (r *Remote) ReadRange(ctx context.Context, file string, off, n int64, validator string) (body *cache.Body, err error) {
	err = r.host.with(ctx, func(c Connection) error {
		body, err = r.read(ctx, c, file, off, n, validator)
		return err
	})
	if validator != "" && errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: it is there no more", cache.ErrChanged)
	}
	return body, r.fail(file, err)
}

// read gives a body whose first piece has come.
func (r *Remote) read(ctx context.Context, c Connection, file string, off, n int64, validator string) (*cache.Body, error) {
	f, key, err := r.open(ctx, c, file, validator)
	if err != nil {
		return nil, err
	}
	e := f.Entry()
	n = max(min(n, e.Size-off), 0) // a changed size is the cache's to see
	r.host.hold(c)
	b := newPieces(ctx, f, off, n, func(good bool) {
		defer r.host.release(c)
		if good {
			r.host.keep(c, key, f)
		} else {
			go f.Close()
		}
	})
	if err := b.first(); err != nil {
		b.Close()
		return nil, err
	}
	return &cache.Body{ReadCloser: b, Total: e.Size, Validator: e.Version}, nil
}

// open opens a file, or gives one that is open. key names it among those that are.
func (r *Remote) open(ctx context.Context, c Connection, file, validator string) (f File, key string, err error) {
	at := r.full(file)
	key = r.within + "\x00" + at
	if f := r.host.idleOne(c, key, validator); f != nil {
		return f, key, nil
	}
	if at, err = r.enter(ctx, c, at); err != nil {
		return nil, "", err
	}
	if f, err = c.Open(ctx, at); err != nil {
		return nil, "", err
	}
	if is := f.Entry().Version; validator != "" && is != validator {
		go f.Close()
		return nil, "", fmt.Errorf("%w: it was %s and is %s", cache.ErrChanged, validator, is)
	}
	return f, key, nil
}
