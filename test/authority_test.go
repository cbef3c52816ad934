package test

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestStoresOfOnesOwnAuthorityAreRead fails when a GCS or an Azure behind TLS, whose
// certificate an authority of one's own signed, is not read with the variables with which
// MLflow's client reads it, or is read without them.
func TestStoresOfOnesOwnAuthorityAreRead(t *testing.T) {
	t.Parallel()
	o := theObjects(t)
	overTLS := func(addr string) (address, ca string) {
		to := &url.URL{Scheme: "http", Host: addr}
		srv := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }})
		t.Cleanup(srv.Close)
		ca = filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		return srv.URL, ca
	}
	gcs, gcsCA := overTLS(o.gcs)
	azure, azureCA := overTLS(o.azure)
	seedByHand(t, o)
	for uri, c := range map[string]struct{ at, ca string }{
		"gs://" + bucket + "/authority/f.txt":                                          {"STORAGE_EMULATOR_HOST=" + gcs, gcsCA},
		"wasbs://" + bucket + "@" + account + ".blob.core.windows.net/authority/f.txt": {strings.NewReplacer("http://"+o.azure, azure, "DefaultEndpointsProtocol=http;", "DefaultEndpointsProtocol=https;").Replace(o.azureEnv()[0]), azureCA},
	} {
		gs := strings.HasPrefix(uri, "gs:")
		for _, variable := range []string{"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "MLFLOW_TRACKING_SERVER_CERT_PATH", "NO_VARIABLE"} {
			if gs && variable == "MLFLOW_TRACKING_SERVER_CERT_PATH" {
				continue // Google's client knows nothing of it: it would ask again for minutes
			}
			env := append([]string{c.at, variable + "=" + c.ca}, fast...)
			got, err := command(t, env, "cat", uri)
			if trusted := variable != "NO_VARIABLE"; trusted != (string(got) == "deep") || !trusted && (err == nil || !strings.Contains(err.Error(), "certificate")) {
				t.Errorf("%s with %s: %q, %v", uri, variable, got, err)
			}
			if variable == "NO_VARIABLE" {
				continue
			}
			theirs := exec.Command(release("mlflow3").bin("python"), "-c", "import mlflow, sys; print(open(mlflow.artifacts.download_artifacts(sys.argv[1])).read(), end='')", uri)
			theirs.Env, theirs.Dir = append(pythonEnv(), env...), t.TempDir()
			if out, err := theirs.Output(); err != nil || string(out) != "deep" {
				t.Errorf("MLflow's client, %s with %s: %q, %v", uri, variable, out, err)
			}
		}
	}
}

// seedByHand puts an object into the GCS and into the Azure, without a server of MLflow's.
func seedByHand(t *testing.T, o *objectStores) {
	t.Helper()
	resp, err := http.Post("http://"+o.gcs+"/upload/storage/v1/b/"+bucket+"/o?uploadType=media&name=authority/f.txt", "text/plain", strings.NewReader("deep"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	put := exec.Command(release("mlflow3").bin("python"), "-c", `
import os
from azure.storage.blob import BlobServiceClient
BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"]).get_blob_client("`+bucket+`", "authority/f.txt").upload_blob(b"deep")`)
	put.Env = append(pythonEnv(), o.azureEnv()...)
	if out, err := put.CombinedOutput(); err != nil {
		t.Fatal(err, tail(string(out)))
	}
}
