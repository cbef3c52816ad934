package azure

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/artifact/cloudtest"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestEndlessAnswersOfAzureTakeLittleMemory fails when a page of a listing, an error or a
// token that never ends is taken, or takes more memory than the process has; or when a
// blob's bytes are bounded by it. It measures memory, so it runs alone.
func TestEndlessAnswersOfAzureTakeLittleMemory(t *testing.T) {
	for name, v := range map[string]string{"AZURE_TENANT_ID": "01234567-0123-0123-0123-0123456789ab", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "s"} {
		t.Setenv(name, v) // which the SDK reads itself
	}
	signed := map[string]string{"AZURE_STORAGE_SAS_TOKEN": token}
	const page = `<?xml version="1.0"?><EnumerationResults><Blobs>`
	cases := map[string]cloudtest.Case{
		"blobs":       {Endless: &cloudtest.Endless{Status: 200, Head: page, Piece: `<Blob><Name>a/key</Name><Properties><Last-Modified>Fri, 02 Jan 2026 03:04:05 GMT</Last-Modified><Etag>0x8D</Etag><Content-Length>3</Content-Length></Properties><Metadata><m>v</m></Metadata></Blob>`}, Env: signed},
		"empty blobs": {Endless: &cloudtest.Endless{Status: 200, Head: page, Piece: `<Blob/>`}, Env: signed},
		"directories": {Endless: &cloudtest.Endless{Status: 200, Head: page, Piece: `<BlobPrefix/>`}, Env: signed},
		"metadata":    {Endless: &cloudtest.Endless{Status: 200, Head: page + `<Blob><Name>a/key</Name><Metadata>`, Piece: `<a/>`}, Env: signed},
		"one name":    {Endless: &cloudtest.Endless{Status: 200, Head: page + `<Blob><Name>`, Piece: "xxxxxxxx"}, Env: signed},
		"an error":    {Endless: &cloudtest.Endless{Status: 403, Head: `<Error><Code>AuthorizationFailure</Code><Message>`, Piece: "xxxxxxxx"}, Env: signed},
		"a token": {Endless: &cloudtest.Endless{Status: 200, Head: `{"access_token":"`, Piece: "xxxxxxxx",
			Only: func(host string) bool { return strings.HasPrefix(host, "login.") }}, Token: true},
	}
	cloudtest.EachBounded(t, cases, func(c cloudtest.Case) *artifact.Blob {
		d := Driver{Settings: rest.Settings{Silence: time.Minute}, Env: c.Getenv, transport: c}
		open := func(ctx context.Context, _ bool) (*artifact.Bucket, error) {
			return d.Open(DataLake)(ctx, "c@acc.dfs.core.windows.net")
		}
		return artifact.NewBlob("abfss://c/a", "a", open)
	}, func(b *artifact.Blob) error {
		_, err := b.List(t.Context(), "")
		return err
	})
}
