package s3

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestLentKeyIsSentAlone fails when a bucket that is opened with a key that is lent is
// asked with one of the client's own, be it of the environment or of a profile, or without
// its session; or elsewhere than where the user's configuration says that S3 is; or when
// what is lent for another cloud opens one.
func TestLentKeyIsSentAlone(t *testing.T) {
	t.Parallel()
	var seen []http.Header
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header)
		w.Write([]byte(`<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated></ListBucketResult>`))
	}))
	t.Cleanup(srv.Close)
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".aws", "credentials"), []byte("[default]\naws_access_key_id = MINE\naws_secret_access_key = mine\naws_session_token = mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, env := range []map[string]string{{}, {"AWS_ACCESS_KEY_ID": "MINE", "AWS_SECRET_ACCESS_KEY": "mine", "AWS_SESSION_TOKEN": "mine"}} {
		env["MLFLOW_S3_ENDPOINT_URL"] = srv.URL
		d := Driver{Settings: rest.Settings{Silence: time.Minute}, Env: func(name string) string { return env[name] }, Home: home}
		b, err := d.OpenLent(t.Context(), "bkt", rest.Lent{Key: "LENT", Secret: "s", Session: "of-the-session"})
		if err != nil {
			t.Fatal(err)
		}
		store := artifact.NewBlob("s3://bkt/a", "a", func(context.Context, bool) (*artifact.Bucket, error) { return b, nil })
		if _, err := store.List(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		for _, l := range []rest.Lent{{}, {Token: "t"}, {SAS: "s"}} {
			if _, err := d.OpenLent(t.Context(), "bkt", l); err == nil {
				t.Error("a bucket is opened with what is no key")
			}
		}
	}
	d := Driver{Settings: rest.Settings{Silence: time.Minute}, Env: func(string) string { return "" }, Home: home}
	for _, place := range []string{"bkt@evil.example", "bkt@evil.example#.r2.cloudflarestorage.com", "bkt"} {
		if _, err := d.OpenLentR2(t.Context(), place, rest.Lent{Key: "LENT", Secret: "s"}); err == nil {
			t.Errorf("a key of R2's would go to %s", place)
		}
	}
	if _, err := d.OpenLentR2(t.Context(), "bkt@acc.r2.cloudflarestorage.com", rest.Lent{Key: "LENT", Secret: "s"}); err != nil {
		t.Error(err)
	}
	for _, h := range seen {
		if !strings.Contains(h.Get("Authorization"), "Credential=LENT/") || h.Get("X-Amz-Security-Token") != "of-the-session" {
			t.Errorf("S3 is sent %v", h)
		}
	}
	if len(seen) != 2 {
		t.Errorf("S3 was asked %d times", len(seen))
	}
}
