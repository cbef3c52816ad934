package fusefs

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/fs"
)

// soak reports whether the long form of a test is asked for.
func soak() bool { return os.Getenv("MLFLOWFS_SOAK") != "" }

// eventually waits until cond holds. It ends the test if that takes more than a
// minute; what names the condition.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// mounted mounts a tree for one test and returns the mount point.
func mounted(t *testing.T, root *fs.Node, opt MountOptions) (string, *Mounted) {
	t.Helper()
	point := t.TempDir()
	if opt.Log == nil {
		opt.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	m, err := Mount(point, root, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, m) })
	return point, m
}

// unmount takes the mount away and waits for the end of what it started.
func unmount(t *testing.T, m *Mounted) {
	t.Helper()
	if _, err := m.Unmount(); err != nil {
		t.Error(err)
	}
	m.Wait()
}

// fixed is a directory whose entries never change.
type fixed []fs.Entry

func (d fixed) Lookup(_ context.Context, name string) (*fs.Node, error) {
	for _, e := range d {
		if e.Name == name {
			return e.Node, nil
		}
	}
	return nil, os.ErrNotExist
}

func (d fixed) List(context.Context) (fs.Listing, error) {
	e := entries(d)
	return &e, nil
}

// entries is a listing that is known whole.
type entries []fs.Entry

func (e *entries) Next(context.Context) (fs.Entry, error) {
	if len(*e) == 0 {
		return fs.Entry{}, io.EOF
	}
	first := (*e)[0]
	*e = (*e)[1:]
	return first, nil
}

// text is a file, and its own handle, whose content is known.
type text string

func (s text) Open(context.Context) (fs.Handle, error) { return s, nil }
func (s text) Close() error                            { return nil }
func (s text) Identity() string                        { return string(s) }
func (s text) Proof() string                           { return string(s) }

func (s text) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return strings.NewReader(string(s)).ReadAt(p, off)
}

// sized is a node of a text.
func sized(s string) *fs.Node {
	return &fs.Node{File: text(s), Size: int64(len(s)), Stamp: s}
}
