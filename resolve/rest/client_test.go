package rest

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func env(vars map[string]string) Env { return func(name string) string { return vars[name] } }

var quiet = slog.New(slog.DiscardHandler)

// seen is what a server was sent.
type seen struct{ auth, workspace string }

func (s *seen) server(t *testing.T, h http.HandlerFunc) *httptest.Server {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.auth, s.workspace = r.Header.Get("Authorization"), r.Header.Get("X-MLFLOW-WORKSPACE")
		h(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv
}

func get(t *testing.T, c *Client, u string) (string, error) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, u, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	if err := CheckStatus(resp); err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func ok(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }

// TestCredentialsGoToTheTrackingServerOnly fails when the tracking server does not get
// the credentials that MLflow would send it, or when another host, a redirect's
// target too, gets any.
func TestCredentialsGoToTheTrackingServerOnly(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(home, ".mlflow"), 0o700),
		os.WriteFile(filepath.Join(home, ".mlflow", "credentials"), []byte("[mlflow]\nmlflow_tracking_username = filed\nmlflow_tracking_password = a;b#c\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	basic := func(user, password string) string {
		r := &http.Request{Header: http.Header{}}
		r.SetBasicAuth(user, password)
		return r.Header.Get("Authorization")
	}
	for name, c := range map[string]struct {
		user string
		env  map[string]string
		want string
	}{
		"none":              {"", nil, ""},
		"token":             {"", map[string]string{"MLFLOW_TRACKING_TOKEN": "tok"}, "Bearer tok"},
		"user and password": {"", map[string]string{"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p", "MLFLOW_TRACKING_TOKEN": "tok"}, basic("u", "p")},
		"file":              {"", map[string]string{"HOME": home}, basic("filed", "a;b#c")},
		"environment wins":  {"", map[string]string{"HOME": home, "MLFLOW_TRACKING_USERNAME": "u"}, basic("u", "a;b#c")},
		"address wins":      {"x:y@", map[string]string{"HOME": home}, basic("x", "y")},
	} {
		t.Run(name, func(t *testing.T) {
			var tracking, other seen
			asked := 0
			far := other.server(t, func(w http.ResponseWriter, r *http.Request) {
				asked++
				ok(w, r)
			})
			near := tracking.server(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/away" {
					http.Redirect(w, r, far.URL, http.StatusFound)
				}
			})
			c.env = withWorkspace(c.env)
			c.env[AllowAddressVariable] = "127.0.0.1"
			client, err := NewClient(strings.Replace(near.URL, "//", "//"+c.user, 1), env(c.env), quiet)
			if err != nil {
				t.Fatal(err)
			}
			if client.Base().User != nil {
				t.Error("the client's address holds a password")
			}
			get(t, client, near.URL+"/x")
			if tracking.auth != c.want || tracking.workspace != "ws" {
				t.Errorf("the tracking server was sent %+v, want %q", tracking, c.want)
			}
			for u, want := range map[string]seen{far.URL: {}, near.URL + "/away": {workspace: "ws"}} { // which is no secret
				get(t, client, u)
				if other != want {
					t.Errorf("another host was sent %+v by %s", other, u)
				}
			}
			if asked != 2 {
				t.Errorf("another host was asked %d times", asked)
			}
		})
	}
}

func withWorkspace(vars map[string]string) map[string]string {
	out := map[string]string{"MLFLOW_WORKSPACE": "ws"}
	for k, v := range vars {
		out[k] = v
	}
	return out
}

// TestOnlyTransientErrorsAreRetried fails when a server that is busy for a moment fails
// a read, when one that stays so is asked without end, or when a refusal is asked for
// again.
func TestOnlyTransientErrorsAreRetried(t *testing.T) {
	t.Parallel()
	fast := env(map[string]string{"MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0.001", "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"})
	for _, status := range []int{408, 429, 500, 502, 503, 504} {
		var n atomic.Int64
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) < 3 {
				w.WriteHeader(status)
			}
		}))
		c, err := NewClient(srv.URL, fast, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := get(t, c, srv.URL); err != nil || n.Load() != 3 {
			t.Errorf("%d: %v after %d requests", status, err, n.Load())
		}
		n.Store(-100)
		var e *Error
		if _, err := get(t, c, srv.URL); !errors.As(err, &e) || e.Status != status || n.Load() != -96 {
			t.Errorf("%d for ever: %v after %d requests", status, err, n.Load()+100)
		}
		srv.Close()
	}
	for status, sentinel := range map[int]error{401: fs.ErrPermission, 403: fs.ErrPermission, 404: fs.ErrNotExist} {
		var n atomic.Int64
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n.Add(1)
			w.WriteHeader(status)
		}))
		c, _ := NewClient(srv.URL, fast, quiet)
		if _, err := get(t, c, srv.URL); !errors.Is(err, sentinel) || n.Load() != 1 {
			t.Errorf("%d: %v after %d requests", status, err, n.Load())
		}
		srv.Close()
		if _, err := get(t, c, srv.URL); err == nil {
			t.Error("a server that is down answered")
		}
	}
}

// TestHangUpIsNoEOF fails when a server that hangs up is taken for the end of a file,
// so that the file reads as if it were shorter.
func TestHangUpIsNoEOF(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		conn.Close()
	}))
	defer srv.Close()
	c, _ := NewClient(srv.URL, env(map[string]string{"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}), quiet)
	if _, err := get(t, c, srv.URL); err == nil || errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// TestSilentServerIsAnError fails when a read hangs because the server sends no headers,
// or stops in the middle of a body.
func TestSilentServerIsAnError(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			io.WriteString(w, "begin")
			w.(http.Flusher).Flush()
		}
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	}))
	defer srv.Close()
	defer close(stop)
	c, err := NewClient(srv.URL, env(map[string]string{"MLFLOW_HTTP_REQUEST_TIMEOUT": "0.05"}), quiet)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/headers", "/body"} {
		begin := time.Now()
		if _, err := get(t, c, srv.URL+p); err == nil || !strings.Contains(err.Error(), "no answer") || time.Since(begin) > 5*time.Second {
			t.Errorf("%s: %v after %v", p, err, time.Since(begin))
		}
	}
}

// TestSmallAnswersAreNotHeldUp fails when each small request takes 40 ms longer than it
// must: a server that writes headers and body apart, with Nagle's algorithm on, as
// MLflow's does, waits for an acknowledgement that Linux puts off for so long. It
// measures time, so it runs alone.
func TestSmallAnswersAreNotHeldUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.(*net.TCPConn).SetNoDelay(false)
				in := bufio.NewReader(conn)
				for {
					if _, err := http.ReadRequest(in); err != nil {
						return
					}
					for _, part := range []string{"HTTP/1.1 200 OK\r\n", "Content-Length: 2\r\n\r\n", "{}"} {
						if _, err := io.WriteString(conn, part); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	c, err := NewClient("http://"+l.Addr().String(), env(nil), quiet)
	if err != nil {
		t.Fatal(err)
	}
	const requests = 40
	begin := time.Now()
	for range requests {
		if b, err := get(t, c, "http://"+l.Addr().String()); b != "{}" || err != nil {
			t.Fatal(b, err)
		}
	}
	if d := time.Since(begin); d > requests*20*time.Millisecond {
		t.Errorf("%d requests took %v", requests, d)
	}
	c.retry.HTTPClient.CloseIdleConnections()
}

// TestWaitsAreNoSilence fails when a command gives up a server that is down for longer
// than it may be silent, or when a mount does not.
func TestWaitsAreNoSilence(t *testing.T) {
	t.Parallel()
	for _, mount := range []bool{false, true} {
		var n atomic.Int64
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) < 5 {
				w.WriteHeader(503)
			}
		}))
		vars := map[string]string{"MLFLOW_HTTP_REQUEST_TIMEOUT": "0.4", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0.05", "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0"}
		if mount {
			vars[WholeVariable] = "400ms"
		}
		c, err := NewClient(srv.URL, env(vars), quiet)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := get(t, c, srv.URL); (err == nil) == mount {
			t.Errorf("a mount %v: %v after %d requests", mount, err, n.Load())
		}
		srv.Close()
	}
}
