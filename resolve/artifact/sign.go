package artifact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// SignedURL leads to an object in an object store, for a while, for whoever
// has it: it is a credential, and is not to be shown.
type SignedURL struct {
	URL      string
	Header   map[string]string // to be sent with it
	Lifetime time.Duration     // from when it was received
}

// String shows none of it.
func (SignedURL) String() string { return "a presigned URL" }

var _ fmt.Stringer = SignedURL{}

// lifetime reads how long a URL is valid from the parameters of S3's and
// GCS's signature version 4. It is counted from now, so that a server's clock
// is of no matter. Azure's signature says when it ends. A URL that does not say, or is over
// by this machine's clock, is believed for a minute.
func lifetime(u string) time.Duration {
	p, err := url.Parse(u)
	if err != nil {
		return 0
	}
	q := p.Query()
	if s, err := strconv.Atoi(cmp.Or(q.Get("X-Amz-Expires"), q.Get("X-Goog-Expires"))); err == nil && s > 0 {
		return time.Duration(s) * time.Second
	}
	if end, err := time.Parse(time.RFC3339, q.Get("se")); err == nil {
		return max(time.Until(end), time.Minute)
	}
	return time.Minute
}

func signed(u string, header map[string]string) (SignedURL, error) {
	if u == "" {
		return SignedURL{}, errors.New("the tracking server's answer holds no presigned URL")
	}
	return SignedURL{u, header, lifetime(u)}, nil
}

// signFile asks for a URL for a file behind the server's artifact API
// (GetPresignedDownloadUrl). escaped is its path, each segment encoded.
func signFile(ctx context.Context, c *rest.Client, escaped string) (SignedURL, error) {
	var out struct {
		URL     string            `json:"url"`
		Headers map[string]string `json:"headers"`
	}
	if err := c.JSON(ctx, "/api/2.0/mlflow-artifacts/presigned/"+escaped, nil, nil, &out); err != nil {
		return SignedURL{}, err
	}
	return signed(out.URL, out.Headers)
}

// runURLs is how long a URL for a run's artifact is asked for, where the
// server lets the client choose.
const runURLs = "900"

// signOfRun asks for a URL for an artifact of a run whose artifact root is in
// an object store (CreatePresignedDownloadUrl). A server that does not know
// the call is an error that is errors.ErrUnsupported.
func signOfRun(ctx context.Context, c *rest.Client, runID, path string) (SignedURL, error) {
	var out struct {
		URL     string            `json:"presigned_url"`
		Headers map[string]string `json:"headers"`
	}
	in := map[string]any{"run_id": runID, "path": path, "expiration": runURLs}
	err := c.JSON(ctx, "/api/2.0/mlflow/artifacts/presigned-download-url", nil, in, &out)
	var e *rest.Error
	if errors.As(err, &e) && (e.NoSuchEndpoint() || e.Status == 405) {
		err = fmt.Errorf("the tracking server signs no URLs for a run's artifacts: %w", errors.ErrUnsupported)
	}
	if err != nil {
		return SignedURL{}, err
	}
	return signed(out.URL, out.Headers)
}

// isMissing tells whether err is a server's word that a thing is not there.
func isMissing(err error) bool {
	var e *rest.Error
	return errors.As(err, &e) && e.Status == 404 && !e.NoSuchEndpoint()
}
