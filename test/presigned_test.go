package test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// put puts a file into the bucket of a store of objects, replacing what is
// there.
func (o *objectStores) put(t *testing.T, store, key, file string) {
	t.Helper()
	if store != "s3" {
		release("mlflow3").python(t, o.env(), "", "objects.py", store, bucket, key, file)
		return
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := o.api().PutObject(context.Background(), &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String(key), Body: f}); err != nil {
		t.Fatal(err)
	}
}

// api is S3's own client of the S3 store.
func (o *objectStores) api() *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String("http://" + o.s3), UsePathStyle: true, Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider(s3Key, s3Secret, ""),
	})
}

// fileOf makes a file of size bytes of text.
func fileOf(t *testing.T, size int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "f")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := text()
	defer r.(io.Closer).Close()
	if _, err := io.CopyN(f, r, size); err != nil {
		t.Fatal(err)
	}
	return name
}

// finished ends a run, so that what is in it is final.
func finished(t *testing.T, server, run string) string {
	t.Helper()
	api(t, server, "/api/2.0/mlflow/runs/update", map[string]any{"run_id": run, "status": "FINISHED", "end_time": time.Now().UnixMilli()})
	return run
}

// s3Proxy stands before the S3 store and counts what is read of its objects.
func s3Proxy(t *testing.T) *proxy {
	p := proxyTo(t, "http://"+theObjects(t).s3)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counted = "/" + bucket + "/"
	return p
}

// A slow read through presigned URLs that live for 5 seconds is right: they
// are renewed before their end, and when the store refuses one all the same.
// Neither the store's log nor ours gets a credential of the other.
func TestPresignedRenewal(t *testing.T) {
	const size = 512 << 20
	o := theObjects(t)
	store := s3Proxy(t)
	s, err := newServerOn("mlflow3", "s3://"+bucket+"/ttl", append(s3Env(store.Listener.Addr().String()), "MLFLOW_PRESIGNED_DOWNLOAD_URL_TTL_SECONDS=5"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	run := finished(t, s.url(), newRun(t, s.url(), "0"))
	file := fileOf(t, size)
	o.put(t, "s3", "ttl/0/"+run+"/artifacts/big.bin", file)

	p := proxyTo(t, s.url())
	var refused atomic.Int64
	var first sync.Map // presigned query to when it was first used
	store.faults(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/big.bin") {
			return false
		}
		if r.Header.Get("Authorization") != "" || r.Header.Get("X-Mlflow-Workspace") != "" {
			t.Errorf("the object store is sent the tracking server's credentials: %v", r.Header)
		}
		begun, _ := first.LoadOrStore(r.URL.Query().Get("X-Amz-Signature"), time.Now())
		if time.Since(begun.(time.Time)) > 2*time.Second && refused.CompareAndSwap(0, 1) {
			http.Error(w, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", http.StatusForbidden)
			return true
		}
		return false
	}, nil)
	m := mountAt(t, p.URL, []string{"MLFLOW_TRACKING_TOKEN=s3cret-token"}, "--log-level", "debug")
	out, err := output("python3", "-c", `
import hashlib, sys, time
h = hashlib.sha256()
with open(sys.argv[1], "rb", buffering=0) as f:
    for _ in range(9):
        left = 57 << 20
        while left > 0 and (b := f.read(min(left, 1 << 20))):
            h.update(b)
            left -= len(b)
        time.sleep(1.3)
print(h.hexdigest())
`, m.path("runs", run, "big.bin"))
	if err != nil || strings.TrimSpace(string(out)) != sumOf(t, file) {
		t.Errorf("%s, %v", out, err)
	}
	requests, _ := p.reset()
	if n := count(requests, "/mlflow-artifacts/presigned/"); n < 3 || n > 12 {
		t.Errorf("%d URLs were signed in 12 s, each for 5 s", n)
	}
	if refused.Load() != 1 {
		t.Error("no URL was refused in the middle")
	}
	if count(requests, artifactsAPI+"/") > 0 {
		t.Error("the file was read through the server")
	}
	for _, secret := range []string{"s3cret-token", "X-Amz-Signature", s3Secret} {
		if strings.Contains(m.log.String(), secret) {
			t.Errorf("%s is in the log:\n%s", secret, m.log)
		}
	}
}

// Where the presigned URLs lead to a host that this client does not reach, the
// server's own API is taken, and that is remembered.
func TestPresignedHostOutOfReach(t *testing.T) {
	o := theObjects(t)
	store := s3Proxy(t)
	s, err := newServerOn("mlflow3", "s3://"+bucket+"/inside", s3Env(store.Listener.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	run := finished(t, s.url(), newRun(t, s.url(), "0"))
	for _, n := range []string{"a", "b"} {
		file := fileOf(t, 1000)
		o.put(t, "s3", "inside/0/"+run+"/artifacts/"+n, file)
	}
	p := proxyTo(t, s.url())
	nowhere, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	p.faults(nil, func(r *http.Response) error {
		if !strings.Contains(r.Request.URL.Path, "/presigned/") {
			return nil
		}
		b, err := io.ReadAll(r.Body)
		b = []byte(strings.ReplaceAll(string(b), store.Listener.Addr().String(), fmt.Sprintf("127.0.0.1:%d", nowhere)))
		r.Body = io.NopCloser(strings.NewReader(string(b)))
		return err
	})
	m := mountAt(t, p.URL, fast, "--fill-limit", "0") // b is not to come while a decides
	for _, n := range []string{"a", "b"} {
		if got, err := read(m.path("runs", run, n)); len(got) != 1000 || err != nil {
			t.Error(len(got), err)
		}
	}
	if requests, _ := p.reset(); count(requests, "/presigned/") != 1 || count(requests, artifactsAPI+"/") != 2 {
		t.Errorf("two files cost:\n%s", strings.Join(requests, "\n"))
	}
}

// A server that redirects to another host takes no credential there.
func TestNoCredentialGoesElsewhere(t *testing.T) {
	s := shared.get(t, "server 3.17")
	p := proxyTo(t, s.uri)
	file, onDisk := plant(t, s, "moved.bin", 3<<20, text())
	var seen atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		for name := range r.Header {
			switch name {
			case "Range", "User-Agent", "Accept-Encoding", "If-Match":
			default:
				t.Errorf("another host is sent %s: %s", name, r.Header.Get(name))
			}
		}
		if strings.Contains(fmt.Sprint(r.Header, r.URL), "s3cret") {
			t.Errorf("another host is sent a credential: %v %v", r.URL, r.Header)
		}
		http.ServeFile(w, r, onDisk)
	}))
	t.Cleanup(other.Close)
	var home atomic.Int64
	p.faults(func(w http.ResponseWriter, r *http.Request) bool {
		if isArtifact(r) {
			if r.Header.Get("Authorization") != "" {
				home.Add(1)
			}
			http.Redirect(w, r, other.URL+"/elsewhere", http.StatusTemporaryRedirect)
			return true
		}
		return false
	}, nil)
	withUser := strings.Replace(p.URL, "//", "//user:s3cret-password@", 1)
	for _, env := range [][]string{{"MLFLOW_TRACKING_TOKEN=s3cret-token"}, {"MLFLOW_TRACKING_USERNAME=user", "MLFLOW_TRACKING_PASSWORD=s3cret-password"}} {
		m := mountAt(t, p.URL, join(env, fast), "--log-level", "debug")
		out, err := output("sha256sum", m.path(file))
		if err != nil || !strings.HasPrefix(string(out), sumOf(t, onDisk)) {
			t.Errorf("%s, %v", out, err)
		}
		if strings.Contains(m.log.String(), "s3cret") {
			t.Errorf("a credential is in the log:\n%s", m.log)
		}
	}
	if _, err := command(t, fast, "cat", "--tracking-uri", withUser, "runs:/"+strings.TrimPrefix(file, "runs/")); err != nil {
		t.Error(err)
	}
	if seen.Load() < 3 || home.Load() < 3 {
		t.Errorf("%d redirects were followed, %d requests had credentials", seen.Load(), home.Load())
	}
}
