package fs

import (
	"context"
	"io"
	iofs "io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// asFS is a tree as an io/fs.FS, so that testing/fstest can judge it.
type asFS struct{ root *Node }

var (
	_ iofs.FS         = asFS{}
	_ iofs.ReadLinkFS = asFS{}
)

// walk finds a node; links in the middle are followed, the last one is not.
func (f asFS) walk(name string) (*Node, error) {
	if !iofs.ValidPath(name) {
		return nil, iofs.ErrInvalid
	}
	n, at := f.root, "."
	if name == "." {
		return n, nil
	}
	for i, part := range strings.Split(name, "/") {
		if i > 0 && n.Link != "" {
			var err error
			if n, err = f.follow(at, n); err != nil {
				return nil, err
			}
		}
		if n.Dir == nil {
			return nil, iofs.ErrNotExist
		}
		child, err := n.Dir.Lookup(context.Background(), part)
		if err != nil {
			return nil, err
		}
		n, at = child, path.Join(at, part)
	}
	return n, nil
}

func (f asFS) follow(at string, n *Node) (*Node, error) {
	for n.Link != "" {
		at = path.Join(path.Dir(at), n.Link)
		var err error
		if n, err = f.walk(at); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (f asFS) Open(name string) (iofs.File, error) {
	n, err := f.walk(name)
	if err == nil {
		n, err = f.follow(name, n)
	}
	if err != nil {
		return nil, &iofs.PathError{Op: "open", Path: name, Err: err}
	}
	o := &openNode{info: info{path.Base(name), n}}
	if n.File != nil {
		o.h, err = n.File.Open(context.Background())
	}
	return o, err
}

func (f asFS) ReadLink(name string) (string, error) {
	n, err := f.walk(name)
	if err == nil && n.Link == "" {
		err = iofs.ErrInvalid
	}
	if err != nil {
		return "", &iofs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return n.Link, nil
}

func (f asFS) Lstat(name string) (iofs.FileInfo, error) {
	n, err := f.walk(name)
	if err != nil {
		return nil, &iofs.PathError{Op: "lstat", Path: name, Err: err}
	}
	return info{path.Base(name), n}, nil
}

type info struct {
	name string
	n    *Node
}

func (i info) Name() string                 { return i.name }
func (i info) Size() int64                  { return sizeOf(i.n) }
func (i info) ModTime() time.Time           { return i.n.Mtime }
func (i info) IsDir() bool                  { return i.n.Dir != nil }
func (i info) Sys() any                     { return nil }
func (i info) Type() iofs.FileMode          { return i.Mode().Type() }
func (i info) Info() (iofs.FileInfo, error) { return i, nil }

func (i info) Mode() iofs.FileMode {
	switch {
	case i.n.Dir != nil:
		return iofs.ModeDir | 0o755
	case i.n.Link != "":
		return iofs.ModeSymlink | 0o777
	}
	return 0o644
}

// sizeOf is the size that a program sees of a file that it has open: of one that is made
// when it is opened, all of it is made for that.
func sizeOf(n *Node) int64 {
	later, ok := n.File.(*laterTable)
	if !ok {
		return n.Size
	}
	h, err := later.Open(context.Background())
	if err != nil {
		return n.Size
	}
	defer h.Close()
	size, whole := later.Size()
	for at := int64(0); !whole && err == nil; {
		at, whole, err = later.Grow(context.Background(), at)
		size = at
	}
	return size
}

type openNode struct {
	info info
	h    Handle
	off  int64
	left []iofs.DirEntry
	read bool
}

func (o *openNode) Stat() (iofs.FileInfo, error) { return o.info, nil }

func (o *openNode) Read(p []byte) (int, error) {
	if o.h == nil {
		return 0, iofs.ErrInvalid
	}
	n, err := o.h.ReadAt(context.Background(), p, o.off)
	o.off += int64(n)
	return n, err
}

func (o *openNode) Close() error {
	if o.h == nil {
		return nil
	}
	return o.h.Close()
}

func (o *openNode) ReadDir(n int) ([]iofs.DirEntry, error) {
	if !o.read {
		o.read = true
		l, err := o.info.n.Dir.List(context.Background())
		for err == nil {
			var e Entry
			if e, err = l.Next(context.Background()); err == nil && e.Later {
				e.Node, err = o.info.n.Dir.Lookup(context.Background(), e.Name)
			}
			if err == nil {
				o.left = append(o.left, info{e.Name, e.Node})
			}
		}
		if err != io.EOF {
			return nil, err
		}
		if n <= 0 {
			slices.SortFunc(o.left, func(a, b iofs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
		}
	}
	out := o.left
	if n > 0 {
		if len(out) == 0 {
			return nil, io.EOF
		}
		out = out[:min(n, len(out))]
	}
	o.left = o.left[len(out):]
	return out, nil
}
