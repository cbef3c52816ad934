// Package azure opens Azure Blob Storage containers for [artifact.NewBlob].
package azure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	azblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"gocloud.dev/blob"
	"gocloud.dev/blob/azureblob"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Driver opens the containers of wasbs:// and abfss:// URIs; see [FromEnv]. What
// lies in a data lake is read by its blob address, which every account has.
type Driver struct {
	Settings rest.Settings
	Env      rest.Env
	Log      *slog.Logger

	transport http.RoundTripper // nil: one of its own
}

// senders are what asks for blobs, and what asks for tokens. Azure's Python client asks
// for both by requests, whose certificates and proxies are taken here, too; for the
// blobs of wasbs://, MLflow has it trust what it trusts of a tracking server.
func (d Driver) senders(conf Config, scheme string) (blobs, tokens *http.Client, err error) {
	if d.transport != nil {
		c := &http.Client{Transport: rest.ShortAnswers(d.transport)}
		return c, c, nil
	}
	trusted := rest.WebTLS(d.Env, d.Log)
	tokens = &http.Client{Transport: rest.ShortAnswers(d.Settings.Transport(d.Env, trusted))}
	if scheme == Blobs {
		protocol := "https"
		if strings.Contains(strings.ToLower(conf.ConnectionString), "blobendpoint=http:") {
			protocol = "http" // where requests looks at no certificate
		}
		if trusted, err = rest.ServerTLS(protocol, d.Env, d.Log); err != nil {
			return nil, nil, err
		}
	}
	return &http.Client{Transport: rest.ShortAnswers(d.Settings.StoreTransport(d.Env, trusted))}, tokens, nil
}

// Open opens the containers of the URIs of a scheme.
func (d Driver) Open(scheme string) artifact.OpenBucket {
	return func(ctx context.Context, place string) (*artifact.Bucket, error) {
		return d.open(ctx, place, scheme)
	}
}

// OpenLent opens a container with a signature that is lent.
func (d Driver) OpenLent(ctx context.Context, place string, with rest.Lent) (*artifact.Bucket, error) {
	if with.SAS == "" {
		return nil, errors.New("it is no shared access signature, and the files lie in Azure")
	}
	b, err := d.openWith(ctx, place, DataLake, Config{SASToken: with.SAS})
	if err == nil {
		b.Shallow = true // a signature for a directory lists no more at a time (Create a user delegation SAS, Permissions)
	}
	return b, err
}

func (d Driver) open(ctx context.Context, place, scheme string) (*artifact.Bucket, error) {
	return d.openWith(ctx, place, scheme, FromEnv(d.Env, scheme))
}

func (d Driver) openWith(ctx context.Context, place, scheme string, conf Config) (*artifact.Bucket, error) {
	name, account, url, err := address(place)
	if err != nil {
		return nil, err
	}
	blobs, tokens, err := d.senders(conf, scheme)
	if err != nil {
		return nil, err
	}
	client, err := d.client(ctx, conf, blobs, tokens, name, account, url)
	if err != nil {
		return nil, err
	}
	b, err := azureblob.OpenBucket(ctx, client, nil)
	if err != nil {
		return nil, err
	}
	return &artifact.Bucket{
		Bucket:   b,
		Settings: d.Settings,
		BeforeList: func(as func(any) bool, prefix string) error {
			var in *container.ListBlobsHierarchyOptions
			if !as(&in) {
				return artifact.ErrDriver
			}
			in.Prefix, in.Include.Metadata = &prefix, true
			return nil
		},
		Object: func(o *blob.ListObject) (key, version string) {
			var item container.BlobItem
			var dir container.BlobPrefix
			switch {
			case !o.IsDir && o.As(&item) && item.Properties != nil:
				if isStub(&item) {
					return value(item.Name) + "/", ""
				}
				return value(item.Name), etag(item.Properties.ETag)
			case o.IsDir && o.As(&dir):
				return value(dir.Name), ""
			}
			return o.Key, ""
		},
		ReadRaw: func(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, artifact.Answer, error) {
			return read(ctx, client, key, version, off, n)
		},
		Refusal: func(err error) (status int, code, words string) {
			var answer *azcore.ResponseError
			if !errors.As(err, &answer) {
				return 0, "", ""
			}
			return answer.StatusCode, answer.ErrorCode, ""
		},
	}, nil
}

// isStub tells whether a blob stands for a directory: an account with a
// hierarchical namespace lists each of its directories so.
func isStub(item *container.BlobItem) bool {
	for name, v := range item.Metadata {
		if strings.EqualFold(name, "hdi_isfolder") && strings.EqualFold(value(v), "true") {
			return value(item.Properties.ContentLength) == 0
		}
	}
	return false
}

// read reads a blob by its own name: gocloud writes some characters of it
// in another way.
func read(ctx context.Context, client *container.Client, key, version string, off, n int64) (io.ReadCloser, artifact.Answer, error) {
	opts := &azblob.DownloadStreamOptions{Range: azblob.HTTPRange{Offset: off, Count: n}}
	if version != "" {
		tag := azcore.ETag(`"` + version + `"`)
		opts.AccessConditions = &azblob.AccessConditions{ModifiedAccessConditions: &azblob.ModifiedAccessConditions{IfMatch: &tag}}
	}
	out, err := client.NewBlobClient(key).DownloadStream(ctx, opts)
	if err != nil {
		return nil, artifact.Answer{}, err
	}
	a := artifact.Answer{ContentRange: value(out.ContentRange), Size: value(out.ContentLength), Version: etag(out.ETag)}
	if a.ContentRange != "" {
		_, total, _ := strings.Cut(a.ContentRange, "/")
		fmt.Sscan(total, &a.Size)
	}
	if a.MD5 = out.BlobContentMD5; a.MD5 == nil && a.ContentRange == "" {
		a.MD5 = out.ContentMD5
	}
	return out.Body, a, nil
}

func (d Driver) client(ctx context.Context, c Config, blobs, tokens *http.Client, name, account, address string) (*container.Client, error) {
	opts := &container.ClientOptions{ClientOptions: policy.ClientOptions{
		Transport: blobs,
		Retry:     policy.RetryOptions{MaxRetries: int32(max(d.Settings.Retries, 1)), RetryDelay: d.Settings.Backoff / 4},
	}}
	withToken := func() (*container.Client, error) {
		return container.NewClientWithNoCredential(address+"?"+c.SASToken, opts)
	}
	switch {
	case c.ConnectionString != "":
		client, err := container.NewClientFromConnectionString(c.ConnectionString, name, opts)
		if err != nil {
			err = errors.New("AZURE_STORAGE_CONNECTION_STRING can't be understood: take it as the portal shows it") // its own words may quote the key
		}
		return client, err
	case c.AccessKey != "":
		cred, err := container.NewSharedKeyCredential(account, c.AccessKey)
		if err != nil {
			return nil, errors.New("AZURE_STORAGE_ACCESS_KEY is no key: it must be base64")
		}
		return container.NewClientWithSharedKeyCredential(address, cred, opts)
	case c.SASToken != "" && !c.SASLast:
		return withToken()
	}
	asking := opts.ClientOptions
	asking.Transport = tokens
	cred, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: asking})
	if err == nil {
		w := artifact.WatchCredentials(ctx, d.Settings, "Azure credentials")
		_, err = cred.GetToken(w.Context(), policy.TokenRequestOptions{Scopes: []string{"https://storage.azure.com/.default"}})
		err = w.End(err)
	}
	switch {
	case err == nil:
		return container.NewClient(address, cred, opts)
	case c.SASToken != "":
		return withToken()
	}
	said, _, _ := strings.Cut(err.Error(), "\n")
	return nil, artifact.NoCredentials(fmt.Sprintf("no Azure credentials were found (%s): set AZURE_STORAGE_SAS_TOKEN, for wasbs:// AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCESS_KEY, or log in with `az login`", said))
}

// etag takes the quotes off: a listing has none, an answer has.
func etag(e *azcore.ETag) string {
	return strings.Trim(string(value(e)), `"`)
}

func value[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}
