package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"gocloud.dev/blob"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Blob is a directory in an object store.
type Blob struct {
	uri    string // as it may be shown
	prefix string // of the keys in it: ends in a slash, or is empty
	open   func(ctx context.Context, fresh bool) (*Bucket, error)
	most   int // pages of a listing
}

var (
	_ Store  = (*Blob)(nil)
	_ stater = (*Blob)(nil)
)

// NewBlob makes a store of the directory root in a bucket, which open gives
// whenever it is needed; fresh says that its credentials were refused, and asks
// for one with those that can be found now, or the same where that is all too
// soon. uri is both, as it may be shown.
//
// root is a key as it is written: but for one slash at its end, nothing of it is
// changed, for an object store has keys with // and dots in them.
func NewBlob(uri, root string, open func(ctx context.Context, fresh bool) (*Bucket, error)) *Blob {
	if root != "" && !strings.HasSuffix(root, "/") {
		root += "/"
	}
	return &Blob{strings.TrimSuffix(uri, "/"), root, open, maxPages}
}

// ID is the directory's URI.
func (b *Blob) ID() string { return b.uri }

func (b *Blob) key(p string) string { return b.prefix + p }

// onePage is how many objects a listing's answer holds, at most.
const onePage = 1000

// List asks for everything below the directory. What fits in one page is the
// whole tree; else the directory alone is asked for.
func (b *Blob) List(ctx context.Context, dir string) (Tree, error) {
	prefix := b.prefix
	if dir != "" && dir != "." {
		prefix = b.key(dir) + "/"
	}
	bucket, err := b.open(ctx, false)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.uri, err)
	}
	if !bucket.Shallow {
		all, next, err := b.page(ctx, prefix, "", blob.FirstPageToken)
		if err == nil && len(next) == 0 {
			return plant(dir, prefix, all), nil
		}
		if err != nil {
			return nil, err
		}
	}
	var all []object
	if err := b.pages(ctx, prefix, func(some []object) (more bool) {
		all = append(all, some...)
		return true
	}); err != nil {
		return nil, err
	}
	return Tree{dir: plant(dir, prefix, all)[dir]}, nil
}

// Stat asks for the one name: what begins with a key is listed in order, first of
// all the key itself, and then what may stand before the directory of that name.
func (b *Blob) Stat(ctx context.Context, file string) (Entry, error) {
	key := b.key(file)
	e := Entry{Name: path.Base(file), IsDir: true}
	if file == "" || file == "." {
		return e, nil
	}
	found := false
	err := b.pages(ctx, key, func(some []object) (more bool) {
		for _, o := range some {
			switch {
			case o.key == key:
				e, found = o.entry(e.Name), true
				continue
			case o.key == key+"/":
				e, found = Entry{Name: e.Name, IsDir: true}, true
			case o.key < key+"/":
				continue
			}
			return false
		}
		return true
	})
	if err == nil && !found {
		err = fmt.Errorf("%s/%s: %w", b.uri, file, fs.ErrNotExist)
	}
	return e, err
}

// maxPages is how many pages a listing has, of a store that is right: ten million
// objects.
const maxPages = 10_000

// pages gives f the objects of a directory, and those whose keys begin as it, page by
// page, for as long as it wants more.
func (b *Blob) pages(ctx context.Context, prefix string, f func([]object) (more bool)) error {
	token := blob.FirstPageToken
	for range b.most {
		some, next, err := b.page(ctx, prefix, "/", token)
		if err != nil || !f(some) || len(next) == 0 {
			return err
		}
		token = next
	}
	return fmt.Errorf("%s: a listing has more than %d pages", b.uri, b.most)
}

// object is an object as it is listed, or a common prefix, whose key ends in a
// slash.
type object struct {
	key, version string
	size         int64
	mtime        time.Time
}

func (o *object) entry(name string) Entry {
	return Entry{Name: name, Size: o.size, Version: o.version, Mtime: o.mtime}
}

func (b *Blob) page(ctx context.Context, prefix, delimiter string, token []byte) ([]object, []byte, error) {
	bucket, err := b.open(ctx, false)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", b.uri, err)
	}
	objects, next, err := b.pageOf(ctx, bucket, prefix, delimiter, token)
	if fresh := b.renewed(ctx, bucket, err); fresh != nil {
		objects, next, err = b.pageOf(ctx, fresh, prefix, delimiter, token)
	}
	if err != nil {
		return nil, nil, b.fail(bucket, "", err, "")
	}
	return objects, next, nil
}

// renewed gives a bucket with newer credentials, where err says that those of
// bucket are refused and there are others; else nil.
func (b *Blob) renewed(ctx context.Context, bucket *Bucket, err error) *Bucket {
	if err == nil {
		return nil
	}
	status, code, _ := bucket.Refusal(err)
	if status != http.StatusUnauthorized && status != http.StatusForbidden && code != "ExpiredToken" && code != "TokenRefreshRequired" {
		return nil
	}
	fresh, err := b.open(ctx, true)
	if err != nil || fresh == bucket {
		return nil
	}
	return fresh
}

func (b *Blob) pageOf(ctx context.Context, bucket *Bucket, prefix, delimiter string, token []byte) ([]object, []byte, error) {
	w := bucket.Settings.Watch(ctx, "listing "+b.uri)
	var listed []*blob.ListObject
	var next []byte
	err := bucket.twice(func() (err error) {
		listed, next, err = bucket.ListPage(w.Context(), token, onePage, &blob.ListOptions{
			Prefix: prefix, Delimiter: delimiter,
			BeforeList: func(as func(any) bool) error { return bucket.BeforeList(as, prefix) },
		})
		return err
	})
	if err := w.End(err); err != nil {
		return nil, nil, err
	}
	answered(ctx)
	out := make([]object, len(listed))
	for i, o := range listed {
		key, version := bucket.Object(o)
		out[i] = object{key, version, o.Size, o.ModTime}
	}
	return out, next, nil
}

// plant makes a tree of objects below prefix, which is the key of dir. An
// object whose key ends in a slash is a directory's marker; one that has content
// can't be shown, as it has no name.
func plant(dir, prefix string, objects []object) Tree {
	tree := Tree{dir: nil}
	seen := map[string]bool{}
	for i := range objects {
		o := &objects[i]
		rel, ok := strings.CutPrefix(o.key, prefix)
		if ok && rel == "" && o.size > 0 {
			tree[dir] = append(tree[dir], o.entry(""))
		}
		if !ok || rel == "" {
			continue
		}
		rel, isDir := strings.CutSuffix(rel, "/")
		at := dir
		for {
			name, rest, more := strings.Cut(rel, "/")
			if !more && !isDir {
				tree[at] = append(tree[at], o.entry(name))
				break
			}
			below := at + "/" + name
			if at == "" {
				below = name
			}
			bad := BadName(name) != ""
			if !seen[below] {
				seen[below] = true
				tree[at] = append(tree[at], Entry{Name: name, IsDir: true})
				if !bad {
					tree[below] = append([]Entry{}, tree[below]...)
				}
			}
			if !bad && !more && o.size > 0 {
				tree[below] = append(tree[below], o.entry(""))
			}
			if bad || !more {
				break // a bad name is left out, with all that is below it
			}
			at, rel = below, rest
		}
	}
	return tree
}

// ReadRange reads an object, pinned to the validator where there is one.
func (b *Blob) ReadRange(ctx context.Context, file string, off, n int64, validator string) (*cache.Body, error) {
	bucket, err := b.open(ctx, false)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.uri, err)
	}
	rc, a, err := b.readFrom(ctx, bucket, file, off, n, validator)
	if fresh := b.renewed(ctx, bucket, err); fresh != nil {
		rc, a, err = b.readFrom(ctx, fresh, file, off, n, validator)
	}
	if err != nil {
		return nil, b.fail(bucket, file, err, validator)
	}
	body := &cache.Body{ReadCloser: rc, Total: a.Size, Validator: a.Version, Sums: a.Sums}
	if a.ContentRange == "" {
		body.Whole = true
		return body, nil
	}
	if err := heldTo(a.ContentRange, off, n); err != nil && a.Size >= off+n { // a changed size is the cache's to see
		body.Close()
		return nil, err
	}
	return body, nil
}

func (b *Blob) readFrom(ctx context.Context, bucket *Bucket, file string, off, n int64, validator string) (rc io.ReadCloser, a Answer, err error) {
	w := bucket.Settings.Watch(ctx, "reading "+b.uri)
	err = bucket.twice(func() (err error) {
		rc, a, err = bucket.read(w.Context(), b.key(file), validator, off, n)
		return err
	})
	if err != nil {
		return nil, a, w.End(err)
	}
	return w.Body(rc), a, nil
}

// fail gives an error of a store the meaning that it has here. file is empty
// for a listing.
func (b *Blob) fail(bucket *Bucket, file string, err error, validator string) error {
	what := strings.TrimRight(b.uri+"/"+file, "/")
	status, code, words := bucket.Refusal(err)
	switch {
	case status == 0:
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // an io.EOF means the end of a file to those above
		}
		return fmt.Errorf("%s: %w", what, rest.HideQuery(err))
	case status == http.StatusPreconditionFailed, status == http.StatusRequestedRangeNotSatisfiable,
		status == http.StatusNotFound && validator != "":
		return fmt.Errorf("%s: %w: %s %s", what, cache.ErrChanged, code, words)
	case status == http.StatusNotFound && file == "": // a listing finds no bucket, or nothing
		return fmt.Errorf("%s: %w: %s %s", what, ErrNoBucket, code, words)
	}
	return &rest.Error{What: what, Status: status, Code: code, Message: words}
}
