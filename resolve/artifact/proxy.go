package artifact

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/mlflow"
)

// Proxy is the artifact API of a tracking server
// (mlflow_artifacts.proto: ListArtifacts and DownloadArtifact). A GET with a
// Range is answered by an MLflow 3 whose store is a local directory with that
// range, and by any other with the whole file in one stream.
type Proxy struct {
	c    *mlflow.Client
	base string // …/api/2.0/mlflow-artifacts/artifacts
	root string // path below it, no slash at either end
}

var _ Store = (*Proxy)(nil)

// ProxyPath is where a tracking server has its artifact API.
const ProxyPath = "/api/2.0/mlflow-artifacts/artifacts"

// NewProxy makes a store of the directory root behind the artifact API at
// base, an address that ends in [ProxyPath].
func NewProxy(c *mlflow.Client, base, root string) *Proxy {
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
func (p *Proxy) List(ctx context.Context, dir string) ([]Entry, error) {
	path := p.full(dir)
	if err := unambiguous(path); err != nil {
		return nil, err
	}
	resp, err := p.get(ctx, p.base+"?"+url.Values{"path": {path}}.Encode(), "")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return decodeListing(resp.Body)
}

// ReadRange asks for a range of a file.
func (p *Proxy) ReadRange(ctx context.Context, path string, off, n int64) (*cache.Body, error) {
	path = p.full(path)
	if err := unambiguous(path); err != nil {
		return nil, err
	}
	resp, err := p.get(ctx, p.base+"/"+escape(path), fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	if err != nil {
		return nil, err
	}
	body, err := rangeBody(resp, off, n)
	if err != nil {
		resp.Body.Close()
	}
	return body, err
}

// get asks for u and returns the answer if it is one of success.
func (p *Proxy) get(ctx context.Context, u, rng string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	if rng != "" {
		req.Header.Set("Range", rng)
	}
	resp, err := p.c.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		resp.Body.Close()
		return nil, fmt.Errorf("%w: it is shorter than it was listed", cache.ErrChanged)
	}
	return resp, mlflow.CheckStatus(resp)
}

// escape encodes every segment of a path.
func escape(path string) string {
	parts := strings.Split(path, "/")
	for i, s := range parts {
		parts[i] = url.PathEscape(s)
	}
	return strings.Join(parts, "/")
}

// rangeBody holds the answer to a request for n bytes from off against its
// headers (RFC 9110, 14 and 15.3.7).
func rangeBody(resp *http.Response, off, n int64) (*cache.Body, error) {
	body := &cache.Body{ReadCloser: resp.Body, Total: -1}
	if etag := resp.Header.Get("ETag"); !strings.HasPrefix(etag, "W/") {
		body.Validator = etag
	}
	if resp.StatusCode == http.StatusOK {
		body.Whole, body.Total = true, resp.ContentLength // -1 where it does not say
		return body, nil
	}
	first, last, total, err := parseContentRange(resp.Header.Get("Content-Range"))
	if err != nil {
		return nil, err
	}
	body.Total = total
	if total >= 0 && total < off+n {
		return body, nil // the cache sees a changed size
	}
	if first != off || last != off+n-1 {
		return nil, fmt.Errorf("the server was asked for bytes %d-%d and answered with %d-%d", off, off+n-1, first, last)
	}
	if resp.ContentLength >= 0 && resp.ContentLength != n {
		return nil, fmt.Errorf("the server promised %d bytes and sends %d", n, resp.ContentLength)
	}
	return body, nil
}

// parseContentRange reads "bytes 0-99/1234"; total is -1 for "*".
func parseContentRange(s string) (first, last, total int64, err error) {
	bad := fmt.Errorf("the server answered 206 with the Content-Range %q", s)
	rest, ok := strings.CutPrefix(s, "bytes ")
	if !ok {
		return 0, 0, 0, bad
	}
	span, size, ok1 := strings.Cut(rest, "/")
	from, to, ok2 := strings.Cut(span, "-")
	if !ok1 || !ok2 {
		return 0, 0, 0, bad
	}
	number := func(s string) int64 {
		n, perr := strconv.ParseUint(s, 10, 63)
		if perr != nil {
			err = bad
		}
		return int64(n)
	}
	first, last, total = number(from), number(to), -1
	if size != "*" {
		total = number(size)
	}
	if err == nil && (last < first || (total >= 0 && last >= total)) {
		err = bad
	}
	return first, last, total, err
}
