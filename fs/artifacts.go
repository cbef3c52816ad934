package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
)

// artifactsDir is a directory of artifacts.
type artifactsDir struct {
	t *tree
	o *resolve.Origin
}

var _ Dir = artifactsDir{}

func (d artifactsDir) Lookup(ctx context.Context, name string) (*Node, error) {
	it, err := d.t.r.Lookup(ctx, d.o, name)
	if err != nil {
		return nil, err
	}
	return d.node(it), nil
}

func (d artifactsDir) List(ctx context.Context) (Listing, error) {
	items, err := d.t.r.List(ctx, d.o)
	if err != nil {
		return nil, err
	}
	return &itemListing{d, items}, nil
}

// artifacts is the directory of an origin that is resolved when somebody looks
// into it.
func (t *tree) artifacts(origin func(context.Context) (resolve.Origin, error)) Dir {
	return lazyDir(func(ctx context.Context) (Dir, error) {
		o, err := origin(ctx)
		return artifactsDir{t, &o}, err
	})
}

// itemListing makes a node of each item when it is asked for.
type itemListing struct {
	d     artifactsDir
	items []resolve.Item
}

var _ Listing = (*itemListing)(nil)

func (l *itemListing) Next(context.Context) (Entry, error) {
	if len(l.items) == 0 {
		return Entry{}, io.EOF
	}
	it := l.items[0]
	l.items = l.items[1:]
	return Entry{it.Name, l.d.node(it)}, nil
}

func (d artifactsDir) node(it resolve.Item) *Node {
	n := &Node{Mtime: d.o.Mtime, TTL: d.t.r.TTL(d.o.Final)}
	switch {
	case it.Dir != nil:
		n.Dir = artifactsDir{d.t, it.Dir}
	case it.Store == nil:
		n.File, n.Size = text(it.Content), it.Size
	default:
		n.File, n.Size = artifactFile{d.t, it}, it.Size
	}
	return n
}

// artifactFile is a file in a store.
type artifactFile struct {
	t  *tree
	it resolve.Item
}

var _ File = artifactFile{}

func (f artifactFile) Open(context.Context) (Handle, error) {
	if o, ok := f.it.Store.(artifact.Opener); ok {
		return f.openLocal(o)
	}
	key := cache.Key{Location: f.it.Store.ID() + "\x00" + f.it.Path, Size: f.it.Size}
	h := &cachedHandle{f: f, File: f.t.cache.Open(key, f, f.it.Final)}
	if f.it.Final {
		h.identity = key.Location + "\x00" + strconv.FormatInt(key.Size, 10)
	}
	return h, nil
}

// ReadRange makes the file a cache.Source.
func (f artifactFile) ReadRange(ctx context.Context, off, n int64) (*cache.Body, error) {
	return f.it.Store.ReadRange(ctx, f.it.Path, off, n)
}

var _ cache.Source = artifactFile{}

// cachedHandle reads through the cache.
type cachedHandle struct {
	*cache.File
	f         artifactFile
	identity  string
	forgotten atomic.Bool
}

var (
	_ Handle     = (*cachedHandle)(nil)
	_ Identified = (*cachedHandle)(nil)
)

func (h *cachedHandle) Identity() string { return h.identity }

func (h *cachedHandle) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := h.File.ReadAt(ctx, p, off)
	if errors.Is(err, cache.ErrChanged) && h.forgotten.CompareAndSwap(false, true) {
		h.f.t.r.Forget(h.f.it.Store, h.f.it.Path) // the next look-up sees what is there now
	}
	return n, err
}

// localHandle reads a file of this machine as it is.
type localHandle struct {
	file     *os.File
	identity string
}

var (
	_ Handle     = (*localHandle)(nil)
	_ Identified = (*localHandle)(nil)
)

func (f artifactFile) openLocal(o artifact.Opener) (Handle, error) {
	file, err := o.Open(f.it.Path)
	if err != nil {
		return nil, err
	}
	st, err := file.Stat()
	if err == nil && st.Size() < f.it.Size {
		f.t.r.Forget(f.it.Store, f.it.Path)
		err = fmt.Errorf("%w: it has %d bytes now and was listed with %d", cache.ErrChanged, st.Size(), f.it.Size)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &localHandle{file, fmt.Sprint(st.Size(), " ", st.ModTime().UnixNano())}, nil
}

func (h *localHandle) Identity() string { return h.identity }

func (h *localHandle) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return h.file.ReadAt(p, off)
}

func (h *localHandle) Close() error { return h.file.Close() }

// text is a file, and its own handle, whose content is known.
type text string

var (
	_ File       = text("")
	_ Handle     = text("")
	_ Identified = text("")
)

func (s text) Open(context.Context) (Handle, error) { return s, nil }
func (s text) Identity() string                     { return "text " + string(s) }
func (s text) Close() error                         { return nil }

func (s text) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	if off >= int64(len(s)) {
		return 0, io.EOF
	}
	n := copy(p, s[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
