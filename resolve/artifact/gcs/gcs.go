// Package gcs opens Google Cloud Storage buckets for [artifact.NewBlob].
package gcs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"

	"cloud.google.com/go/storage"
	"gocloud.dev/blob"
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/gcp"
	"golang.org/x/oauth2"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Driver opens buckets with the application default credentials, or without any
// where there are none, as MLflow's GCSArtifactRepository does; see [FromEnv]. Google's
// Python client asks for both the bytes and the tokens by requests, whose certificates
// and proxies are taken here, too.
type Driver struct {
	Settings rest.Settings
	Env      rest.Env
	Home     string // the user's home directory
	Log      *slog.Logger

	transport http.RoundTripper // nil: one of its own
}

func (d Driver) sender() http.RoundTripper {
	rt := d.transport
	if rt == nil {
		rt = d.Settings.StoreTransport(d.Env, rest.WebTLS(d.Env, d.Log))
	}
	return rest.ShortAnswers(rt)
}

// OpenLent opens the bucket of a gs:// URI with a token that is lent.
func (d Driver) OpenLent(ctx context.Context, bucket string, with rest.Lent) (*artifact.Bucket, error) {
	if with.Token == "" {
		return nil, errors.New("it is no token of Google's, and the files lie in Google Cloud Storage")
	}
	client, err := gcp.NewHTTPClient(d.sender(), oauth2.StaticTokenSource(&oauth2.Token{AccessToken: with.Token}))
	if err != nil {
		return nil, err
	}
	return d.open(ctx, bucket, client)
}

// Open opens the bucket of a gs:// URI.
func (d Driver) Open(ctx context.Context, bucket string) (*artifact.Bucket, error) {
	rt := d.sender()
	client := gcp.NewAnonymousHTTPClient(rt)
	if conf := FromEnv(d.Env, d.Home); conf.Emulator == "" {
		tokens, err := conf.tokens(context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: rt}))
		if err == nil && tokens != nil {
			client, err = gcp.NewHTTPClient(rt, tokens)
		}
		if err != nil {
			return nil, err
		}
	}
	return d.open(ctx, bucket, client)
}

func (d Driver) open(ctx context.Context, bucket string, client *gcp.HTTPClient) (*artifact.Bucket, error) {
	// Without this client of our own, gocloud would understand an emulator's
	// address in one of its two forms only.
	api, err := storage.NewClient(ctx, option.WithHTTPClient(&client.Client))
	if err != nil {
		return nil, err
	}
	b, err := gcsblob.OpenBucket(ctx, nil, bucket, &gcsblob.Options{Client: api})
	if err != nil {
		return nil, err
	}
	return &artifact.Bucket{
		Bucket: b, Settings: d.Settings,
		BeforeList: beforeList, BeforeRead: beforeRead(api.Bucket(bucket)),
		Object: object, Answer: answer, Refusal: refusal,
	}, nil
}

func beforeList(as func(any) bool, prefix string) error {
	var q *storage.Query
	if !as(&q) {
		return artifact.ErrDriver
	}
	q.Prefix = prefix
	return q.SetAttrSelection([]string{"Name", "Size", "Updated", "Generation"})
}

func object(o *blob.ListObject) (key, version string) {
	var a storage.ObjectAttrs
	switch {
	case !o.As(&a):
		return o.Key, ""
	case a.Prefix != "":
		return a.Prefix, ""
	}
	return a.Name, generation(a.Generation)
}

func beforeRead(bucket *storage.BucketHandle) func(as func(any) bool, key, version string) error {
	return func(as func(any) bool, key, version string) error {
		var h **storage.ObjectHandle
		if !as(&h) {
			return artifact.ErrDriver
		}
		// Stored with gzip, an object is read as it is stored: its size is
		// that of the listing.
		o := bucket.Object(key).ReadCompressed(true)
		if n, err := strconv.ParseInt(version, 10, 64); err == nil {
			o = o.Generation(n)
		}
		*h = o
		return nil
	}
}

func answer(r *blob.Reader) artifact.Answer {
	a := artifact.Answer{Size: r.Size()}
	var sr *storage.Reader
	if r.As(&sr) {
		at := sr.Attrs
		a.Version = generation(at.Generation)
		if n := sr.Remain(); at.StartOffset != 0 || n != at.Size {
			a.ContentRange = fmt.Sprintf("bytes %d-%d/%d", at.StartOffset, at.StartOffset+n-1, at.Size)
		}
		if at.CRC32C != 0 {
			a.CRC32C = &at.CRC32C
		}
	}
	return a
}

func refusal(err error) (status int, code, words string) {
	var failed *googleapi.Error
	switch {
	case errors.As(err, &failed):
		return failed.Code, "", failed.Message
	case errors.Is(err, storage.ErrObjectNotExist), errors.Is(err, storage.ErrBucketNotExist):
		return http.StatusNotFound, "notFound", err.Error()
	}
	return 0, "", ""
}

func generation(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}
