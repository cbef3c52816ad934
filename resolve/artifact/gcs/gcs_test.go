package gcs

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
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

// recorder answers each request itself, with one object that is stored packed.
type recorder struct {
	mu   sync.Mutex // guards last
	last *http.Request
}

const packed = "\x1f\x8bpacked"

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodPost { // for a token
		return http.DefaultTransport.RoundTrip(req)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = req
	header, body := http.Header{}, fmt.Sprintf(`{"items":[{"name":"a//b\bc/f","size":"%d","generation":"7","contentEncoding":"gzip","updated":"2026-01-02T03:04:05Z"}]}`, len(packed))
	header.Set("Content-Type", "application/json")
	if strings.HasSuffix(req.URL.Path, "/f") {
		body = packed
		header = http.Header{"Content-Encoding": {"gzip"}, "X-Goog-Generation": {"7"}, "X-Goog-Stored-Content-Encoding": {"gzip"}}
		if req.Header.Get("Accept-Encoding") != "gzip" {
			body = "unpacked by GCS" // without Content-Encoding, and without a range
			header.Del("Content-Encoding")
		}
	}
	return &http.Response{StatusCode: http.StatusOK, Header: header, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req}, nil
}

func list(t *testing.T, r *recorder, env map[string]string, home string) (*artifact.Blob, artifact.Tree) {
	t.Helper()
	d := Driver{Settings: rest.Settings{Silence: time.Minute}, Env: func(name string) string { return env[name] }, Home: home, transport: r}
	b, err := d.Open(t.Context(), "bkt")
	if err != nil {
		t.Fatal(err)
	}
	const root = "a//b\bc"
	store := artifact.NewBlob("gs://bkt/"+root, root, func(context.Context, bool) (*artifact.Bucket, error) { return b, nil })
	tree, err := store.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return store, tree
}

// TestPackedObjectKeepsTheSizeOfItsListing fails when an object with Content-Encoding:
// gzip is unpacked on its way, by GCS or by a client, so that its bytes are not those
// that its size, its generation and its checksum are of; or when its key is not asked
// for as it is written.
func TestPackedObjectKeepsTheSizeOfItsListing(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	store, tree := list(t, r, map[string]string{"STORAGE_EMULATOR_HOST": "nowhere"}, "")
	if len(tree[""]) != 1 || tree[""][0].Name != "f" || tree[""][0].Size != int64(len(packed)) {
		t.Fatalf("%+v", tree)
	}
	body, err := store.ReadRange(t.Context(), "f", 0, int64(len(packed)), "7")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); string(got) != packed || err != nil || body.Validator != "7" {
		t.Errorf("%q of %q, %v", got, body.Validator, err)
	}
	if !strings.HasSuffix(r.last.URL.Path, "/bkt/a//b\bc/f") {
		t.Errorf("asked for %q", r.last.URL.Path)
	}
}

// serviceAccount is a file of credentials for which an address gives tokens.
func serviceAccount(t *testing.T, tokens string) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	secret := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	file, err := json.Marshal(map[string]string{"type": "service_account", "client_email": "a@b", "private_key": string(secret), "token_uri": tokens})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// TestGCSIsReachedAsByRequests fails when a bucket behind a proxy, whose certificate an
// authority of one's own signed, can't be read with the variables with which Google's
// Python client reads it, or its tokens can't be had; or when it is trusted without.
func TestGCSIsReachedAsByRequests(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	asked := map[string]string{} // the Authorization of the last request to a host
	r := &recorder{}
	cloud := cloudtest.New(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked[req.Host] = req.Header.Get("Authorization")
		w.Header().Set("Content-Type", "application/json")
		if req.URL.Path == "/token" {
			io.WriteString(w, `{"access_token":"t0ken","token_type":"Bearer","expires_in":3600}`)
			return
		}
		resp, _ := r.RoundTrip(req)
		io.Copy(w, resp.Body)
	}), "storage.googleapis.com", "oauth2.googleapis.com")
	named := filepath.Join(t.TempDir(), "account.json")
	if err := os.WriteFile(named, serviceAccount(t, "https://oauth2.googleapis.com/token"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env map[string]string
		ok  bool
	}{
		"requests":  {map[string]string{"HTTPS_PROXY": cloud.Proxy, "REQUESTS_CA_BUNDLE": cloud.CA}, true},
		"curl":      {map[string]string{"all_proxy": cloud.Proxy, "CURL_CA_BUNDLE": cloud.CA}, true},
		"untrusted": {map[string]string{"https_proxy": cloud.Proxy}, false},
		"no proxy":  {map[string]string{"https_proxy": "http://127.0.0.1:1", "no_proxy": "oauth2.googleapis.com", "REQUESTS_CA_BUNDLE": cloud.CA}, false},
	} {
		clear(asked)
		c.env["GOOGLE_APPLICATION_CREDENTIALS"] = named
		d := Driver{Settings: rest.Settings{Silence: 10 * time.Second}, Env: func(name string) string { return c.env[name] }, Log: slog.New(slog.DiscardHandler)}
		b, err := d.Open(t.Context(), "bkt")
		if err == nil {
			_, err = artifact.NewBlob("gs://bkt/a", "a", func(context.Context, bool) (*artifact.Bucket, error) { return b, nil }).List(t.Context(), "")
		}
		mu.Lock()
		if (err == nil) != c.ok || c.ok && (asked["storage.googleapis.com"] != "Bearer t0ken" || len(asked) != 2) || !c.ok && len(asked) > 0 {
			t.Errorf("%s: %v, asked %v", name, err, asked)
		}
		mu.Unlock()
	}
}

// TestCredentialsOfGcloudAreFound fails when the credentials that gcloud keeps in its
// own directory, or where CLOUDSDK_CONFIG says, are not used, so that MLflow's client
// reads a bucket and we do not.
func TestCredentialsOfGcloudAreFound(t *testing.T) {
	t.Parallel()
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token":"t0ken","token_type":"Bearer","expires_in":3600}`)
	}))
	t.Cleanup(tokens.Close)
	file := serviceAccount(t, tokens.URL)
	home, other := t.TempDir(), t.TempDir()
	for _, dir := range []string{filepath.Join(home, ".config", "gcloud"), other} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "application_default_credentials.json"), file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for what, c := range map[string]struct {
		env  map[string]string
		home string
	}{
		"at home":         {nil, home},
		"CLOUDSDK_CONFIG": {map[string]string{"CLOUDSDK_CONFIG": other}, "/nowhere"},
		"named":           {map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": filepath.Join(other, "application_default_credentials.json")}, "/nowhere"},
	} {
		r := &recorder{}
		list(t, r, c.env, c.home)
		if got := r.last.Header.Get("Authorization"); got != "Bearer t0ken" {
			t.Errorf("%s: %q", what, got)
		}
	}
}
