package test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// client is MLflow's client, which client.py has imported, and which is asked in one
// environment after another.
type client struct {
	in  io.Writer
	out *bufio.Reader
	log *count.Log
}

// theClient starts one of a release, which ends with the test.
func theClient(t *testing.T, r release) *client {
	t.Helper()
	c := exec.Command(r.bin("python"), "client.py")
	c.Env = pythonEnv()
	cl := &client{log: &count.Log{}}
	c.Stderr = cl.log
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		c.Wait()
	})
	cl.in, cl.out = in, bufio.NewReader(out)
	return cl
}

// ask gives what the client makes of each of some URIs in an environment, by some
// threads.
func (c *client) ask(env map[string]string, cwd, dst string, uris []string, threads int) (out []uriAnswer, err error) {
	line, err := json.Marshal(map[string]any{"env": env, "account": "/nowhere", "cwd": cwd, "dst": dst, "uris": uris, "threads": threads})
	if err != nil {
		return nil, err
	}
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		return nil, err
	}
	said, err := c.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(said, &out)
	}
	if err == nil && len(out) != len(uris) {
		err = fmt.Errorf("%d answers to %d URIs: %s", len(out), len(uris), said)
	}
	if err != nil {
		err = fmt.Errorf("MLflow's client: %w\n%s", err, tail(c.log.String()))
	}
	return out, err
}

// recorder notes who was asked, as whom.
type recorder struct {
	mu    sync.Mutex // guards asked
	asked []string
}

// note adds what a request tells of whom it asks, and as whom: secrets stand there as
// hashes.
func (r *recorder) note(at string, req *http.Request) {
	host := req.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	said := []string{at, strings.Replace(host, "s3.us-east-1.amazonaws.com", "s3.amazonaws.com", 1)} // which is its other name
	if auth := req.Header.Get("Authorization"); auth != "" {
		said = append(said, asWhom(auth))
	}
	for _, name := range []string{"X-Mlflow-Workspace", "X-Amz-Expected-Bucket-Owner", "X-Amz-Security-Token", "Proxy-Authorization"} {
		if v := req.Header.Get(name); v != "" {
			said = append(said, name+"="+hashed(v))
		}
	}
	for _, name := range []string{"X-Amz-Credential", "sig"} {
		if v := req.URL.Query().Get(name); v != "" {
			said = append(said, name+"="+hashed(v))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, strings.Join(said, " "))
}

// take gives what was noted, each once and in order, and forgets it.
func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := slices.Compact(slices.Sorted(slices.Values(r.asked)))
	r.asked = nil
	return asked
}

var signature = regexp.MustCompile(`^(AWS4-HMAC-SHA256) Credential=([^/]+)/[0-9]+/([^/]+)/|^(SharedKey) ([^:]+):`)

// asWhom is an Authorization without its secret.
func asWhom(auth string) string {
	if m := signature.FindStringSubmatch(auth); m != nil {
		return strings.TrimSpace(strings.Join(m[1:], " "))
	}
	kind, secret, _ := strings.Cut(auth, " ")
	return kind + " " + hashed(secret)
}

func hashed(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}

// front is a recorder's door before a real server, with and without TLS.
type front struct{ http, https string } // host:port

// newFront notes as name what passes to next. What is asked for below /moved/ is
// redirected; a request for a whole URL is one to a proxy; CONNECT is refused.
func newFront(t *testing.T, r *recorder, name string, next http.Handler) (f front, ca []byte) {
	t.Helper()
	serve := func(secure bool) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			at := name
			if secure {
				at += " TLS"
			}
			if req.URL.IsAbs() {
				at += " as a proxy"
			}
			if req.Method == http.MethodConnect {
				r.note(name+" CONNECT", req)
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			if rest, ok := strings.CutPrefix(req.URL.EscapedPath(), "/moved/"); ok {
				r.note(at+" moved", req)
				to := "http://localhost:" + f.http[strings.LastIndexByte(f.http, ':')+1:] + "/" + rest
				if req.URL.RawQuery != "" {
					to += "?" + req.URL.RawQuery
				}
				w.Header().Set("Location", to)
				w.WriteHeader(http.StatusPermanentRedirect)
				return
			}
			r.note(at, req)
			next.ServeHTTP(w, req)
		}
	}
	plain, secure := httptest.NewServer(serve(false)), httptest.NewUnstartedServer(serve(true))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // a client that does not trust it is what a test wants
	secure.StartTLS()
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	f = front{plain.Listener.Addr().String(), secure.Listener.Addr().String()}
	return f, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
}

// through is a real server at host:port, which is asked by that name.
func through(host string) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: host})
		},
		FlushInterval: -1,
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16},
	}
}

// uriAnswer is what a URI was found to mean.
type uriAnswer struct {
	Download struct {
		Error    string            `json:"error,omitempty"`
		Returned string            `json:"returned,omitempty"`
		Tree     map[string]string `json:"tree,omitempty"` // digests; "" for a directory
	} `json:"download"`
	List struct {
		Error string   `json:"error,omitempty"`
		List  [][3]any `json:"list,omitempty"` // path, is_dir, size
	} `json:"list"`
}

// weSay is what mlflowfs download and ls make of a URI.
func weSay(t *testing.T, env []string, cwd, dst, uri string) (a uriAnswer) {
	t.Helper()
	run := func(args ...string) ([]byte, string) {
		c := mlflowfs(t, env, args...)
		c.Dir = cwd
		var errs strings.Builder
		c.Stderr = &errs
		out, err := c.Output()
		if err != nil {
			return nil, fmt.Sprintf("exit code %d: %s", c.ProcessState.ExitCode(), tail(errs.String()))
		}
		return out, ""
	}
	out, failed := run("download", "--quiet", "--dst", dst, "--", uri)
	if a.Download.Error = failed; failed == "" {
		returned, err := filepath.Rel(dst, strings.TrimSuffix(string(out), "\n"))
		if err != nil {
			t.Fatal(err)
		}
		a.Download.Returned, a.Download.Tree = returned, treeOf(t, dst)
	}
	out, failed = run("ls", "--json", "--", uri)
	if a.List.Error = failed; failed == "" {
		var infos []struct {
			Path string  `json:"path"`
			Dir  bool    `json:"is_dir"`
			Size float64 `json:"file_size"`
		}
		if err := json.Unmarshal(out, &infos); err != nil {
			t.Fatal(err)
		}
		for _, f := range infos {
			a.List.List = append(a.List.List, [3]any{f.Path, f.Dir, f.Size})
		}
		slices.SortFunc(a.List.List, func(a, b [3]any) int { return strings.Compare(a[0].(string), b[0].(string)) })
	}
	return a
}

// treeOf is what client.py's tree gives.
func treeOf(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, p)
		switch {
		case err != nil || rel == ".":
			return err
		case e.IsDir():
			out[rel] = ""
			return nil
		}
		b, err := os.ReadFile(p)
		sum := sha256.Sum256(b)
		out[rel] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
