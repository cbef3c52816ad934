package azure

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/artifact/cloudtest"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// recorder answers each listing itself, and refuses all else.
type recorder struct {
	page string // the blobs of a listing, in XML

	mu   sync.Mutex // guards last
	last *http.Request
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	status, body := http.StatusNotFound, ""
	if req.URL.Query().Get("comp") == "list" {
		r.last = req
		status, body = http.StatusOK, "<EnumerationResults><Blobs>"+r.page+"</Blobs></EnumerationResults>"
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/xml"}}, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
}

func (r *recorder) open(t *testing.T, env map[string]string, scheme, place string) (*artifact.Bucket, error) {
	t.Helper()
	d := Driver{Settings: rest.Settings{Silence: time.Second}, Env: func(name string) string { return env[name] }, transport: r}
	return d.Open(scheme)(t.Context(), place)
}

func blobOf(b *artifact.Bucket, root string) *artifact.Blob {
	return artifact.NewBlob("abfss://x/"+root, root, func(context.Context, bool) (*artifact.Bucket, error) { return b, nil })
}

const token = "sv=2024-01-01&sig=s3cret"

// TestContainersAreOpenedAsMLflowOpensThem fails when a container is asked for at
// another account than MLflow's client asks, which may have one of the same name, with
// another credential than it takes, or at a host that is not Azure's.
func TestContainersAreOpenedAsMLflowOpensThem(t *testing.T) {
	t.Parallel()
	all := map[string]string{
		"AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=https;AccountName=other;AccountKey=a2V5;EndpointSuffix=core.windows.net",
		"AZURE_STORAGE_ACCESS_KEY":        "a2V5", "AZURE_STORAGE_SAS_TOKEN": token,
	}
	without := func(names ...string) map[string]string {
		out := map[string]string{}
		for k, v := range all {
			out[k] = v
		}
		for _, n := range names {
			delete(out, "AZURE_STORAGE_"+n)
		}
		return out
	}
	for _, c := range []struct {
		scheme, host, asked string
		env                 map[string]string
		signed              string // by a token, or by whose key
	}{
		{"abfss", "acc.dfs.core.windows.net", "acc.blob.core.windows.net", all, "token"},
		{"abfss", "acc.privatelink.dfs.core.windows.net", "acc.privatelink.blob.core.windows.net", all, "token"},
		{"abfss", "acc.z12.dfs.storage.azure.net", "acc.z12.blob.storage.azure.net", all, "token"},
		{"abfss", "acc.dfs.core.chinacloudapi.cn", "acc.blob.core.chinacloudapi.cn", all, "token"},
		{"abfss", "onelake.dfs.fabric.microsoft.com", "onelake.blob.fabric.microsoft.com", all, "token"},
		{"wasbs", "acc.blob.core.windows.net", "other.blob.core.windows.net", all, "other"},
		{"wasbs", "acc.blob.core.windows.net", "acc.blob.core.windows.net", without("CONNECTION_STRING"), "acc"},
		{"wasbs", "acc.blob.core.usgovcloudapi.net", "acc.blob.core.usgovcloudapi.net", without("CONNECTION_STRING", "ACCESS_KEY"), "token"},
		{"abfss", "acc.dfs.core.windows.net.evil.example", "", all, ""},
		{"abfss", "evil.example/.dfs.core.windows.net", "", all, ""},
		{"wasbs", "evil.example?.blob.core.windows.net", "", all, ""},
		{"wasbs", "acc.evil.blob.core.windows.net", "", all, ""},
	} {
		r := &recorder{}
		b, err := r.open(t, c.env, c.scheme, "box@"+c.host)
		if c.asked == "" {
			if err == nil || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%s: %v", c.host, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.host, err)
			continue
		}
		if _, err := blobOf(b, "a/b").List(t.Context(), ""); err != nil {
			t.Errorf("%s: %v", c.host, err)
			continue
		}
		signed := "nobody"
		if by, ok := strings.CutPrefix(r.last.Header.Get("Authorization"), "SharedKey "); ok {
			signed, _, _ = strings.Cut(by, ":")
		} else if r.last.URL.Query().Get("sig") == "s3cret" {
			signed = "token"
		}
		if r.last.URL.Host != c.asked || r.last.URL.Path != "/box" || signed != c.signed {
			t.Errorf("%s of %s: asked %s%s, signed by %s", c.host, c.scheme, r.last.URL.Host, r.last.URL.Path, signed)
		}
	}
}

// item is a blob of a listing.
func item(name string, size int, metadata string) string {
	return fmt.Sprintf("<Blob><Name>%s</Name><Properties><Last-Modified>Wed, 26 Nov 2025 10:00:00 GMT</Last-Modified><Etag>0x1</Etag><Content-Length>%d</Content-Length></Properties><Metadata>%s</Metadata></Blob>", name, size, metadata)
}

// TestDirectoryStubIsTheDirectory fails when the blob that an account with a
// hierarchical namespace lists for each directory is shown as an empty file, beside or
// in the place of what is in the directory.
func TestDirectoryStubIsTheDirectory(t *testing.T) {
	t.Parallel()
	const folder = "<hdi_isfolder>true</hdi_isfolder>"
	r := &recorder{page: item("a/model", 0, folder) + item("a/model/MLmodel", 3, "") + item("a/none", 0, "<Hdi_isfolder>true</Hdi_isfolder>") + item("a/note", 0, "<other>true</other>")}
	b, err := r.open(t, map[string]string{"AZURE_STORAGE_SAS_TOKEN": token}, DataLake, "box@acc.dfs.core.windows.net")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := blobOf(b, "a").List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, e := range tree[""] {
		if _, twice := got[e.Name]; twice {
			t.Errorf("%s is there twice", e.Name)
		}
		got[e.Name] = e.IsDir
	}
	if len(got) != 3 || !got["model"] || !got["none"] || got["note"] || len(tree["model"]) != 1 {
		t.Errorf("%v, %v", got, tree)
	}
	if q, err := url.ParseQuery(r.last.URL.RawQuery); err != nil || !strings.Contains(q.Get("include"), "metadata") {
		t.Errorf("the listing does not ask for metadata: %s", r.last.URL.RawQuery)
	}
	// A look-up lists one directory: the stub, and the prefix beside it.
	r.page = item("a/model", 0, folder) + "<BlobPrefix><Name>a/model/</Name></BlobPrefix>"
	if e, err := blobOf(b, "a").Stat(t.Context(), "model"); err != nil || !e.IsDir {
		t.Errorf("%+v, %v", e, err)
	}
}

// TestAzureIsReachedAsByRequests fails when a container behind a proxy, whose
// certificate an authority of one's own signed, can't be read with the variables with
// which MLflow's client reads it, or is trusted without: for wasbs:// these are the
// tracking server's, too.
func TestAzureIsReachedAsByRequests(t *testing.T) {
	t.Parallel()
	r := &recorder{page: item("a/f", 3, "")}
	cloud := cloudtest.New(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		resp, _ := r.RoundTrip(req)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(resp.StatusCode)
		io.Copy(w, resp.Body)
	}), "acc.blob.core.windows.net")
	for name, c := range map[string]struct {
		scheme   string
		env      map[string]string
		answered bool
	}{
		"requests":            {Blobs, map[string]string{"HTTPS_PROXY": cloud.Proxy, "REQUESTS_CA_BUNDLE": cloud.CA}, true},
		"curl":                {Blobs, map[string]string{"all_proxy": cloud.Proxy, "CURL_CA_BUNDLE": cloud.CA}, true},
		"the server's":        {Blobs, map[string]string{"https_proxy": cloud.Proxy, "MLFLOW_TRACKING_SERVER_CERT_PATH": cloud.CA, "REQUESTS_CA_BUNDLE": "/nowhere"}, true},
		"insecure":            {Blobs, map[string]string{"https_proxy": cloud.Proxy, "MLFLOW_TRACKING_INSECURE_TLS": "true"}, true},
		"untrusted":           {Blobs, map[string]string{"https_proxy": cloud.Proxy}, false},
		"a lake":              {DataLake, map[string]string{"https_proxy": cloud.Proxy, "REQUESTS_CA_BUNDLE": cloud.CA}, true},
		"a lake, insecure":    {DataLake, map[string]string{"https_proxy": cloud.Proxy, "MLFLOW_TRACKING_INSECURE_TLS": "true"}, false},
		"a lake, as a server": {DataLake, map[string]string{"https_proxy": cloud.Proxy, "MLFLOW_TRACKING_SERVER_CERT_PATH": cloud.CA}, false},
	} {
		c.env["AZURE_STORAGE_ACCESS_KEY"], c.env["AZURE_STORAGE_SAS_TOKEN"] = "a2V5", token
		d := Driver{Settings: rest.Settings{Silence: 10 * time.Second}, Env: func(name string) string { return c.env[name] }, Log: slog.New(slog.DiscardHandler)}
		host := map[string]string{Blobs: "acc.blob.core.windows.net", DataLake: "acc.dfs.core.windows.net"}[c.scheme]
		b, err := d.Open(c.scheme)(t.Context(), "box@"+host)
		if err == nil {
			_, err = blobOf(b, "a").List(t.Context(), "")
		}
		if (err == nil) != c.answered {
			t.Errorf("%s: %v", name, err)
		}
	}
}
