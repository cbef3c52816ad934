package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/mlflowfs/mlflowfs/cache"
)

// Local is a directory of this machine. Symbolic links are followed as long
// as they stay below it, as MLflow's LocalArtifactRepository follows them;
// those that leave it are refused by os.Root and left out of listings.
type Local struct {
	dir  string
	log  *slog.Logger
	said sync.Once // that it is not on this machine
}

var (
	_ Store  = (*Local)(nil)
	_ opener = (*Local)(nil)
)

// NewLocal makes a store of the directory dir, which need not exist yet: a
// run without artifacts has none.
func NewLocal(dir string, log *slog.Logger) (*Local, error) {
	abs, err := filepath.Abs(dir)
	return &Local{dir: abs, log: log}, err
}

// ID is the directory's absolute path.
func (l *Local) ID() string { return "file:" + l.dir }

func clean(path string) string { return filepath.Clean("./" + filepath.FromSlash(path)) }

// List reads the directory.
func (l *Local) List(_ context.Context, dir string) (Tree, error) {
	root, err := os.OpenRoot(l.dir)
	if err != nil {
		if why := l.elsewhere(); why != "" {
			l.said.Do(func() { l.log.Warn("no artifacts are shown: " + why) })
		}
		return nil, err
	}
	defer root.Close()
	d, err := root.Open(clean(dir))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(names))
	for _, n := range names {
		st, err := root.Stat(filepath.Join(clean(dir), n))
		switch {
		case err != nil:
			l.log.Warn("an entry of a listing is left out", "directory", filepath.Join(l.dir, clean(dir)), "name", n, "err", err)
		case st.IsDir():
			entries = append(entries, Entry{Name: n, IsDir: true})
		case st.Mode().IsRegular():
			entries = append(entries, Entry{Name: n, Size: st.Size(), Mtime: st.ModTime()})
		default:
			l.log.Warn("an entry of a listing is left out: it is neither a file nor a directory", "directory", filepath.Join(l.dir, clean(dir)), "name", n)
		}
	}
	return Tree{dir: entries}, nil
}

// onDemand is how many directories at the end of its path MLflow makes when the
// first artifact is logged: <root>/<experiment>/<run>/artifacts.
const onDemand = 4

// elsewhere says why the directory can't be one that only awaits its first
// artifact, but must be of another machine, or moved; empty where it is there, or
// may come.
func (l *Local) elsewhere() string {
	there := func(dir string) bool {
		_, err := os.Stat(dir)
		return !errors.Is(err, fs.ErrNotExist)
	}
	at := l.dir
	for range onDemand {
		if there(at) {
			return ""
		}
		at = filepath.Dir(at)
	}
	if there(at) {
		return ""
	}
	if p := strings.TrimPrefix(l.dir, "/"); len(p) > 2 && p[1] == ':' && p[2] == '/' {
		return l.dir + " is a path of Windows"
	}
	return l.dir + " is not on this machine: there is no " + at
}

// Open opens a file for reading. It does not wait for who would write to what is a
// pipe by now.
func (l *Local) Open(path string) (*os.File, error) {
	root, err := os.OpenRoot(l.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(clean(path), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, fmt.Errorf("%s is no regular file", path))
	}
	return f, nil
}

// ReadRange reads from the file as it is now; its modification time is the
// validator.
func (l *Local) ReadRange(_ context.Context, path string, off, n int64, _ string) (*cache.Body, error) {
	f, err := l.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &cache.Body{
		ReadCloser: struct {
			io.Reader
			io.Closer
		}{io.NewSectionReader(f, off, n), f},
		Total:     st.Size(),
		Validator: st.ModTime().String(),
	}, nil
}
