package mlflow

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func env(vars map[string]string) Env { return func(name string) string { return vars[name] } }

var quiet = slog.New(slog.DiscardHandler)

// TestRedactHidesCredentials fails when an address that is shown or logged holds a
// password, a token or a query, or when one without them is shown as another one.
func TestRedactHidesCredentials(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"http://h:5000":                  "http://h:5000",
		"https://user:s3cret@h/p":        "https://h/p",
		"http://s3cret@h":                "http://h",
		"http://u:s3c@ret@h/p?t=s3cret":  "http://h/p",
		"http://u:s3cret/x@h/p":          "http://…",
		"postgresql://u:s3cret@h:1/db":   "postgresql://h:1/db",
		"sqlite:////tmp/a@b/mlflow.db":   "sqlite:////tmp/a@b/mlflow.db",
		"./mlruns":                       "./mlruns",
		"http://h/p#s3cret":              "http://h/p",
		"mysql+pymysql://u:s3cret@h/db?": "mysql+pymysql://h/db",
	} {
		if got := Redact(in); got != want {
			t.Errorf("%s is shown as %s", in, got)
		}
	}
}

// FuzzRedactHidesThePassword fails when some password is shown with the address that
// it stands in.
func FuzzRedactHidesThePassword(f *testing.F) {
	f.Add("s3cret")
	f.Add("p@ss/w?rd#")
	f.Fuzz(func(t *testing.T, password string) {
		if len(password) < 8 || strings.ContainsAny(password, "\x00") || strings.Contains("http://host:5000/path…", password) {
			return
		}
		if got := Redact("http://user:" + password + "@host:5000/path"); strings.Contains(got, password) {
			t.Errorf("%q is shown in %q", password, got)
		}
	})
}

// FuzzIntTakesAnyBytes fails when an unexpected number in a server's answer ends the
// daemon.
func FuzzIntTakesAnyBytes(f *testing.F) {
	f.Add([]byte(`"12"`))
	f.Add([]byte(`-3`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v struct{ N Int }
		_ = json.Unmarshal([]byte(`{"N":`+string(b)+`}`), &v) // no panic
	})
}

// FuzzLastMetricIsJSON fails when some metric file of a FileStore makes a run.json
// that is no JSON.
func FuzzLastMetricIsJSON(f *testing.F) {
	f.Add("1 0.5 1\n2 0.6 1\n3 nan 9\n")
	f.Fuzz(func(t *testing.T, lines string) {
		if m, ok := lastMetric("k", lines); ok && !json.Valid(m.Value) {
			t.Errorf("%q: %s", lines, m.Value)
		}
	})
}

// TestBadTrackingURIIsRefused fails when a tracking URI that can't work is taken, or
// when the error does not say why, or holds the password.
func TestBadTrackingURIIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	notes := filepath.Join(dir, "notes.db")
	if err := os.WriteFile(notes, []byte("these are no tables"), 0o600); err != nil {
		t.Fatal(err)
	}
	for uri, want := range map[string]string{
		"http://":                               "http://",
		"http://[::1":                           "http://",
		"ftp://h/x":                             "can't be understood",
		"sqlite://x.db":                         "sqlite:///",
		"sqlite:///":                            "sqlite:///",
		"sqlite:///" + dir + "/none.db":         "can't be opened",
		"sqlite:///" + dir:                      "a directory",
		"sqlite:///" + notes:                    "can't be read",
		dir + "/none":                           "can't be opened",
		"postgresql://u:s3cret@h/db":            "mlflow server",
		"mysql+pymysql://u:s3cret@h/db":         "mlflow server",
		"databricks://u:s3cret@profile":         "Databricks",
		"file://elsewhere/x":                    "file:///",
		"strange://u:s3cret@h?password=s3cret#": "can't be understood",
	} {
		s, _, err := Open(uri, env(nil), quiet)
		if err == nil {
			s.Close()
			t.Errorf("%s was opened", uri)
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

// TestDefaultTrackingURIFollowsMLflow fails when a mount without --tracking-uri shows
// another store than MLflow uses in the same directory.
func TestDefaultTrackingURIFollowsMLflow(t *testing.T) {
	t.Chdir(t.TempDir())
	if got := DefaultTrackingURI(); got != "sqlite:///mlflow.db" {
		t.Error(got)
	}
	if err := os.MkdirAll("mlruns/models/123", 0o755); err != nil {
		t.Fatal(err)
	}
	if got := DefaultTrackingURI(); got != "sqlite:///mlflow.db" {
		t.Error("an mlruns without experiments:", got)
	}
	if err := errors.Join(os.MkdirAll("mlruns/0", 0o755), os.WriteFile("mlruns/0/meta.yaml", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if got := DefaultTrackingURI(); got != "mlruns" {
		t.Error(got)
	}
}

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
			for _, u := range []string{far.URL, near.URL + "/away"} {
				get(t, client, u)
				if other != (seen{}) {
					t.Errorf("another host was sent %+v", other)
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

// TestDamagedCredentialsFileIsNotQuoted fails when the error about a damaged
// credentials file shows a password from it.
func TestDamagedCredentialsFileIsNotQuoted(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(home, ".mlflow"), 0o700),
		os.WriteFile(filepath.Join(home, ".mlflow", "credentials"), []byte("[mlflow\ns3cret"), 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err := NewClient("http://h", env(map[string]string{"HOME": home}), quiet)
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Error(err)
	}
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

// TestBadSettingIsRefusedByName fails when a variable with a value that can't work is
// taken, or when the error does not name the variable.
func TestBadSettingIsRefusedByName(t *testing.T) {
	t.Parallel()
	for _, vars := range []map[string]string{
		{"MLFLOW_HTTP_REQUEST_TIMEOUT": "soon"},
		{"MLFLOW_HTTP_REQUEST_TIMEOUT": "inf"},
		{"MLFLOW_HTTP_REQUEST_TIMEOUT": "0"},
		{"MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "nan"},
		{"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "-1"},
		{"MLFLOW_TRACKING_SERVER_CERT_PATH": "/nowhere"},
		{"MLFLOW_TRACKING_CLIENT_CERT_PATH": "/nowhere"},
		{"MLFLOW_TRACKING_SERVER_CERT_PATH": "/dev/null", "MLFLOW_TRACKING_INSECURE_TLS": "true"},
	} {
		if _, err := NewClient("http://h", env(vars), quiet); err == nil {
			t.Errorf("%v was taken", vars)
		} else {
			for name := range vars {
				if strings.Contains(err.Error(), name) {
					err = nil
					break
				}
			}
			if err != nil {
				t.Errorf("%v: %v", vars, err)
			}
		}
	}
}

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

// TestVersionsOfAnyNameAreFound fails when a model whose name has quotes has no
// versions, or has another model's: a name that a filter can't quote is searched for
// among all versions.
func TestVersionsOfAnyNameAreFound(t *testing.T) {
	t.Parallel()
	for name, filter := range map[string]string{`echo`: `name='echo'`, `it's`: `name="it's"`, `a'b"c`: ""} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if got := r.URL.Query().Get("filter"); got != filter {
				t.Errorf("%s: the filter %q was sent", name, got)
			}
			json.NewEncoder(w).Encode(map[string]any{"model_versions": []map[string]any{{"name": "other", "version": "9"}, {"name": name, "version": "1"}}})
		}))
		u, _ := url.Parse(srv.URL)
		c, _ := NewClient(u.String(), env(nil), quiet)
		p, err := NewREST(c).SearchVersions(context.Background(), name, "")
		if err != nil || len(p.Items) != 1 || p.Items[0].Version != "1" {
			t.Errorf("%s: %v %v", name, p, err)
		}
		srv.Close()
	}
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
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

// TestNoHeaderGoesAlongWithARedirect fails when a host that a store redirects to, at
// once or by one more redirect of its own, gets a header that was for the store: it
// may hold a key.
func TestNoHeaderGoesAlongWithARedirect(t *testing.T) {
	t.Parallel()
	seen := make(chan http.Header, 10)
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header
		if r.URL.Path != "/end" {
			http.Redirect(w, r, "/end", http.StatusFound)
		}
	}))
	defer far.Close()
	near := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, far.URL+"/first", http.StatusFound)
	}))
	defer near.Close()
	c := &http.Client{CheckRedirect: redirects(env(nil))}
	req, err := http.NewRequest(http.MethodGet, near.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{"X-Key": "s3cret", "Authorization": "s3cret", "Range": "bytes=0-1"} {
		req.Header.Set(k, v)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for _, at := range []string{"first", "end"} {
		if h := <-seen; strings.Contains(fmt.Sprint(h), "s3cret") || h.Get("Range") != "bytes=0-1" {
			t.Errorf("%s gets %v", at, h)
		}
	}
}

// TestAskersAreToldApart fails when two users, or two workspaces, of one server
// are taken for one, when one user with a new password or token is taken for
// another, or when what tells them apart holds a secret.
func TestAskersAreToldApart(t *testing.T) {
	t.Parallel()
	jwt := func(sub string, n int) string {
		part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
		return part(`{"alg":"none"}`) + "." + part(fmt.Sprintf(`{"iss":"i","sub":%q,"jti":%d}`, sub, n)) + ".s3cret"
	}
	asker := func(uri string, env ...string) string {
		t.Helper()
		got := Asker(uri, func(name string) string {
			for i := 0; i < len(env); i += 2 {
				if env[i] == name {
					return env[i+1]
				}
			}
			return ""
		})
		if strings.Contains(got, "s3cret") {
			t.Errorf("a secret: %s", got)
		}
		return got
	}
	const at = "https://host/x"
	user := func(name, password string) string {
		return asker(at, "MLFLOW_TRACKING_USERNAME", name, "MLFLOW_TRACKING_PASSWORD", password)
	}
	seen := map[string]int{}
	for i, one := range [][]string{
		{asker(at)},
		{asker(at, "MLFLOW_WORKSPACE", "a")},
		{asker(at, "MLFLOW_WORKSPACE", "b")},
		{user("ann", "s3cret1"), user("ann", "s3cret2"), asker("https://ann:s3cret@host/x")},
		{user("bob", "s3cret1")},
		{asker(at, "MLFLOW_TRACKING_TOKEN", jwt("ann", 1)), asker(at, "MLFLOW_TRACKING_TOKEN", jwt("ann", 2))},
		{asker(at, "MLFLOW_TRACKING_TOKEN", jwt("bob", 1))},
		{asker(at, "MLFLOW_TRACKING_TOKEN", "s3cret"), asker(at, "MLFLOW_TRACKING_TOKEN", "other-s3cret")},
	} {
		for _, a := range one {
			if n, ok := seen[a]; ok && n != i {
				t.Errorf("%d and %d are one asker, %s", n, i, a)
			}
			seen[a] = i
		}
	}
	if len(seen) != 8 {
		t.Errorf("8 askers are taken for %d", len(seen))
	}
}

// TestRedirectsAreFollowedOrSaid fails when a POST that is redirected loses its
// Content-Type, as from http to https, when one that a redirect makes a GET of is not
// said, or when a redirect is followed although MLFLOW_ALLOW_HTTP_REDIRECTS is false.
func TestRedirectsAreFollowedOrSaid(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if body, _ := io.ReadAll(r.Body); r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || len(body) == 0 {
			t.Errorf("the target gets %s %v %s", r.Method, r.Header, body)
		}
		ok(w, r)
	}))
	defer far.Close()
	for code, vars := range map[int]map[string]string{
		307: nil, 308: {"MLFLOW_ALLOW_HTTP_REDIRECTS": "1"}, // followed
		301: nil, 302: nil, 303: {"MLFLOW_ALLOW_HTTP_REDIRECTS": "true"}, 318: {"MLFLOW_ALLOW_HTTP_REDIRECTS": "false"}, // 318: a 308
	} {
		near := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, far.URL+r.URL.Path+"?s3cret", code%10+300)
		}))
		c, err := NewClient(near.URL, func(name string) string {
			if name == AllowAddressVariable {
				return "127.0.0.1"
			}
			return vars[name]
		}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		asked.Store(0)
		err = c.JSON(context.Background(), "/api/x", nil, map[string]int{"a": 1}, &struct{}{})
		followed := code == 307 || code == 308
		if (err == nil) != followed || asked.Load() > 0 != followed || c.Traffic().Requests[3] != 1 {
			t.Errorf("%d: %v, %d requests at the target, %v", code, err, asked.Load(), c.Traffic())
		}
		if err != nil && (!strings.Contains(err.Error(), "was redirected to "+far.URL) || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("%d: %v", code, err)
		}
		near.Close()
	}
}

// TestWaitsAreMLflows fails when a command does not wait for a server as long as MLflow's
// client does (4 minutes), when a mount waits longer than 3 s, or when a server's word on
// when to ask again is not followed, or is where that is forbidden.
func TestWaitsAreMLflows(t *testing.T) {
	t.Parallel()
	read := func(vars map[string]string) Settings {
		s, err := ReadSettings(env(vars))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	command, mount := read(nil), read(map[string]string{WholeVariable: "30"})
	if command.Retries != 7 {
		t.Errorf("%d retries", command.Retries)
	}
	for attempt, want := range []time.Duration{0, 4, 8, 16, 32, 64, 120} {
		want *= time.Second
		if got := command.wait(attempt, nil); got < want || got > want+time.Second {
			t.Errorf("after attempt %d a command waits %v, want %v", attempt, got, want)
		}
		if got := mount.wait(attempt, nil); got > longestWait {
			t.Errorf("after attempt %d a mount waits %v", attempt, got)
		}
	}
	told := &http.Response{StatusCode: 503, Header: http.Header{"Retry-After": {"7"}}}
	if got := command.wait(0, told); got != 7*time.Second {
		t.Errorf("a server says 7 s: %v", got)
	}
	if got := read(map[string]string{"MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false"}).wait(0, told); got != 0 {
		t.Errorf("a server says 7 s, and is not to be heard: %v", got)
	}
	if s := read(map[string]string{"MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "10"}); s.wait(1, nil) != 20*time.Second {
		t.Errorf("with factor 10, after attempt 1: %v", s.wait(1, nil))
	}
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
			vars[WholeVariable] = "0.4"
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

// TestServerBefore128IsRead fails when a server that can't search experiments, and lists
// them, is taken for none.
func TestServerBefore128IsRead(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/2.0/mlflow/experiments/list" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, `{"experiments":[{"experiment_id":"7","name":"old"}],"next_page_token":"`+map[string]string{"": "p"}[r.FormValue("page_token")]+`"}`)
	}))
	defer srv.Close()
	c, err := NewClient(srv.URL, env(nil), quiet)
	if err != nil {
		t.Fatal(err)
	}
	s := NewREST(c)
	if err := s.Ping(context.Background()); err != nil {
		t.Error(err)
	}
	for token, next := range map[string]string{"": "p", "p": ""} {
		p, err := s.SearchExperiments(context.Background(), token)
		if err != nil || len(p.Items) != 1 || p.Items[0].ID != "7" || p.Next != next {
			t.Errorf("%+v %v", p, err)
		}
	}
}
