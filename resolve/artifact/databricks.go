package artifact

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Databricks are the artifacts of a run, of a logged model, or of a version in a
// workspace's own registry, in the storage of a Databricks workspace. The workspace lists
// them and signs URLs for them (mlflow.store.artifact.databricks_artifact_repo and
// databricks_models_artifact_repo); it does not send them itself.
type Databricks struct {
	c    *rest.Client
	door Door
}

var (
	_ Store  = (*Databricks)(nil)
	_ Signer = (*Databricks)(nil)
)

// NewDatabricks makes a store of what is behind door.
func NewDatabricks(c *rest.Client, door Door) *Databricks { return &Databricks{c, door} }

// ID is unique to the door.
func (d *Databricks) ID() string { return doorID(d.c, d.door) }

func (d *Databricks) full(p string) string { return strings.Trim(d.door.Dir+"/"+p, "/") }

// List asks for a directory; its entries carry their paths from the root. Of a file, the
// answer is the file itself.
func (d *Databricks) List(ctx context.Context, dir string) (Tree, error) {
	path, key := d.full(dir), "path"
	q := url.Values{}
	at := "/api/2.0/mlflow/artifacts/list"
	switch {
	case d.door.ModelID != "":
		at, key = "/api/2.0/mlflow/logged-models/"+url.PathEscape(d.door.ModelID)+"/artifacts/directories", "artifact_directory_path"
	case d.door.Model != "":
		at = "/api/2.0/mlflow/model-versions/list-artifacts"
		q.Set("name", d.door.Model)
		q.Set("version", d.door.Version)
	default:
		q.Set("run_id", d.door.RunID)
	}
	if path != "" {
		q.Set(key, path)
	}
	entries, err := getListing(ctx, d.c, d.c.URL(at, q))
	if len(entries) == 1 && !entries[0].IsDir && entries[0].Name == path {
		entries = nil
	}
	return Tree{dir: below(path, entries)}, err
}

// ReadRange fails with errors.ErrUnsupported: see [NewSigned].
func (d *Databricks) ReadRange(context.Context, string, int64, int64, string) (*cache.Body, error) {
	return nil, fmt.Errorf("the workspace signs URLs for artifacts, and sends none itself: %w", errors.ErrUnsupported)
}

// Offers is nil: a workspace signs URLs for all that it keeps.
func (d *Databricks) Offers(context.Context) error { return nil }

// signedJSON is a URL that a workspace has signed (ArtifactCredentialInfo,
// CreateDownloadUrlResponse).
type signedJSON struct {
	URI     string `json:"signed_uri"`
	URL     string `json:"url"`
	Headers []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	} `json:"headers"`
}

func (s signedJSON) signed() (SignedURL, error) {
	header := map[string]string{}
	for _, h := range s.Headers {
		header[h.Name] = h.Value
	}
	return signed(s.URI+s.URL, header) // there is one of them
}

// Sign asks for a URL for a file.
func (d *Databricks) Sign(ctx context.Context, path string) (SignedURL, error) {
	path = d.full(path)
	switch {
	case d.door.ModelID != "":
		var out struct {
			Credentials []struct {
				Info signedJSON `json:"credential_info"`
			} `json:"credentials"`
		}
		at := "/api/2.0/mlflow/logged-models/" + url.PathEscape(d.door.ModelID) + "/artifacts/credentials-for-download"
		if err := d.c.JSON(ctx, at, nil, map[string]any{"paths": []string{path}}, &out); err != nil || len(out.Credentials) != 1 {
			return SignedURL{}, notSigned(err)
		}
		return out.Credentials[0].Info.signed()
	case d.door.Model != "":
		var out signedJSON
		q := url.Values{"name": {d.door.Model}, "version": {d.door.Version}, "path": {path}}
		if err := d.c.JSON(ctx, "/api/2.0/mlflow/model-versions/get-signed-download-uri", q, nil, &out); err != nil {
			return SignedURL{}, err
		}
		return out.signed()
	}
	var out struct {
		Infos []signedJSON `json:"credential_infos"`
	}
	body := map[string]any{"run_id": d.door.RunID, "path": []string{path}}
	if err := d.c.JSON(ctx, "/api/2.0/mlflow/artifacts/credentials-for-read", nil, body, &out); err != nil || len(out.Infos) != 1 {
		return SignedURL{}, notSigned(err)
	}
	return out.Infos[0].signed()
}

// notSigned is the error of an answer that is none, or has not one URL for one file.
func notSigned(err error) error {
	if err == nil {
		err = errors.New("the workspace's answer holds not one signed URL")
	}
	return err
}
