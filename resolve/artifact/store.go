package artifact

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

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
	List(ctx context.Context, dir string) ([]Entry, error)

	// ReadRange asks for n bytes of a file from off; see cache.Source.
	ReadRange(ctx context.Context, path string, off, n int64) (*cache.Body, error)
}

// Opener is a Store whose files are files of this machine, which need no
// cache of ours.
type Opener interface {
	Open(path string) (*os.File, error)
}

// Entry is one name in a directory.
type Entry struct {
	Name  string
	IsDir bool
	Size  int64 // bytes; of a file
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

// Clean sorts entries by name and leaves out what can't be shown in a
// directory: a malformed or hostile name, a second entry of one name, a
// negative size. Each of these has one line in the log.
func Clean(log *slog.Logger, dir string, entries []Entry) []Entry {
	slices.SortStableFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	out := entries[:0]
	for _, e := range entries {
		why := BadName(e.Name)
		switch {
		case why != "":
		case e.Size < 0:
			why = "has a negative size"
		case len(out) > 0 && out[len(out)-1].Name == e.Name:
			why = "stands there twice"
		}
		if why != "" {
			name := e.Name
			if len(name) > MaxName {
				name = name[:MaxName] + "…"
			}
			log.Warn("an entry of a listing is left out: it "+why, "directory", dir, "name", name)
			continue
		}
		out = append(out, e)
	}
	return out
}
