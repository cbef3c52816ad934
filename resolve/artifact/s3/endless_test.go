package s3

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/artifact/cloudtest"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestEndlessAnswersOfS3TakeLittleMemory fails when a page of a listing, an error, or an
// answer of who gives credentials that never ends is taken, or takes more memory than
// the process has; or when an object's bytes are bounded by it. It measures memory, so
// it runs alone.
func TestEndlessAnswersOfS3TakeLittleMemory(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("t"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r") // which the SDK reads itself
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", token)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CA_BUNDLE", "") // of this machine
	keys := map[string]string{"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
	const page = `<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated>`
	cases := map[string]cloudtest.Case{
		"objects":       {Endless: &cloudtest.Endless{Status: 200, Head: page, Piece: `<Contents><Key>a/key</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>&quot;0cc175b9c0f1b6a831c399e269772661&quot;</ETag><Size>3</Size></Contents>`}, Env: keys},
		"empty objects": {Endless: &cloudtest.Endless{Status: 200, Head: page, Piece: `<Contents/>`}, Env: keys},
		"directories":   {Endless: &cloudtest.Endless{Status: 200, Head: page, Piece: `<CommonPrefixes/>`}, Env: keys},
		"one key":       {Endless: &cloudtest.Endless{Status: 200, Head: page + `<Contents><Key>`, Piece: "xxxxxxxx"}, Env: keys},
		"elements":      {Endless: &cloudtest.Endless{Status: 200, Head: page, Piece: `<a>`}, Env: keys},
		"an error":      {Endless: &cloudtest.Endless{Status: 403, Head: `<Error><Code>AccessDenied</Code><Message>`, Piece: "xxxxxxxx"}, Env: keys},
		"credentials": {Endless: &cloudtest.Endless{Status: 200, Head: `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><SessionToken>`, Piece: "xxxxxxxx",
			Only: func(host string) bool { return strings.HasPrefix(host, "sts.") }}, Token: true},
	}
	cloudtest.EachBounded(t, cases, func(c cloudtest.Case) *artifact.Blob {
		d := Driver{Settings: rest.Settings{Silence: time.Minute}, Env: c.Getenv, Home: t.TempDir(), transport: c}
		open := func(ctx context.Context, _ bool) (*artifact.Bucket, error) { return d.Open(ctx, "bkt") }
		return artifact.NewBlob("s3://bkt/a", "a", open)
	}, func(b *artifact.Blob) error {
		_, err := b.List(t.Context(), "")
		return err
	})
}
