package resolve

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
)

// TestServersWordOpensWhatIsAllowed fails when a URI that a server names is opened
// with the client's keys outside what the settings name, however it is written; or
// when what they name is not.
func TestServersWordOpensWhatIsAllowed(t *testing.T) {
	t.Parallel()
	a, err := ParseAllowed([]string{"s3://bucket", "s3://other/dir/", "gs://Cased/a", "wasbs://c@a.blob.core.windows.net"})
	if err != nil {
		t.Fatal(err)
	}
	for _, uri := range []string{
		"s3://bucket", "s3://bucket/", "s3://bucket/x//y", "S3://bucket/x", "s3://bucket/50%/..a", "s3://other/dir", "s3://other/dir/x%20y",
		"gs://Cased/a/b", "wasbs://c@a.blob.core.windows.net/x",
	} {
		if !a.opens(uri) {
			t.Errorf("%s is not opened", uri)
		}
	}
	for _, uri := range []string{
		"s3://bucket-evil/x", "s3://bucket.evil", "s3://bucket@evil/x", "s3://evil@bucket/x", "s3://Bucket/x", "s3:/bucket/x", "s3:bucket/x", "s3:///bucket/x",
		"s3://bucket%2Fx", "s3://bucket?x", "s3://bucket#x", "s3://bucket\\x", "r2://bucket/x", "gs://bucket/x",
		"s3://bucket/../evil/x", "s3://bucket/%2e%2e/evil", "s3://bucket/%252E%252e%252fevil", "s3://bucket/x/..%2f..%5cevil", "s3://bucket/..\\evil", "s3://bucket/x/.%2E", "s3://bucket/%2525252525252525252e./evil",
		"s3://other", "s3://other/", "s3://other/dirt", "s3://other/dir%2Fx", "s3://other/DIR/x", "s3://other//dir/x", "s3://other/dir/../x", "s3://other/./dir/x",
		"gs://cased/a", "gs://Cased/ab", "wasbs://c@b.blob.core.windows.net", "abfss://c@a.dfs.core.windows.net", "/etc", "file:///etc", "",
	} {
		if a.opens(uri) {
			t.Errorf("%s is opened", uri)
		}
	}
	for _, bad := range []string{"/data", "file:///data", "bucket", "s3:bucket", "s3://", "s3://b/../c", "s3://b?x"} {
		if _, err := ParseAllowed([]string{bad}); err == nil {
			t.Errorf("%q is taken for a place in an object store", bad)
		}
	}
}

// TestOwnKeysOpenNoBucketOfAServers fails when the keys of the client are used for a
// bucket that only a server names, by whatever name of MLflow's it is reached; when
// the server's own routes there are closed too; or when what it says does not name the
// setting.
func TestOwnKeysOpenNoBucketOfAServers(t *testing.T) {
	t.Parallel()
	var opened []string
	r := resolver(t, "http://127.0.0.1:9")
	for _, s := range []string{"s3", "gs", "wasbs", "abfss", "r2", "b2"} {
		r.opt.Buckets[s] = func(_ context.Context, host string) (*artifact.Bucket, error) {
			opened = append(opened, host)
			return nil, errors.ErrUnsupported
		}
	}
	r.opt.Allowed, _ = ParseAllowed([]string{"s3://mine/dir"})
	for _, uri := range []string{"s3://secret/x", "s3://mine/other", "gs://secret", "wasbs://c@a.blob.core.windows.net/x", "abfss://c@a.dfs.core.windows.net/x", "r2://b@a.r2.cloudflarestorage.com/x", "b2://b@s3.eu.backblazeb2.com/x"} {
		s, err := r.store(t.Context(), place{uri: uri})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = s.List(t.Context(), ""); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "--allow-store") {
			t.Errorf("%s: %v", uri, err)
		}
		id, routes, err := r.routes(place{uri: uri, door: artifact.Door{RunID: "x"}})
		var kinds []artifact.Access
		for _, w := range routes {
			kinds = append(kinds, w.Access)
		}
		if err != nil || !slices.Equal(kinds, []artifact.Access{artifact.Direct, artifact.Presigned, artifact.Server}) {
			t.Errorf("%s: %v, %v", uri, kinds, err)
		}
		r.opt.Allowed = nil
		if open, _, _ := r.routes(place{uri: uri, door: artifact.Door{RunID: "x"}}); open == id {
			t.Errorf("%s: what a mount keeps that opens it is what one shows that does not", uri)
		}
		r.opt.Allowed, _ = ParseAllowed([]string{"s3://mine/dir"})
	}
	if len(opened) > 0 {
		t.Errorf("opened: %q", opened)
	}
	s, err := r.store(t.Context(), place{uri: "s3://mine/dir/x"})
	if err != nil {
		t.Fatal(err)
	}
	s.List(t.Context(), "")
	if !slices.Equal(opened, []string{"mine"}) {
		t.Errorf("what is allowed is not opened: %q", opened)
	}
}
