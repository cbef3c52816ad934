package rest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strconv"
	"time"
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
// is of no matter. A URL that does not say is believed for a minute.
func lifetime(u string) time.Duration {
	p, err := url.Parse(u)
	if err != nil {
		return 0
	}
	q := p.Query()
	if s, err := strconv.Atoi(cmp.Or(q.Get("X-Amz-Expires"), q.Get("X-Goog-Expires"))); err == nil && s > 0 {
		return time.Duration(s) * time.Second
	}
	return time.Minute
}

func signed(u string, header map[string]string) (SignedURL, error) {
	if u == "" {
		return SignedURL{}, errors.New("the tracking server's answer holds no presigned URL")
	}
	return SignedURL{u, header, lifetime(u)}, nil
}

// OffersPresigned asks whether the server signs URLs for what its artifact API
// serves (server-info, MLflow 3), and says why not.
func (c *Client) OffersPresigned(ctx context.Context) error {
	offers, err := c.presigned.Get(ctx, struct{}{}, func(ctx context.Context) (bool, error) {
		var info struct {
			Downloads bool `json:"multipart_downloads_enabled"`
		}
		err := c.JSON(ctx, "/api/3.0/mlflow/server-info", nil, nil, &info)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil // MLflow 2
		}
		return info.Downloads, err
	})
	if err == nil && !offers {
		err = fmt.Errorf("the tracking server offers no presigned URLs: %w", errors.ErrUnsupported)
	}
	return err
}

// Presign asks for a URL for a file behind the server's artifact API
// (GetPresignedDownloadUrl). escaped is its path, each segment encoded.
func (c *Client) Presign(ctx context.Context, escaped string) (SignedURL, error) {
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

// PresignRun asks for a URL for an artifact of a run whose artifact root is in
// an object store (CreatePresignedDownloadUrl). A server that does not know
// the call is an error that is errors.ErrUnsupported.
func (c *Client) PresignRun(ctx context.Context, runID, path string) (SignedURL, error) {
	var out struct {
		URL     string            `json:"presigned_url"`
		Headers map[string]string `json:"headers"`
	}
	in := map[string]any{"run_id": runID, "path": path, "expiration": runURLs}
	err := c.JSON(ctx, "/api/2.0/mlflow/artifacts/presigned-download-url", nil, in, &out)
	var e *Error
	if errors.As(err, &e) && (e.NoSuchEndpoint() || e.Status == 405) {
		err = fmt.Errorf("the tracking server signs no URLs for a run's artifacts: %w", errors.ErrUnsupported)
	}
	if err != nil {
		return SignedURL{}, err
	}
	return signed(out.URL, out.Headers)
}

// IsMissing tells whether err is a server's word that a thing is not there.
func IsMissing(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == 404 && !e.NoSuchEndpoint()
}
