package rest

import (
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTLSTrustFollowsMLflowsVariables fails when a server with an unknown certificate is
// trusted, or when MLFLOW_TRACKING_INSECURE_TLS, _SERVER_CERT_PATH, REQUESTS_CA_BUNDLE or
// CURL_CA_BUNDLE does not make it trusted, in this order: a file, or a directory for
// OpenSSL with directories in it. The server is a real one.
func TestTLSTrustFollowsMLflowsVariables(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(http.HandlerFunc(ok))
	srv.Config.ErrorLog = slog.NewLogLogger(quiet.Handler(), 0)
	defer srv.Close()
	dir := t.TempDir()
	pem, hashed, unhashed := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "hashed"), filepath.Join(dir, "unhashed")
	for _, name := range []string{pem, filepath.Join(hashed, "0123abcd.0"), filepath.Join(hashed, "java", "cacerts"), filepath.Join(unhashed, "ca.pem")} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, pemOf(srv.Certificate().Raw), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(hashed, "4567cdef.0")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		vars map[string]string
		ok   bool
	}{
		"unknown authority": {nil, false},
		"insecure":          {map[string]string{"MLFLOW_TRACKING_INSECURE_TLS": "true"}, true},
		"authority":         {map[string]string{"MLFLOW_TRACKING_SERVER_CERT_PATH": pem}, true},
		"authorities":       {map[string]string{"MLFLOW_TRACKING_SERVER_CERT_PATH": hashed}, true},
		"of requests":       {map[string]string{"REQUESTS_CA_BUNDLE": pem, "CURL_CA_BUNDLE": "/nowhere"}, true},
		"a directory":       {map[string]string{"REQUESTS_CA_BUNDLE": hashed}, true},
		"of curl":           {map[string]string{"CURL_CA_BUNDLE": pem}, true},
		"MLflow's first":    {map[string]string{"MLFLOW_TRACKING_SERVER_CERT_PATH": pem, "REQUESTS_CA_BUNDLE": "/nowhere"}, true},
		"insecure anyway":   {map[string]string{"MLFLOW_TRACKING_INSECURE_TLS": "1", "REQUESTS_CA_BUNDLE": "/nowhere"}, true},
		"unusable":          {map[string]string{"REQUESTS_CA_BUNDLE": "/nowhere"}, false},
	} {
		client, err := NewClient(srv.URL, env(c.vars), quiet)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if _, err := get(t, client, srv.URL); (err == nil) != c.ok || time.Since(begin) > 5*time.Second {
			t.Errorf("%s: %v after %v", name, err, time.Since(begin))
		}
	}
	web, err := NewWebClient(env(map[string]string{"REQUESTS_CA_BUNDLE": pem, AllowAddressVariable: "127.0.0.1"}), quiet)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get(t, web, srv.URL); err != nil {
		t.Errorf("another server than MLflow's: %v", err)
	}
	if _, err := NewClient(srv.URL, env(map[string]string{"MLFLOW_TRACKING_SERVER_CERT_PATH": unhashed}), quiet); err == nil || !strings.Contains(err.Error(), "openssl rehash") {
		t.Errorf("a directory without hashed names: %v", err)
	}
}

// TestUnusableCAsAreNoErrorWithoutTLS fails when a server at http:// is not asked because
// a file of CAs can't be read, which Python's requests then does not look at; or when that
// of the client's own certificate, which it does look at, is passed over.
func TestUnusableCAsAreNoErrorWithoutTLS(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(ok))
	defer srv.Close()
	for name, taken := range map[string]bool{"MLFLOW_TRACKING_SERVER_CERT_PATH": true, "REQUESTS_CA_BUNDLE": true, "CURL_CA_BUNDLE": true, "MLFLOW_TRACKING_CLIENT_CERT_PATH": false} {
		c, err := NewClient(srv.URL, env(map[string]string{name: "/nowhere/ca.pem"}), quiet)
		if err == nil {
			_, err = get(t, c, srv.URL)
		}
		if (err == nil) != taken {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
