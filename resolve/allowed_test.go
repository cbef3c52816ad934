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
		if !a.opens(place{uri: uri}) {
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
		if a.opens(place{uri: uri}) {
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

// TestHostsAreOpenedWhereTheUserNamesThem fails when a host that a server names is opened
// although neither --allow-store nor the user himself does, by whatever spelling, user or
// port; when one that they name is not; or when the user's own word opens a host on a mount
// that others see.
func TestHostsAreOpenedWhereTheUserNamesThem(t *testing.T) {
	t.Parallel()
	a, err := ParseAllowed([]string{"sftp://host", "sftp://me@Other:2222/srv/ml", "hdfs://nn", "hdfs:///data"})
	if err != nil {
		t.Fatal(err)
	}
	for uri, within := range map[string]string{
		"sftp://host": "", "sftp://host/x": "", "SFTP://HOST/x": "", "sftp://:pw@host/x": "", "sftp://me@other:2222/srv/ml": "srv/ml", "sftp://me:p@w:x@other:2222/srv/ml/r": "srv/ml",
		"hdfs://nn/x": "", "hdfs:/data/x": "data", "hdfs:///data": "data",
	} {
		if key, named := a.within(uri); !named || key != within {
			t.Errorf("%s: %q, %v", uri, key, named)
		}
	}
	closed := []string{
		"sftp://root@host/x", "sftp://host:22/x", "sftp://host:2222/x", "sftp://host.evil/x", "sftp://host@evil/x", "sftp://host:22@evil/x", "sftp://evil/host", "sftp://evil/@host/x", "sftp://host%2eevil/x", "sftp://host\\evil/x", "sftp://host?@evil/x", "sftp://host#@evil/x",
		"sftp://other:2222/srv/ml", "sftp://me@other/srv/ml", "sftp://me@other:2222/srv", "sftp://me@other:2222/srv/mlx", "sftp://me@other:2222/srv/ml/../../etc", "sftp://me@other:2222/srv/ml/%2e%2e/x", "sftp://me@other:2222//srv/ml",
		"sftp://host:", "sftp://[host]x/", "sftp:/x", "sftp:///x", "sftp://host:0/x", "sftp://host:99999/x", "sftp://ho st/x", "hdfs://nn:9000/x", "hdfs://evil/data", "hdfs:///other", "viewfs://nn/x", "ftp://host/x",
	}
	for _, uri := range closed {
		if uri == "sftp://host:" {
			continue // Python reads no port there, too
		}
		for _, own := range []bool{false, true} {
			a.Own = own
			if a.opens(place{uri: uri}) != (own && !hosted[scheme(uri)]) {
				t.Errorf("%s, which a server names, is opened (own: %v)", uri, own)
			}
		}
	}
	var none *Allowed
	typed := place{uri: "sftp://any/x", typed: true}
	a.Own = false
	if a.opens(typed) || !none.opens(typed) || none.opens(place{uri: typed.uri}) {
		t.Error("who may open a host that is typed:", a.opens(typed), none.opens(typed), none.opens(place{uri: typed.uri}))
	}
	for _, bad := range []string{"sftp://", "sftp:///x", "sftp://h:x/", "sftp://h/../x", "sftp://u:pw@h/x"} {
		if _, err := ParseAllowed([]string{bad}); err == nil || strings.Contains(err.Error(), "pw") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestHostThatAServerNamesIsNotOpened fails when what a run, a model or a version of a
// server's names has a host opened, or when the user's own URI, or the settings', has not;
// when what is said does not name the setting, or holds a password; or when the way
// through the server is lost.
func TestHostThatAServerNamesIsNotOpened(t *testing.T) {
	t.Parallel()
	var opened []string
	r := resolver(t, "http://127.0.0.1:9")
	r.opt.Hosts = map[string]artifact.OpenHost{"sftp": func(authority string) (artifact.FileSystem, error) {
		opened = append(opened, authority)
		return artifact.NewHost(func(context.Context) (artifact.Connection, error) { return nil, artifact.NoCredentials("none") }), nil
	}}
	const uri = "sftp://u:pw@host/x"
	says := func(p place, word string) {
		t.Helper()
		s, err := r.store(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = s.List(t.Context(), ""); err == nil || !strings.Contains(err.Error(), word) || strings.Contains(err.Error(), "pw") || strings.Contains(s.ID(), "pw") {
			t.Errorf("%+v: %v (%s)", p, err, s.ID())
		}
	}
	says(rootOf(uri, artifact.Door{}), "--allow-store names, such as sftp://u@host")
	says(place{uri: "sftp://u:p/w@host/x"}, "--allow-store")
	if len(opened) > 0 {
		t.Errorf("opened: %q", opened)
	}
	_, routes, err := r.routes(rootOf(uri, artifact.Door{RunID: "x"}))
	if got := names(routes); got != "direct and presigned and server" || err != nil {
		t.Error(got, err)
	}
	says(place{uri: uri, typed: true}, "none")
	r.opt.Allowed, _ = ParseAllowed([]string{"sftp://u@host"})
	says(place{uri: uri + "/y"}, "none")
	says(place{uri: "sftp://u:p/w@host/x", typed: true}, "--allow-store")
	if !slices.Equal(opened, []string{"u:pw@host"}) {
		t.Errorf("opened: %q", opened)
	}
}
