// Package azure opens Azure Blob Storage containers for [artifact.NewBlob].
package azure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	azblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"gocloud.dev/blob"
	"gocloud.dev/blob/azureblob"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/mlflow"
)

// Driver opens containers, of wasbs:// and abfss://
// URIs, with AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_ACCESS_KEY,
// AZURE_STORAGE_SAS_TOKEN, or Azure's default credential, in this order
// (mlflow.store.artifact.azure_blob_artifact_repo and
// azure_data_lake_artifact_repo). What lies in a data lake is read by its blob
// address, which every account has.
type Driver struct {
	Settings mlflow.Settings
	Env      mlflow.Env
}

// clouds are the clouds that MLflow knows. A tracking server may have
// chosen the URI, so that no other host may be asked.
var clouds = []string{"blob.core.windows.net", "blob.core.chinacloudapi.cn", "blob.core.usgovcloudapi.net"}

// Open takes <container>@<account>.<blob or dfs>.core.windows.net, or of
// another of Azure's clouds.
func (d Driver) Open(ctx context.Context, place string) (*artifact.Bucket, error) {
	name, host, ok := strings.Cut(place, "@")
	account, suffix, ok2 := strings.Cut(host, ".")
	if !ok || !ok2 || name == "" || account == "" {
		return nil, fmt.Errorf("the URI must name its container and its account: <container>@<account>.blob.core.windows.net, and not %q", place)
	}
	suffix = strings.Replace(suffix, "dfs.", "blob.", 1)
	if !slices.Contains(clouds, suffix) {
		return nil, fmt.Errorf("the host %s is not of Azure's clouds (%s), and credentials are sent to no other", host, strings.Join(clouds, ", "))
	}
	client, err := d.client(ctx, name, account, "https://"+account+"."+suffix+"/"+name)
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
			in.Prefix = &prefix
			return nil
		},
		Object: func(o *blob.ListObject) (key, version string) {
			var item container.BlobItem
			var dir container.BlobPrefix
			switch {
			case !o.IsDir && o.As(&item) && item.Properties != nil:
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

func (d Driver) client(ctx context.Context, name, account, address string) (*container.Client, error) {
	opts := &container.ClientOptions{ClientOptions: policy.ClientOptions{
		Transport: &http.Client{Transport: artifact.Transport(d.Settings)},
		Retry:     policy.RetryOptions{MaxRetries: int32(max(d.Settings.Retries, 1)), RetryDelay: d.Settings.Backoff},
	}}
	if s := d.Env("AZURE_STORAGE_CONNECTION_STRING"); s != "" {
		c, err := container.NewClientFromConnectionString(s, name, opts)
		if err != nil {
			err = errors.New("AZURE_STORAGE_CONNECTION_STRING can't be understood: take it as the portal shows it") // its own words may quote the key
		}
		return c, err
	}
	if key := d.Env("AZURE_STORAGE_ACCESS_KEY"); key != "" {
		cred, err := container.NewSharedKeyCredential(account, key)
		if err != nil {
			return nil, errors.New("AZURE_STORAGE_ACCESS_KEY is no key: it must be base64")
		}
		return container.NewClientWithSharedKeyCredential(address, cred, opts)
	}
	if token := d.Env("AZURE_STORAGE_SAS_TOKEN"); token != "" {
		return container.NewClientWithNoCredential(address+"?"+strings.TrimPrefix(token, "?"), opts)
	}
	cred, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: opts.ClientOptions})
	if err == nil {
		w := artifact.WatchCredentials(ctx, d.Settings, "Azure credentials")
		_, err = cred.GetToken(w.Context(), policy.TokenRequestOptions{Scopes: []string{"https://storage.azure.com/.default"}})
		err = w.End(err)
	}
	if err != nil {
		said, _, _ := strings.Cut(err.Error(), "\n")
		return nil, artifact.NoCredentials(fmt.Sprintf("no Azure credentials were found (%s): set AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_ACCESS_KEY or AZURE_STORAGE_SAS_TOKEN, or log in with `az login`", said))
	}
	return container.NewClient(address, cred, opts)
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
