package artifact

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Proxy is the artifact API of a tracking server
// (mlflow_artifacts.proto: ListArtifacts and DownloadArtifact). A GET with a
// Range is answered by an MLflow 3 whose store is a local directory with that
// range, and by any other with the whole file in one stream.
type Proxy struct {
	c    *rest.Client
	base string // …/api/2.0/mlflow-artifacts/artifacts
	root string // path below it, no slash at either end
}

var (
	_ Store  = (*Proxy)(nil)
	_ Signer = (*Proxy)(nil)
)

// ProxyPath is where a tracking server has its artifact API.
const ProxyPath = "/api/2.0/mlflow-artifacts/artifacts"

// NewProxy makes a store of the directory root behind the artifact API at
// base, an address that ends in [ProxyPath].
func NewProxy(c *rest.Client, base, root string) *Proxy {
	return &Proxy{c, strings.TrimRight(base, "/"), strings.Trim(root, "/")}
}

// ID is the directory's address.
func (p *Proxy) ID() string { return p.base + "/" + p.root }

// full is the path below base, as the server is to understand it.
func (p *Proxy) full(path string) string {
	if path == "." {
		path = ""
	}
	return strings.Trim(p.root+"/"+path, "/")
}

// List asks for a directory. The server answers alike for an empty directory,
// a missing one and a file: with nothing.
func (p *Proxy) List(ctx context.Context, dir string) (Tree, error) {
	path := p.full(dir)
	if err := unambiguous(path); err != nil {
		return nil, err
	}
	u, err := url.Parse(p.base)
	if err != nil {
		return nil, err
	}
	u.RawQuery = url.Values{"path": {path}}.Encode()
	entries, err := getListing(ctx, p.c, u)
	return Tree{dir: entries}, err
}

// ReadRange asks for a range of a file.
func (p *Proxy) ReadRange(ctx context.Context, path string, off, n int64, _ string) (*cache.Body, error) {
	path = p.full(path)
	if err := unambiguous(path); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+"/"+escape(path), nil)
	if err != nil {
		return nil, err
	}
	return readHTTP(p.c, req, off, n, "")
}

// Offers asks the server once whether it signs URLs for what is behind its
// artifact API.
func (p *Proxy) Offers(ctx context.Context) error { return p.c.OffersPresigned(ctx) }

// Sign asks for a URL for a file.
func (p *Proxy) Sign(ctx context.Context, path string) (SignedURL, error) {
	path = p.full(path)
	if err := unambiguous(path); err != nil {
		return SignedURL{}, err
	}
	return signFile(ctx, p.c, escape(path))
}

// signedRun signs URLs for a run whose own artifact root is in an object store.
type signedRun struct {
	c    *rest.Client
	door Door
}

var _ Signer = signedRun{}

// NewSignedRun makes a Signer for what is behind door, which is a run's: the
// server has no API for a logged model's.
func NewSignedRun(c *rest.Client, door Door) Signer { return signedRun{c, door} }

// Offers asks for the URL of a file that nobody has: that it is not there is
// the answer of a server that could sign.
func (s signedRun) Offers(ctx context.Context) error {
	_, err := s.Sign(ctx, ".mlflowfs-is-it-offered")
	if isMissing(err) {
		return nil
	}
	return err
}

func (s signedRun) Sign(ctx context.Context, path string) (SignedURL, error) {
	path = strings.Trim(s.door.Dir+"/"+path, "/")
	if err := unambiguous(path); err != nil {
		return SignedURL{}, err
	}
	return signOfRun(ctx, s.c, s.door.RunID, path)
}
