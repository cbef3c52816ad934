package artifact

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Workspace is a directory of what a Databricks workspace shows as files: of a volume
// (/Volumes/…) or of a model of Unity Catalog (/Models/…), by its Files API. It lists,
// sends ranges, and signs URLs.
type Workspace struct {
	c    *rest.Client
	root string // without a slash at its end
}

var (
	_ Store  = (*Workspace)(nil)
	_ stater = (*Workspace)(nil)
	_ Signer = (*Workspace)(nil)
)

// NewWorkspace makes a store of the directory root, an absolute path.
func NewWorkspace(c *rest.Client, root string) *Workspace {
	return &Workspace{c, strings.TrimRight(root, "/")}
}

// ID is the directory's address.
func (w *Workspace) ID() string { return w.c.Base().String() + "/api/2.0/fs" + w.root }

func (w *Workspace) full(p string) string { return strings.TrimRight(w.root+"/"+p, "/") }

// List asks for a directory.
func (w *Workspace) List(ctx context.Context, dir string) (Tree, error) {
	at := w.full(dir)
	entries, err := getListing(ctx, w.c, w.c.URL("/api/2.0/fs/directories"+escape(at), nil))
	return Tree{dir: below(at, entries)}, err
}

// Stat asks for a directory of that name, and then for a file.
func (w *Workspace) Stat(ctx context.Context, file string) (Entry, error) {
	e := Entry{Name: path.Base(file), IsDir: true}
	_, err := w.head(ctx, "directories", file)
	if !errors.Is(err, fs.ErrNotExist) {
		return e, err
	}
	resp, err := w.head(ctx, "files", file)
	if err != nil {
		return Entry{}, err
	}
	e.IsDir, e.Size = false, resp.ContentLength
	e.Mtime, _ = http.ParseTime(resp.Header.Get("Last-Modified"))
	return e, nil
}

func (w *Workspace) head(ctx context.Context, kind, file string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, w.c.URL("/api/2.0/fs/"+kind+escape(w.full(file)), nil).String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := w.c.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusNoContent { // which is well, of a directory
		resp.StatusCode = http.StatusOK
	}
	if err := rest.CheckStatus(resp); err != nil {
		return nil, err
	}
	return resp, resp.Body.Close()
}

// ReadRange asks for a range of a file.
func (w *Workspace) ReadRange(ctx context.Context, file string, off, n int64, _ string) (*cache.Body, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.c.URL("/api/2.0/fs/files"+escape(w.full(file)), nil).String(), nil)
	if err != nil {
		return nil, err
	}
	return readHTTP(w.c, req, off, n, "")
}

// Offers is nil: what signs nothing says so when it is asked to.
func (w *Workspace) Offers(context.Context) error { return nil }

// Sign asks for a URL for a file.
func (w *Workspace) Sign(ctx context.Context, file string) (SignedURL, error) {
	var out signedJSON
	if err := w.c.JSON(ctx, "/api/2.0/fs/create-download-url", nil, map[string]any{"path": w.full(file)}, &out); err != nil {
		return SignedURL{}, err
	}
	return out.signed()
}

// DBFS is a directory of a Databricks workspace's DBFS, by the routes that MLflow's client
// takes (mlflow.store.artifact.dbfs_artifact_repo). A file comes as one stream.
type DBFS struct {
	c    *rest.Client
	root string // without a slash at its end
}

var (
	_ Store  = (*DBFS)(nil)
	_ stater = (*DBFS)(nil)
)

// NewDBFS makes a store of the directory root, an absolute path.
func NewDBFS(c *rest.Client, root string) *DBFS { return &DBFS{c, strings.TrimRight(root, "/")} }

// ID is the directory's address.
func (d *DBFS) ID() string { return d.c.Base().String() + "/dbfs" + d.root }

func (d *DBFS) full(p string) string { return strings.TrimRight(d.root+"/"+p, "/") }

// List asks for a directory. Of a file, the answer is the file itself.
func (d *DBFS) List(ctx context.Context, dir string) (Tree, error) {
	at := d.full(dir)
	entries, err := getListing(ctx, d.c, d.c.URL("/api/2.0/dbfs/list", url.Values{"path": {at}}))
	if len(entries) == 1 && !entries[0].IsDir && entries[0].Name == at {
		entries = nil
	}
	return Tree{dir: below(at, entries)}, err
}

// Stat asks for one name.
func (d *DBFS) Stat(ctx context.Context, file string) (Entry, error) {
	var out listedFile
	if err := d.c.JSON(ctx, "/api/2.0/dbfs/get-status", url.Values{"path": {d.full(file)}}, nil, &out); err != nil {
		return Entry{}, err
	}
	e := out.entry()
	e.Name = path.Base(file)
	return e, nil
}

// ReadRange asks for a file.
func (d *DBFS) ReadRange(ctx context.Context, file string, off, n int64, _ string) (*cache.Body, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.c.URL("/dbfs"+escape(d.full(file)), nil).String(), nil)
	if err != nil {
		return nil, err
	}
	return readHTTP(d.c, req, off, n, "")
}
