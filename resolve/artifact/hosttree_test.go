package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
)

// hostTree is a host's file system in memory.
type hostTree struct {
	mu    sync.Mutex // guards what follows
	files map[string]*hostFile
	links map[string]string // of a path, or one that begins with it

	refuse               func() error // to connect; nil: never
	dials, opens, closes atomic.Int64
	hang                 chan struct{} // reads wait until it is closed; nil: none does
}

type hostFile struct {
	content []byte
	version string
	kind    fs.FileMode
	mtime   time.Time
}

func (h *hostTree) host() *Host {
	return NewHost(func(context.Context) (Connection, error) {
		h.dials.Add(1)
		if h.refuse != nil {
			if err := h.refuse(); err != nil {
				return nil, err
			}
		}
		return &hostConn{h: h}, nil
	})
}

// put has a path be a file of some bytes of one letter.
func (h *hostTree) put(path string, letter byte, size int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.files == nil {
		h.files = map[string]*hostFile{}
	}
	h.files[path] = &hostFile{content: bytes.Repeat([]byte{letter}, size), version: fmt.Sprintf("%c-%d", letter, size), mtime: time.Unix(1, 0)}
}

type hostConn struct {
	h      *hostTree
	broken atomic.Bool
}

var errCut = errors.New("it is cut")

func (c *hostConn) Broken() error {
	if c.broken.Load() {
		return errCut
	}
	return nil
}

func (c *hostConn) Close() error { c.broken.Store(true); return nil }

func (c *hostConn) real(p string) string {
	for range 8 {
		for link, to := range c.h.links {
			if rest, ok := strings.CutPrefix(p+"/", link+"/"); ok {
				p = strings.TrimSuffix(to+"/"+rest, "/")
			}
		}
	}
	return p
}

func (c *hostConn) Real(_ context.Context, p string) (string, error) {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	return c.real(p), c.Broken()
}

func (c *hostConn) Stat(_ context.Context, p string) (Attributes, error) {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	if err := c.Broken(); err != nil {
		return Attributes{}, err
	}
	f := c.h.files[c.real(p)]
	if f == nil {
		return Attributes{}, fs.ErrNotExist
	}
	return f.attributes(p), nil
}

func (f *hostFile) attributes(p string) Attributes {
	return Attributes{Type: f.kind, Entry: Entry{Name: p[strings.LastIndexByte(p, '/')+1:], Size: int64(len(f.content)), Version: f.version, Mtime: f.mtime}}
}

func (c *hostConn) List(_ context.Context, dir string) (out []Attributes, err error) {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	for p, f := range c.h.files {
		if name, ok := strings.CutPrefix(p, dir+"/"); ok && !strings.Contains(name, "/") {
			out = append(out, f.attributes(p))
		}
	}
	for p := range c.h.links {
		if name, ok := strings.CutPrefix(p, dir+"/"); ok && !strings.Contains(name, "/") {
			out = append(out, Attributes{Type: fs.ModeSymlink, Entry: Entry{Name: name, Mtime: time.Unix(1, 0)}})
		}
	}
	return out, c.Broken()
}

func (c *hostConn) Open(ctx context.Context, p string) (File, error) {
	a, err := c.Stat(ctx, p)
	if err != nil {
		return nil, err
	}
	c.h.opens.Add(1)
	return &hostOpen{c, c.real(p), a.Entry}, nil
}

// hostOpen reads what the path has now, as a file that is written over in place.
type hostOpen struct {
	c     *hostConn
	path  string
	entry Entry
}

func (f *hostOpen) Entry() Entry { return f.entry }
func (f *hostOpen) Ahead() int   { return 3 }
func (f *hostOpen) Close() error { f.c.h.closes.Add(1); return nil }

func (f *hostOpen) ReadAt(ctx context.Context, p []byte, off int64) error {
	if f.c.h.hang != nil {
		select {
		case <-f.c.h.hang:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	f.c.h.mu.Lock()
	defer f.c.h.mu.Unlock()
	if err := f.c.Broken(); err != nil {
		return err
	}
	if is := f.c.h.files[f.path]; is == nil || copy(p, is.content[off:]) < len(p) {
		return io.ErrUnexpectedEOF
	}
	return nil
}

func (f *hostOpen) Check(ctx context.Context) error {
	if a, err := f.c.Stat(ctx, f.path); err != nil || a.Version != f.entry.Version {
		return errors.Join(err, cache.ErrChanged)
	}
	return nil
}
