package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve"
)

// artifactsDir is a directory of artifacts.
type artifactsDir struct {
	t  *tree
	o  *resolve.Dir
	at string // its URI, as MLflow writes it

	// inModel says that it is a model's, or one below: a file of it that is
	// touched will be read whole.
	inModel bool
}

var (
	_ Dir     = artifactsDir{}
	_ Settled = artifactsDir{}

	_ Described = artifactsDir{}
	_ Described = artifactFile{}
)

// Attributes are the directory's URI, and the run or the version that it names.
func (d artifactsDir) Attributes() map[string]string { return attributesOf(d.at) }

func attributesOf(uri string) map[string]string {
	out := map[string]string{"uri": uri}
	u, named, err := resolve.ParseURI(uri)
	switch {
	case err != nil || !named:
	case u.RunID != "":
		out["run_id"] = u.RunID
	case u.Version != "" && u.Prompt:
		out["prompt_version"] = u.Name + "/" + u.Version
	case u.Version != "":
		out["model_version"] = u.Name + "/" + u.Version
	case u.ModelID != "":
		out["model_id"] = u.ModelID
	}
	return out
}

// Attributes are those of a directory, and the file's validator, where its store
// gives one, and how many of its bytes are in the cache.
func (f artifactFile) Attributes() map[string]string {
	out := attributesOf(f.d.at + "/" + f.it.Name)
	if f.it.Version != "" {
		out["etag"] = f.it.Version
	}
	if !f.it.Store.Local() {
		out["cached_bytes"] = strconv.FormatInt(f.d.t.cache.Here(f.it.Key()), 10)
	}
	return out
}

func (d artifactsDir) Settled() bool { return d.o.Final }

func (d artifactsDir) Lookup(ctx context.Context, name string) (*Node, error) {
	it, err := d.t.r.Lookup(ctx, d.o, name)
	if err != nil {
		return nil, err
	}
	if !d.inModel { // the listing that has just been looked into tells
		m, err := d.t.r.Lookup(ctx, d.o, resolve.ModelFile)
		d.inModel = err == nil && m.Dir == nil
	}
	return d.node(it), nil
}

func (d artifactsDir) List(ctx context.Context) (Listing, error) {
	items, err := d.t.r.List(ctx, d.o)
	if err != nil {
		return nil, err
	}
	d.inModel = d.inModel || items.Model()
	return &itemListing{d, items}, nil
}

// artifacts is the directory of an origin, which uri names, that is resolved when
// somebody looks into it.
func (t *tree) artifacts(uri string, origin func(context.Context) (resolve.Dir, error)) Dir {
	return originDir{lazyDir(func(ctx context.Context) (Dir, error) {
		o, err := origin(ctx)
		return artifactsDir{t: t, o: &o, at: uri}, err
	}), uri}
}

// originDir is the root of an origin, which need not be resolved to tell its URI.
type originDir struct {
	lazyDir
	uri string
}

var _ Described = originDir{}

func (d originDir) Attributes() map[string]string { return attributesOf(d.uri) }

// itemListing makes a node of each item when it is asked for.
type itemListing struct {
	d     artifactsDir
	items *resolve.Lister
}

var _ Listing = (*itemListing)(nil)

func (l *itemListing) Next(context.Context) (Entry, error) {
	it, ok := l.items.Next()
	if !ok {
		return Entry{}, io.EOF
	}
	return Entry{it.Name, l.d.node(it)}, nil
}

func (d artifactsDir) node(it resolve.Item) *Node {
	n := &Node{Mtime: d.o.Mtime, TTL: d.t.r.TTL(d.o.Final)}
	switch {
	case it.Dir != nil:
		n.Dir = artifactsDir{d.t, it.Dir, d.at + "/" + it.Name, d.inModel}
	case it.Store == nil:
		c := sized(it.Content)
		n.File, n.Size, n.Stamp = c.File, c.Size, c.Stamp
		if !it.Mtime.IsZero() {
			n.Mtime = it.Mtime
		}
	default:
		n.File, n.Size, n.Stamp = artifactFile{d, it}, it.Size, it.Version
		if n.Stamp == "" && !it.Mtime.IsZero() {
			n.Stamp = strconv.FormatInt(it.Mtime.UnixNano(), 36)
		}
	}
	return n
}

// artifactFile is a file in a store.
type artifactFile struct {
	d  artifactsDir
	it resolve.Item
}

var _ File = artifactFile{}

func (f artifactFile) Open(context.Context) (Handle, error) {
	if f.it.Size > cache.MaxSize {
		return nil, fmt.Errorf("%d bytes: %w", f.it.Size, ErrTooLarge)
	}
	if f.it.Store.Local() {
		return f.openLocal()
	}
	f.it = f.it.Pinned()
	key := f.it.Key()
	h := &cachedHandle{f: f, File: f.d.t.cache.Open(key, f.it, f.it.Known())}
	h.Whole = f.d.inModel || weights[strings.ToLower(path.Ext(f.it.Name))]
	h.location = key.Location
	h.identity = fmt.Sprintf("%s\x00%d\x00%s\x00%d", key.Location, key.Size, key.Version, h.Generation())
	return h, nil
}

// weights are the endings of files that hold a model's weights, wherever they
// lie. A file with one of them is read whole once it is touched.
var weights = map[string]bool{
	".safetensors": true, ".gguf": true, ".pt": true, ".pth": true, ".ckpt": true,
	".onnx": true, ".h5": true, ".keras": true, ".npz": true,
}

// cachedHandle reads through the cache.
type cachedHandle struct {
	*cache.File
	f         artifactFile
	identity  string
	location  string // of the key
	forgotten atomic.Bool
	read      atomic.Bool
}

var (
	_ Handle = (*cachedHandle)(nil)
	_ Proven = (*cachedHandle)(nil)
	_ Backed = (*cachedHandle)(nil)
	_ Ahead  = (*cachedHandle)(nil)
)

func (h *cachedHandle) Identity() string { return h.identity }

func (h *cachedHandle) Proof() string {
	proof := h.File.Proof()
	if proof == "" {
		return ""
	}
	return fmt.Sprintf("%s\x00%d\x00%s", h.location, h.Size(), proof)
}

func (h *cachedHandle) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if !h.read.Swap(true) {
		h.f.d.t.siblings.begin(h.f)
	}
	n, err := h.File.ReadAt(ctx, p, off)
	if errors.Is(err, cache.ErrChanged) && h.forgotten.CompareAndSwap(false, true) {
		h.f.d.t.r.Forget(h.f.it.Store, h.f.it.Path) // the next look-up sees what is there now
	}
	return n, err
}

// localHandle reads a file of this machine. One that is not to change any
// more is held to what it was when it was opened.
type localHandle struct {
	f        artifactFile
	file     *os.File
	identity string
}

var (
	_ Handle = (*localHandle)(nil)
	_ Proven = (*localHandle)(nil)
)

func (f artifactFile) openLocal() (Handle, error) {
	file, err := f.it.Store.Open(f.it.Path)
	if err != nil {
		return nil, err
	}
	st, err := file.Stat()
	if err == nil && st.Size() < f.it.Size {
		f.d.t.r.Forget(f.it.Store, f.it.Path)
		err = fmt.Errorf("%w: it has %d bytes now and was listed with %d", cache.ErrChanged, st.Size(), f.it.Size)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &localHandle{f, file, stamp(st)}, nil
}

// stamp is the identity of a local file's content.
func stamp(st os.FileInfo) string { return fmt.Sprint(st.Size(), " ", st.ModTime().UnixNano()) }

func (h *localHandle) Identity() string { return h.identity }
func (h *localHandle) Proof() string    { return h.f.it.Path + "\x00" + h.identity }

func (h *localHandle) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	n, err := h.file.ReadAt(p, off)
	if h.f.it.Final && (err == nil || err == io.EOF) {
		st, serr := h.file.Stat()
		if serr != nil {
			return 0, serr
		}
		if now := stamp(st); now != h.identity {
			h.f.d.t.r.Forget(h.f.it.Store, h.f.it.Path)
			return 0, fmt.Errorf("%w: its size and time were %s and are %s", cache.ErrChanged, h.identity, now)
		}
	}
	return n, err
}

func (h *localHandle) Close() error { return h.file.Close() }
