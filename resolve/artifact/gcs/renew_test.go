package gcs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/artifact/cloudtest"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestTokensThatExpireAreReadAnew fails when a mount that lives longer than a token of
// workload identity goes on with that of its start: the file that it is exchanged for,
// which Kubernetes writes anew, or a file of gcloud's that somebody has replaced since.
func TestTokensThatExpireAreReadAnew(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	valid := ""
	cloud := cloudtest.New(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		switch {
		case req.URL.Path == "/v1/token": // for the token of a workload
			fmt.Fprintf(w, `{"access_token":"%s","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":1}`, req.FormValue("subject_token"))
		case req.URL.Path == "/token": // for one of gcloud's, which lives on
			fmt.Fprintf(w, `{"access_token":"%s","token_type":"Bearer","expires_in":3600}`, req.FormValue("refresh_token"))
		case req.Header.Get("Authorization") != "Bearer "+valid:
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"error":{"code":401,"message":"who?"}}`)
		default:
			io.WriteString(w, `{"items":[]}`)
		}
	}), "storage.googleapis.com", "oauth2.googleapis.com", "sts.googleapis.com")
	dir := t.TempDir()
	subject, workload, gcloud := filepath.Join(dir, "subject"), filepath.Join(dir, "workload.json"), filepath.Join(dir, "gcloud.json")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(workload, `{"type":"external_account","audience":"//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k","subject_token_type":"urn:ietf:params:oauth:token-type:jwt","token_url":"https://sts.googleapis.com/v1/token","credential_source":{"file":"`+subject+`"}}`)
	now := func(token string) {
		mu.Lock()
		valid = token
		mu.Unlock()
		write(subject, token)
		write(gcloud, `{"type":"authorized_user","client_id":"c","client_secret":"s","refresh_token":"`+token+`"}`)
	}
	for named, want := range map[string]int{workload: 1, gcloud: 3} {
		env := map[string]string{"HTTPS_PROXY": cloud.Proxy, "REQUESTS_CA_BUNDLE": cloud.CA, "GOOGLE_APPLICATION_CREDENTIALS": named}
		d := Driver{Settings: rest.Settings{Silence: 10 * time.Second}, Env: func(name string) string { return env[name] }, Log: slog.New(slog.DiscardHandler)}
		now("one")
		first, err := d.Open(t.Context(), "bkt")
		if err != nil {
			t.Fatal(err)
		}
		opened := 1
		store := artifact.NewBlob("gs://bkt", "", func(ctx context.Context, fresh bool) (*artifact.Bucket, error) {
			if !fresh {
				return first, nil
			}
			opened++
			return d.Open(ctx, "bkt")
		})
		for _, token := range []string{"one", "two", "three"} {
			now(token)
			if _, err := store.List(t.Context(), ""); err != nil {
				t.Errorf("%s, %s: %v", filepath.Base(named), token, err)
			}
		}
		if opened != want {
			t.Errorf("%s: it was opened %d times", filepath.Base(named), opened)
		}
	}
}
