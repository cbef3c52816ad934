package azure

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/artifact/cloudtest"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestTokensThatAreRefusedAreReadAnew fails when a mount that lives longer than a token
// of workload identity goes on with that of its start: the file that it is exchanged for
// is one that Kubernetes writes anew.
func TestTokensThatAreRefusedAreReadAnew(t *testing.T) {
	var mu sync.Mutex
	valid := ""
	r := &recorder{page: item("a/f", 3, "")}
	const login = "login.microsoftonline.com"
	cloud := cloudtest.New(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		switch path := req.URL.Path; {
		case strings.HasSuffix(path, "/discovery/instance"):
			fmt.Fprintf(w, `{"tenant_discovery_endpoint":"https://%[1]s/t/v2.0/.well-known/openid-configuration","metadata":[{"preferred_network":"%[1]s","preferred_cache":"%[1]s","aliases":["%[1]s"]}]}`, login)
		case strings.HasSuffix(path, "/openid-configuration"):
			fmt.Fprintf(w, `{"token_endpoint":"https://%[1]s/t/oauth2/v2.0/token","authorization_endpoint":"https://%[1]s/t/oauth2/v2.0/authorize","issuer":"https://%[1]s/t/v2.0"}`, login)
		case strings.HasSuffix(path, "/token"):
			fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":3600,"ext_expires_in":3600,"access_token":"%s"}`, req.FormValue("client_assertion"))
		case req.Header.Get("Authorization") != "Bearer "+valid:
			w.WriteHeader(http.StatusUnauthorized)
		default:
			resp, _ := r.RoundTrip(req)
			w.Header().Set("Content-Type", "application/xml")
			io.Copy(w, resp.Body)
		}
	}), "acc.blob.core.windows.net", login)
	file := filepath.Join(t.TempDir(), "token")
	for k, v := range map[string]string{"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_FEDERATED_TOKEN_FILE": file, "AZURE_CLIENT_SECRET": ""} {
		t.Setenv(k, v) // which Azure's SDK itself reads
	}
	now := func(token string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		valid = token
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{"HTTPS_PROXY": cloud.Proxy, "REQUESTS_CA_BUNDLE": cloud.CA}
	d := Driver{Settings: rest.Settings{Silence: 10 * time.Second}, Env: func(name string) string { return env[name] }, Log: slog.New(slog.DiscardHandler)}
	open := func(ctx context.Context) (*artifact.Bucket, error) {
		return d.Open(DataLake)(ctx, "box@acc.dfs.core.windows.net")
	}
	now("one")
	first, err := open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	store := artifact.NewBlob("abfss://x/a", "a", func(ctx context.Context, fresh bool) (*artifact.Bucket, error) {
		if fresh {
			return open(ctx)
		}
		return first, nil
	})
	for _, token := range []string{"one", "two"} {
		now(token)
		if tree, err := store.List(t.Context(), ""); err != nil || len(tree[""]) != 1 {
			t.Errorf("%s: %v, %v", token, tree, err)
		}
	}
}
