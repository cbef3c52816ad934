package test

import (
	"context"
	"errors"
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
	"github.com/mlflowfs/mlflowfs/test/count"
	"github.com/mlflowfs/mlflowfs/test/fault"
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
	writeText(t, name, size)
	return name
}

func writeText(t *testing.T, name string, size int64) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(name), 0o755)
	f, cerr := os.Create(name)
	if err = errors.Join(err, cerr); err == nil {
		_, err = io.CopyN(f, text(), size)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// s3Proxy stands before the S3 store and counts what is read of its objects.
func s3Proxy(t *testing.T) *count.Origin {
	t.Helper()
	return proxyOf(t, "http://"+theObjects(t).s3, "/"+bucket+"/")
}

// TestPresignedURLsAreRenewed fails when a slow read through presigned URLs that
// live for 5 s breaks off: they are renewed before their end, and when the store
// refuses one all the same; or when the store's log or ours gets a credential of
// the other.
func TestPresignedURLsAreRenewed(t *testing.T) {
	t.Parallel()
	const size = 512 << 20 // more than what a mount reads ahead between two pauses
	r := newS3Run(t)
	file := fileOf(t, size)
	r.put(t, "big.bin", file)
	p := proxyTo(t, r.server.url())
	var refused atomic.Value // the signature of a URL that has ended before its time
	refused.Store("")
	var refusals atomic.Int64
	var first sync.Map // presigned query to when it was first used
	r.store.Break(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/big.bin") || fault.OfServer(r) {
			return false
		}
		if r.Header.Get("Authorization") != "" || r.Header.Get("X-Mlflow-Workspace") != "" {
			t.Errorf("the object store is sent the tracking server's credentials: %v", r.Header)
		}
		signature := fault.Signature(r)
		begun, _ := first.LoadOrStore(signature, time.Now())
		if time.Since(begun.(time.Time)) > 2*time.Second {
			refused.CompareAndSwap("", signature)
		}
		if signature == refused.Load() {
			refusals.Add(1)
			http.Error(w, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", http.StatusForbidden)
			return true
		}
		return false
	}, nil)
	// Fetched whole, it would be there before a URL ends.
	m := mountAt(t, p.URL, []string{"MLFLOW_TRACKING_TOKEN=s3cret-token"}, "--log-level", "debug", "--fill-limit", "0")
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
`, m.path("runs", r.id, "big.bin"))
	if err != nil || strings.TrimSpace(string(out)) != sumOf(t, file) {
		t.Errorf("%s, %v", out, err)
	}
	requests, _ := p.Reset()
	if n := count.Of(requests, "/mlflow-artifacts/presigned/"); n < 3 || n > 12 {
		t.Errorf("%d URLs were signed in 12 s, each for 5 s", n)
	}
	if n := refusals.Load(); n > 16 { // eight requests may have had it on their way
		t.Errorf("a URL that the store refuses was used %d times", n)
	}
	if refused.Load() == "" {
		t.Error("no URL was refused in the middle")
	}
	if count.Of(requests, artifactsAPI+"/") > 0 {
		t.Error("the file was read through the server")
	}
	for _, secret := range []string{"s3cret-token", "X-Amz-Signature", s3Secret} {
		if strings.Contains(m.log.String(), secret) {
			t.Errorf("%s is in the log:\n%s", secret, m.log)
		}
	}
}

// TestPresignedHostOutOfReachIsLeft fails when a file can't be read because its
// presigned URLs lead to a host that this client does not reach: the server's own
// API is taken, and that is remembered.
func TestPresignedHostOutOfReachIsLeft(t *testing.T) {
	t.Parallel()
	r := newS3Run(t)
	for _, n := range []string{"a", "b"} {
		r.put(t, n, fileOf(t, 1000))
	}
	p := proxyTo(t, r.server.url())
	nowhere, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	p.Break(nil, func(resp *http.Response) error {
		if !strings.Contains(resp.Request.URL.Path, "/presigned/") {
			return nil
		}
		b, err := io.ReadAll(resp.Body)
		fault.Replace(resp, strings.ReplaceAll(string(b), onS3.front.Listener.Addr().String(), fmt.Sprintf("127.0.0.1:%d", nowhere)))
		return err
	})
	m := mountAt(t, p.URL, fast, "--fill-limit", "0") // b is not to come while a decides
	for _, n := range []string{"a", "b"} {
		if got, err := read(m.path("runs", r.id, n)); len(got) != 1000 || err != nil {
			t.Error(len(got), err)
		}
	}
	if requests, _ := p.Reset(); count.Of(requests, "/presigned/") != 1 || count.Of(requests, artifactsAPI+"/") != 2 {
		t.Errorf("two files cost:\n%s", strings.Join(requests, "\n"))
	}
}

// TestNoCredentialGoesElsewhere fails when a server that redirects to another host
// takes a credential there.
func TestNoCredentialGoesElsewhere(t *testing.T) {
	t.Parallel()
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
	p.Break(func(w http.ResponseWriter, r *http.Request) bool {
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
