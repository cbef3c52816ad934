package gcs

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestLentTokenIsSentAlone fails when a bucket that is opened with a token that is lent is
// asked with another one, such as the client's own, or what is lent for another cloud
// opens one.
func TestLentTokenIsSentAlone(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	env := map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": "/none"} // which would be an error
	d := Driver{Settings: rest.Settings{Silence: time.Minute}, Env: func(name string) string { return env[name] }, Home: t.TempDir(), Log: slog.New(slog.DiscardHandler), transport: r}
	b, err := d.OpenLent(t.Context(), "bkt", rest.Lent{Token: "lent"})
	if err != nil {
		t.Fatal(err)
	}
	store := artifact.NewBlob("gs://bkt/a", "a", func(context.Context, bool) (*artifact.Bucket, error) { return b, nil })
	if _, err := store.List(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if got := r.last.Header.Get("Authorization"); got != "Bearer lent" || r.last.URL.Host != "storage.googleapis.com" {
		t.Errorf("%s is sent %q", r.last.URL.Host, got)
	}
	for _, l := range []rest.Lent{{}, {Key: "k", Secret: "s"}, {SAS: "s"}} {
		if _, err := d.OpenLent(t.Context(), "bkt", l); err == nil {
			t.Error("a bucket is opened with what is no token")
		}
	}
}
