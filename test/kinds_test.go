package test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// presigned is the kind of server that sends no artifact itself: it signs URLs of
// its S3 store, and every other route to bytes is refused. Public requests ask
// MLflow for it (mlflow issue 24328, pull request 25513); here a proxy before a
// real server refuses.
const presigned = "presigned only"

// byteKinds are the kinds of servers that the tests of bytes hold: bytes come in
// ranges, in one stream, or from another host by URLs that end.
var byteKinds = []string{"server 3.17", "server 2.22", presigned}

// bytesOf is a server of a kind, with a finished run whose files a test chooses.
// Beside byteKinds there is "S3": presigned, or through the server.
type bytesOf struct {
	uri     string        // of the server
	counted *count.Origin // what the bytes come through

	t     *testing.T
	run   string // its directory in the mount
	truth string // the files, on this machine's disk
	put   func(name, file string)
}

func newBytesOf(t *testing.T, kind string) *bytesOf {
	t.Helper()
	b := &bytesOf{t: t}
	if kind == presigned || kind == "S3" {
		r := newS3Run(t)
		b.uri, b.counted, b.run = r.server.url(), r.store, "runs/"+r.id
		if kind == presigned {
			b.uri = presignedOnly(t, b.uri).URL
		}
		b.truth = t.TempDir()
		b.put = func(name, file string) { r.put(t, name, file) }
		return b
	}
	s := shared.get(t, kind)
	id := finished(t, s.uri, newRun(t, s.uri, "0"))
	b.counted = proxyTo(t, s.uri)
	b.uri, b.run = b.counted.URL, "runs/"+id
	b.truth = filepath.Join(s.server.artifacts(), "0", id, "artifacts")
	b.put = func(string, string) {}
	return b
}

func (b *bytesOf) onDisk(name string) string { return filepath.Join(b.truth, name) }

// plant makes a file of lines, and gives its path in the mount.
func (b *bytesOf) plant(name string, size int64) (inMount string) {
	b.t.Helper()
	writeText(b.t, b.onDisk(name), size)
	b.put(name, b.onDisk(name))
	return b.run + "/" + name
}

// isBytes tells whether a request that came to b.counted is for bytes.
func (b *bytesOf) isBytes(r *http.Request) bool {
	return isArtifact(r) || r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/"+bucket+"/")
}

// presignedOnly stands before a server whose artifacts are on S3, and refuses
// every request for bytes.
func presignedOnly(t *testing.T, server string) *count.Origin {
	t.Helper()
	p := proxyTo(t, server)
	p.Break(refuseBytes(), nil)
	return p
}

func refuseBytes() count.Before {
	var n atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) bool {
		bytes := r.Method == http.MethodGet && (isArtifact(r) || strings.HasSuffix(r.URL.Path, "/get-artifact") || strings.HasSuffix(r.URL.Path, "/artifacts/files"))
		if bytes {
			w.WriteHeader([]int{http.StatusForbidden, http.StatusNotImplemented}[n.Add(1)%2])
		}
		return bytes
	}
}

// s3Server is the servers that all tests share whose artifacts are on S3. Between
// them and the store stands a host by which requests for a run go to the
// count.Origin of the test that has the run, so that one counts, and breaks, what
// is its own alone. The URLs that they sign end after 5 s.
type s3Server struct {
	once  sync.Once
	err   error
	front *httptest.Server

	servers map[release]*startedOnce

	mu   sync.Mutex // guards runs
	runs map[string]http.Handler
}

// startedOnce is a server that starts when the first test wants it.
type startedOnce struct {
	once sync.Once
	s    *server
	err  error
}

var onS3 = &s3Server{runs: map[string]http.Handler{}, servers: map[release]*startedOnce{"mlflow3": {}, "mlflow2": {}}}

// ofRelease is the server of a release; its artifacts lie below the release's name.
func (x *s3Server) ofRelease(r release) (*server, error) {
	x.once.Do(func() {
		plain, err := count.NewOrigin("http://"+objects.s3, "/")
		if x.err = err; err != nil {
			return
		}
		x.front = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			x.handler(r, plain.Config.Handler).ServeHTTP(w, r)
		}))
	})
	if x.err != nil {
		return nil, x.err
	}
	o := x.servers[r]
	o.once.Do(func() {
		o.s, o.err = newServerOn(r, "s3://"+bucket+"/"+string(r), join(objects.env(), s3Env(x.front.Listener.Addr().String()),
			[]string{"MLFLOW_PRESIGNED_DOWNLOAD_URL_TTL_SECONDS=5", "MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES=r2,ftp,sftp"}))
	})
	return o.s, o.err
}

func (x *s3Server) handler(r *http.Request, plain http.Handler) http.Handler {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, h := range x.runs {
		if strings.Contains(r.URL.RequestURI(), id) {
			return h
		}
	}
	return plain
}

func (x *s3Server) stop() {
	for _, o := range x.servers {
		if o.s != nil {
			o.s.stop()
		}
	}
	if x.front != nil {
		x.front.CloseClientConnections()
		x.front.Close()
	}
}

// s3Run is a run of that server.
type s3Run struct {
	server *server
	id     string
	store  *count.Origin // before the store, for this run
}

func newS3Run(t *testing.T) *s3Run {
	t.Helper()
	r := newRunningS3Run(t)
	finished(t, r.server.url(), r.id)
	return r
}

// newRunningS3Run makes one that is not over.
func newRunningS3Run(t *testing.T) *s3Run {
	t.Helper()
	theObjects(t)
	s, err := onS3.ofRelease("mlflow3")
	if err != nil {
		t.Fatal(err)
	}
	r := &s3Run{server: s, store: s3Proxy(t)}
	r.id = newRun(t, r.server.url(), "0")
	onS3.mu.Lock()
	defer onS3.mu.Unlock()
	onS3.runs[r.id] = r.store.Config.Handler
	t.Cleanup(func() {
		onS3.mu.Lock()
		defer onS3.mu.Unlock()
		delete(onS3.runs, r.id)
	})
	return r
}

// key is that of one of its artifacts.
func (r *s3Run) key(name string) string { return "mlflow3/0/" + r.id + "/artifacts/" + name }

func (r *s3Run) put(t *testing.T, name, file string) {
	t.Helper()
	theObjects(t).put(t, "s3", r.key(name), file)
}

// remove takes an artifact away.
func (r *s3Run) remove(t *testing.T, name string) {
	t.Helper()
	if _, err := theObjects(t).api().DeleteObject(context.Background(), &s3.DeleteObjectInput{Bucket: aws.String(bucket), Key: aws.String(r.key(name))}); err != nil {
		t.Error(err)
	}
}
