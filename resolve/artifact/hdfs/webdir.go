package hdfs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
)

// webDir is a directory of a cluster by WebHDFS. A file is known as by HDFS's own protocol:
// see attributes.
type webDir struct {
	c   *webCluster
	opt artifact.RemoteOptions
}

var _ artifact.Store = (*webDir)(nil)

// ID is the directory's URI, with the user.
func (d *webDir) ID() string { return strings.TrimRight(d.opt.ID, "/") }

// full is the path in the cluster of what lies at p: below the root, whatever p is.
func (d *webDir) full(p string) string {
	return path.Join("/"+d.opt.Root, path.Clean("/"+p))
}

func (d *webDir) fail(p string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", strings.TrimRight(strings.TrimRight(d.opt.URI, "/")+"/"+p, "/"), err)
}

// webStatus is what WebHDFS tells of a name (FileStatus).
type webStatus struct {
	Name     string `json:"pathSuffix"`
	Type     string `json:"type"` // FILE, DIRECTORY or SYMLINK
	Length   int64  `json:"length"`
	Modified int64  `json:"modificationTime"`
	ID       int64  `json:"fileId"`
}

func (s webStatus) entry() artifact.Entry {
	if s.Type == "DIRECTORY" {
		return artifact.Entry{Name: s.Name, IsDir: true}
	}
	return artifact.Entry{Name: s.Name, Size: s.Length, Mtime: time.UnixMilli(s.Modified), Version: fmt.Sprintf("%d-%d-%d", s.ID, s.Modified, s.Length)}
}

// List reads the directory, page by page.
func (d *webDir) List(ctx context.Context, dir string) (artifact.Tree, error) {
	entries, err := d.list(ctx, d.full(dir))
	if err != nil {
		return nil, d.fail(dir, err)
	}
	return artifact.Tree{dir: entries}, nil
}

func (d *webDir) list(ctx context.Context, at string) (entries []artifact.Entry, err error) {
	query := url.Values{}
	for {
		var page struct {
			Listing struct {
				Part struct {
					Statuses struct {
						Of []webStatus `json:"FileStatus"`
					} `json:"FileStatuses"`
				} `json:"partialListing"`
				Remaining int64 `json:"remainingEntries"`
			} `json:"DirectoryListing"`
		}
		if err := d.c.answer(ctx, at, "LISTSTATUS_BATCH", query, &page); err != nil {
			return nil, err
		}
		found := page.Listing.Part.Statuses.Of
		for _, s := range found {
			switch {
			case s.Name == "":
				return nil, fmt.Errorf("it is no directory: %w", fs.ErrNotExist)
			case s.Type != "FILE" && s.Type != "DIRECTORY":
				d.opt.Log.Warn("an entry of a listing is left out: it is neither a file nor a directory", "directory", d.opt.URI, "name", s.Name)
			default:
				entries = append(entries, s.entry())
			}
		}
		if page.Listing.Remaining <= 0 {
			return entries, nil
		}
		if len(found) == 0 || found[len(found)-1].Name <= query.Get("startAfter") {
			return nil, errors.New("the name node's listing does not go on")
		}
		if len(entries) > maxListing {
			return nil, fmt.Errorf("the directory has more than %d names", maxListing)
		}
		query.Set("startAfter", found[len(found)-1].Name)
	}
}

// Stat asks for the one name.
func (d *webDir) Stat(ctx context.Context, p string) (artifact.Entry, error) {
	e, err := d.stat(ctx, d.full(p))
	e.Name = path.Base(path.Clean("/" + p))
	return e, d.fail(p, err)
}

func (d *webDir) stat(ctx context.Context, at string) (artifact.Entry, error) {
	var said struct {
		Status webStatus `json:"FileStatus"`
	}
	if err := d.c.answer(ctx, at, "GETFILESTATUS", nil, &said); err != nil {
		return artifact.Entry{}, err
	}
	if t := said.Status.Type; t != "FILE" && t != "DIRECTORY" {
		return artifact.Entry{}, fmt.Errorf("it is neither a file nor a directory: %w", fs.ErrNotExist)
	}
	return said.Status.entry(), nil
}

// ReadRange asks for a range of a file. Once its first byte has come, the data node has
// opened what the path named by then: what the path names behind that tells which content
// it is, since no two files of a cluster have one number.
//
// A data node looks up ten blocks at a time, by the path (dfs.client.read.prefetch.size):
// a range that goes on behind those, of a file that is replaced just then, is not seen.
func (d *webDir) ReadRange(ctx context.Context, file string, off, n int64, validator string) (*cache.Body, error) {
	at := d.full(file)
	body, err := d.read(ctx, at, off, n, validator)
	if validator != "" && errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: it is there no more", cache.ErrChanged)
	}
	return body, d.fail(file, err)
}

func (d *webDir) read(ctx context.Context, at string, off, n int64, validator string) (*cache.Body, error) {
	if validator == "" {
		e, err := d.stat(ctx, at)
		if err != nil {
			return nil, err
		}
		if e.IsDir {
			return nil, fmt.Errorf("it is no file: %w", fs.ErrNotExist)
		}
		validator = e.Version
	}
	resp, err := d.c.open(ctx, at, off, n)
	if err != nil {
		return nil, d.changed(ctx, at, validator, err)
	}
	r := bufio.NewReaderSize(resp.Body, 32<<10)
	_, err = r.Peek(1)
	e, serr := d.stat(ctx, at)
	switch {
	case serr == nil && e.Version != validator:
		err = fmt.Errorf("%w: it was %s and is %s", cache.ErrChanged, validator, e.Version)
	case serr != nil:
		err = serr
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	case err == nil && resp.ContentLength >= 0 && resp.ContentLength != n:
		err = fmt.Errorf("%s was asked for %d bytes and sends %d", resp.Request.URL.Host, n, resp.ContentLength)
	}
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return &cache.Body{ReadCloser: &webBody{io.LimitReader(r, n), resp.Body}, Total: e.Size, Validator: e.Version}, nil
}

// changed is why a file could not be opened: a range behind the end of one that is shorter
// now is an error like any other to a name node.
func (d *webDir) changed(ctx context.Context, at, validator string, err error) error {
	if ctx.Err() != nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	if e, serr := d.stat(ctx, at); serr == nil && e.Version != validator {
		return fmt.Errorf("%w: it was %s and is %s", cache.ErrChanged, validator, e.Version)
	}
	return err
}

// webBody is what a data node sends.
type webBody struct {
	io.Reader
	io.Closer
}
