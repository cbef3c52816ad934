package artifact

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
)

// Store holds artifacts. Its methods may be called by many at once.
type Store interface {
	// ID identifies the store in the process: two stores with one ID hold the
	// same bytes at the same paths.
	ID() string

	// List gives the entries of a directory, in any order, unchecked: see
	// [Clean]. A directory that is not there is empty or fs.ErrNotExist, as
	// the store can tell.
	List(ctx context.Context, dir string) (Tree, error)

	// ReadRange asks for n bytes of a file from off, which must be of the
	// content that validator names, where it is not empty; see cache.Source.
	ReadRange(ctx context.Context, path string, off, n int64, validator string) (*cache.Body, error)
}

// Tree is the answer to a listing: the entries of the directory that was asked
// for, and of those below it that came with the same answer, by their paths.
type Tree map[string][]Entry

// What only some stores can do. Who uses a store asks its [Router], which knows the
// default for the others.
type (
	// opener is a Store whose files are files of this machine, which need no
	// cache of ours; else there are none to open.
	opener interface {
		Open(path string) (*os.File, error)
	}
	// stater is a Store that can be asked for one name alone; else the listing of
	// its directory is looked into.
	stater interface {
		Stat(ctx context.Context, path string) (Entry, error)
	}
	// checker is a Store that can tell without a listing whether it is offered;
	// else it is.
	checker interface {
		check(ctx context.Context) error
	}
)

// stat asks for one name; fs.ErrNotExist where there is no such file or directory.
func stat(ctx context.Context, s Store, p string) (Entry, error) {
	if st, ok := s.(stater); ok {
		return st.Stat(ctx, p)
	}
	dir, name := path.Split(p)
	dir = strings.TrimSuffix(dir, "/")
	tree, err := s.List(ctx, dir)
	if err != nil {
		return Entry{}, err
	}
	err = fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	var found Entry
	for _, e := range tree[dir] {
		if e.Name == name && (err != nil || e.IsDir) { // of one name, the directory
			found, err = e, nil
		}
	}
	return found, err
}

// Entry is one name in a directory.
type Entry struct {
	Name  string
	IsDir bool
	Size  int64 // bytes; of a file

	// Version is the validator of a file's content, of the kind that
	// ReadRange's bodies have, where a listing tells it; Mtime is when it was
	// written, where a listing tells that.
	Version string
	Mtime   time.Time
}

// MaxName is the longest name that the kernel and its users take, in bytes
// (NAME_MAX).
const MaxName = 255

// BadName says why a name can't stand in a directory, or nothing.
func BadName(name string) string {
	switch {
	case name == "":
		return "has an empty name"
	case name == "." || name == "..":
		return "would be the directory itself or its parent"
	case strings.ContainsRune(name, '/'):
		return "has a slash in its name"
	case strings.ContainsRune(name, 0):
		return "has a NUL in its name"
	case len(name) > MaxName:
		return fmt.Sprintf("has a name of more than %d bytes", MaxName)
	}
	return ""
}

// LeftOut is an entry of a listing that can't be shown.
type LeftOut struct {
	Name, Why string
}

func (l LeftOut) Error() string {
	return fmt.Sprintf("an entry of the listing, %q, is left out: it %s", l.Name, l.Why)
}

var _ error = LeftOut{}

// Clean sorts entries by name and leaves out what can't be shown in a
// directory: a malformed or hostile name, a second entry of one name, a
// negative size. Each of these is said in the log, and given, for who must have
// all or nothing.
//
// An object store may hold a file and a directory of one name. The directory is
// shown, as all that is in it counts for more; a file without content was meant to
// stand for it, and is not missed.
func Clean(log *slog.Logger, dir string, entries []Entry) (shown []Entry, left []LeftOut) {
	slices.SortStableFunc(entries, func(a, b Entry) int {
		switch byName := cmp.Compare(a.Name, b.Name); {
		case byName != 0 || a.IsDir == b.IsDir:
			return byName
		case a.IsDir:
			return -1
		}
		return 1
	})
	shown = entries[:0]
	for _, e := range entries {
		why := BadName(e.Name)
		twice := len(shown) > 0 && shown[len(shown)-1].Name == e.Name
		switch {
		case why != "":
		case e.Size < 0:
			why = "has a negative size"
		case twice && shown[len(shown)-1].IsDir && !e.IsDir && e.Size == 0:
			continue
		case twice && shown[len(shown)-1].IsDir && !e.IsDir:
			why = "is a file that has a directory's name"
		case twice:
			why = "stands there twice"
		}
		if why == "" {
			shown = append(shown, e)
			continue
		}
		left = append(left, LeftOut{e.Name, why})
		log.Warn("an entry of a listing is left out: it "+why, "directory", dir, "name", e.Name)
	}
	return shown, left
}
