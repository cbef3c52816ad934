package s3

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestConnectionIsThereBeforeItIsNeeded fails when Connect makes no connection, when it
// asks the store for anything in order to make one, when what is asked next makes
// another, with TLS and without; or when it asks a store that was asked just before.
func TestConnectionIsThereBeforeItIsNeeded(t *testing.T) {
	for _, kind := range []string{"http", "https"} {
		t.Run(kind, func(t *testing.T) {
			var made, asked atomic.Int64
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				w.Header().Set("Content-Type", "text/xml")
				io.WriteString(w, `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated></ListBucketResult>`)
			}))
			srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					made.Add(1)
				}
			}
			if kind == "https" {
				srv.StartTLS()
			} else {
				srv.Start()
			}
			t.Cleanup(srv.Close)
			env := map[string]string{
				"MLFLOW_S3_ENDPOINT_URL": srv.URL, "AWS_DEFAULT_REGION": "us-east-1", "MLFLOW_S3_IGNORE_TLS": "true",
				"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
			}
			d := Driver{Settings: rest.Settings{Silence: time.Minute}, Env: func(name string) string { return env[name] }, Home: t.TempDir()}
			b, err := d.Open(t.Context(), "b")
			if err != nil {
				t.Fatal(err)
			}
			b.Connect(t.Context(), time.Minute)
			for end := time.Now().Add(10 * time.Second); made.Load() == 0 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			if made.Load() != 1 || asked.Load() != 0 {
				t.Fatalf("%d connections, %d requests", made.Load(), asked.Load())
			}
			time.Sleep(100 * time.Millisecond) // it is the transport's, and not just dialled
			store := artifact.NewBlob("s3://b", "", func(context.Context, bool) (*artifact.Bucket, error) { return b, nil })
			for range 2 {
				if _, err := store.List(t.Context(), ""); err != nil {
					t.Fatal(err)
				}
				b.Connect(t.Context(), time.Minute)
			}
			if made.Load() != 1 || asked.Load() != 2 {
				t.Errorf("%d connections, %d requests", made.Load(), asked.Load())
			}
		})
	}
}

// TestHostedPlaceIsOneHost fails when what a server names as a host of a service holds
// what has a part of it be none: the keys would be sent to another.
func TestHostedPlaceIsOneHost(t *testing.T) {
	env := map[string]string{"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
	d := Driver{Settings: rest.Settings{Silence: time.Minute}, Env: func(name string) string { return env[name] }, Home: t.TempDir()}
	open := d.OpenHosted(".r2.cloudflarestorage.com", false)
	if _, err := open(t.Context(), "b@account.r2.cloudflarestorage.com"); err != nil {
		t.Fatal(err)
	}
	for _, odd := range []string{"#", "?", `\`, "@", "/", ":80/", "%23"} {
		if _, err := open(t.Context(), "b@evil.example"+odd+".r2.cloudflarestorage.com"); err == nil {
			t.Errorf("%q stands in a host", odd)
		}
	}
}
