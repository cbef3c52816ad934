package artifact

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Door is what a tracking server knows a directory of artifacts as: a run's
// artifact root or a logged model's, or a directory below it.
type Door struct {
	RunID, ModelID string // one of them; or a version of a registered model:
	Model, Version string // which has a door to a Databricks workspace alone
	Dir            string // no slash at either end
}

// Served is a directory that the tracking server reads with its own
// credentials, whatever its scheme, and sends on (artifacts/list and
// get-artifact, or the same of a logged model). Where it lies in a store of
// the server's it is downloaded there as a whole for every request, so that a
// file is asked for whole and once; a directory of the server's own disk
// honours ranges.
type Served struct {
	c      *rest.Client
	door   Door
	ranged bool
}

var _ Store = (*Served)(nil)

// NewServed makes a store of what is behind door. ranged says that it lies on
// the server's own disk.
func NewServed(c *rest.Client, door Door, ranged bool) *Served {
	return &Served{c, door, ranged}
}

// ID is unique to the door.
func (s *Served) ID() string { return doorID(s.c, s.door) }

func doorID(c *rest.Client, d Door) string {
	id := "served:" + c.Base().String() + "\x00" + d.RunID + "\x00" + d.ModelID + "\x00" + d.Dir
	if d.Model != "" {
		id += "\x00" + d.Model + "\x00" + d.Version
	}
	return id
}

func (s *Served) full(p string) string { return strings.Trim(s.door.Dir+"/"+p, "/") }

// List asks for a directory; its entries carry their paths from the root.
func (s *Served) List(ctx context.Context, dir string) (Tree, error) {
	path := s.full(dir)
	if err := unambiguous(path); err != nil {
		return nil, err
	}
	u := s.c.URL("/api/2.0/mlflow/artifacts/list", url.Values{"run_id": {s.door.RunID}})
	key := "path"
	if s.door.ModelID != "" {
		u, key = s.c.URL("/api/2.0/mlflow/logged-models/"+url.PathEscape(s.door.ModelID)+"/artifacts/directories", nil), "artifact_directory_path"
	}
	if path != "" {
		q := u.Query()
		q.Set(key, path)
		u.RawQuery = q.Encode()
	}
	entries, err := getListing(ctx, s.c, u)
	return Tree{dir: below(path, entries)}, err
}

// below are entries by their names, where they come with their paths from a root.
func below(path string, entries []Entry) []Entry {
	for i := range entries {
		if rest, ok := strings.CutPrefix(entries[i].Name, path+"/"); ok && path != "" {
			entries[i].Name = rest
		}
	}
	return entries
}

// ReadRange asks for a file: for the range where the server has it on its own
// disk, else for all of it.
func (s *Served) ReadRange(ctx context.Context, file string, off, n int64, validator string) (*cache.Body, error) {
	path := s.full(file)
	if err := unambiguous(path); err != nil {
		return nil, err
	}
	u := s.c.URL("/get-artifact", url.Values{"run_id": {s.door.RunID}, "path": {path}})
	if s.door.ModelID != "" {
		u = s.c.URL("/ajax-api/2.0/mlflow/logged-models/"+url.PathEscape(s.door.ModelID)+"/artifacts/files", url.Values{"artifact_file_path": {path}})
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if s.ranged {
		return readHTTP(s.c, req, off, n, "")
	}
	resp, err := s.c.Do(req)
	if err != nil {
		return nil, err
	}
	if err := rest.CheckStatus(resp); err != nil {
		return nil, err
	}
	// The ETag is of the server's temporary file: every answer has another.
	return &cache.Body{ReadCloser: resp.Body, Whole: true, Total: resp.ContentLength}, nil
}
