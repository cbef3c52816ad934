package rest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/mlflowfs/mlflowfs/test/draw"
)

// asked is an environment in which a client asks a server.
type asked struct {
	URI     string            `json:"uri"`
	Env     map[string]string `json:"env"`
	Account string            `json:"account"` // directory of the service account's files

	files string // what they hold, for a failure
}

// proxied is an address that is asked for in an environment.
type proxied struct {
	URL string            `json:"url"`
	Env map[string]string `json:"env"`
}

// someAsked draws an environment, and writes its files below dir.
func someAsked(t *testing.T, d draw.Draw, dir, port string) asked {
	t.Helper()
	e := draw.NewEnvironment(dir)
	d.Tracking(&e)
	if err := e.Write(); err != nil {
		t.Fatal(err)
	}
	return asked{
		URI: "http://" + e.User + d.One("127.0.0.1", "localhost") + ":" + port,
		Env: e.Env, Account: filepath.Join(dir, "account"), files: fmt.Sprintf("%q\n", e.Files),
	}
}

// headers are the headers of a request that tell who asks.
type headers struct{ Authorization, Workspace string }

// TestCredentialsAgainstMLflow fails when a server is asked with other credentials, or in
// another workspace, than MLflow's own client would ask it with in the same environment:
// variables, ~/.mlflow/credentials, netrc files, the tracking URI and Kubernetes'
// files, in all their mixtures.
func TestCredentialsAgainstMLflow(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	got := map[string]headers{} // by the request's first two directories
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got[strings.Join(strings.Split(r.URL.Path, "/")[:3], "/")] = headers{r.Header.Get("Authorization"), r.Header.Get("X-Mlflow-Workspace")}
		ok(w, r)
	}))
	defer srv.Close()
	seed := seedOf(t)
	dir := t.TempDir()
	d := draw.New(seed, 17)
	var cases []asked
	for i := range 300 {
		a := someAsked(t, d, filepath.Join(dir, strconv.Itoa(i)), srv.URL[strings.LastIndex(srv.URL, ":")+1:])
		cases = append(cases, a)
	}
	for _, release := range []string{"mlflow3", "mlflow2"} {
		var theirs struct{ Errors []*string }
		askMLflow(t, release, map[string]any{"cases": under(cases, release), "proxies": []int{}, "redirects": []int{}}, &theirs)
		compared := 0
		for i, a := range cases {
			if release == "mlflow2" && a.Env["MLFLOW_TRACKING_AUTH"] != "" {
				continue // 2 knows neither Kubernetes nor workspaces
			}
			at := fmt.Sprintf("/ours/%d", i)
			u, err := url.Parse(a.URI + at)
			if err != nil {
				t.Fatal(err)
			}
			vars := env(a.Env)
			c, err := newTrackingClient(u, vars, kubernetes{a.Account, vars}, quiet)
			if err == nil {
				err = c.JSON(context.Background(), "/api/2.0/mlflow/experiments/search", nil, nil, &struct{}{})
			}
			told := fmt.Sprintf("%s of seed %d, case %d: %s %v\n%s", release, seed, i, a.URI, a.Env, a.files)
			if why := theirs.Errors[i]; why != nil {
				// MLflow reads ~/.mlflow/credentials even where something goes before it, and
				// has no way to send more than Latin-1 from a netrc file.
				if err == nil && strings.HasPrefix(*why, "MlflowException") && !strings.Contains(*why, "latin-1") {
					t.Errorf("%sMLflow refuses: %s", told, *why)
				}
				continue
			}
			want := got[fmt.Sprintf("/%s/%d", release, i)]
			if release == "mlflow2" {
				want.Workspace = got[at].Workspace
			}
			if err != nil || got[at] != want {
				t.Errorf("%sours: %+v %v\nwant: %+v", told, got[at], err, want)
			}
			compared++
		}
		t.Logf("%s: %d of %d environments compared", release, compared, len(cases))
		if compared < len(cases)/3 {
			t.Errorf("%s: only %d of %d environments could be compared", release, compared, len(cases))
		}
	}
}

// under is cases with a server's directory for each.
func under(cases []asked, name string) (out []asked) {
	for i, a := range cases {
		a.URI += fmt.Sprintf("/%s/%d", name, i)
		out = append(out, a)
	}
	return out
}

// askMLflow runs test/credentials.py with a release of MLflow.
func askMLflow(t *testing.T, release string, given, out any) {
	t.Helper()
	in, err := json.Marshal(given)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(filepath.Join(cmp.Or(os.Getenv("MLFLOWFS_TESTENV"), "../../.testenv"), release, "bin", "python"), "../../test/credentials.py")
	var stderr bytes.Buffer
	c.Stdin, c.Stderr = bytes.NewReader(in), &stderr
	b, err := c.Output()
	if err == nil {
		err = json.Unmarshal(b, out)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
}

// seedOf is the seed of a test's random numbers: MLFLOWFS_SEED, or 1. A failure
// must name it.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed, err := strconv.ParseUint(cmp.Or(os.Getenv("MLFLOWFS_SEED"), "1"), 10, 64)
	if err != nil {
		t.Fatalf("MLFLOWFS_SEED: %v", err)
	}
	return seed
}

// TestHeadersOfAFileGoToTheTrackingServerOnly fails when a header that the user's file
// names is not sent to the tracking server, or not that of now, when another host gets
// it, when a line that is none is taken, or when an error shows what is in the file.
func TestHeadersOfAFileGoToTheTrackingServerOnly(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got http.Header
	serve := func() *httptest.Server {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if got = r.Header.Clone(); got.Get("X-Key") == "old" {
				w.WriteHeader(http.StatusForbidden)
			}
		}))
		t.Cleanup(srv.Close)
		return srv
	}
	near, far := serve(), serve()
	file := filepath.Join(t.TempDir(), "headers")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# of the proxy\nX-Key: first\n\nAuthorization: Proxy s3cret\n")
	vars := env(map[string]string{HeaderFileVariable: file, "MLFLOW_TRACKING_TOKEN": "tok", AllowAddressVariable: "127.0.0.1"})
	c, err := NewClient(near.URL, vars, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get(t, c, near.URL); err != nil || got.Get("X-Key") != "first" || got.Get("Authorization") != "Proxy s3cret" {
		t.Errorf("the tracking server gets %v, %v", got, err)
	}
	if _, err := get(t, c, far.URL); err != nil || got.Get("X-Key") != "" || got.Get("Authorization") != "" {
		t.Errorf("another host gets %v, %v", got, err)
	}
	write("X-Key: old\n")
	c, err = NewClient(near.URL, vars, quiet)
	if err != nil {
		t.Fatal(err)
	}
	write("X-Key: new\n")
	if _, err := get(t, c, near.URL); err != nil || got.Get("X-Key") != "new" {
		t.Errorf("after a refusal the tracking server gets %v, %v", got, err)
	}
	if a := Asker(near.URL, vars); strings.Contains(a, "new") || a == Asker(near.URL, env(map[string]string{"MLFLOW_TRACKING_TOKEN": "tok"})) {
		t.Errorf("who asks with these headers is %s", a)
	}
	for _, text := range []string{"s3cret", "X Key: s3cret", "X-Key: s3\x00cret", "Host: s3cret", "range: s3cret"} {
		write(text)
		if _, err := NewClient(near.URL, vars, quiet); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestProxyIsToldAUserWithAPassword fails when a proxy gets a user without a password,
// which Python's requests does not send, or not one with a password.
func TestProxyIsToldAUserWithAPassword(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{"http://u:p@h:1": "http://u:p@h:1", "http://u:@h:1": "http://u:@h:1", "http://u@h:1": "http://h:1", "http://:p@h:1": "http://h:1", "h:1": "http://h:1"} {
		u, err := url.Parse("http://mlflow.example")
		if err != nil {
			t.Fatal(err)
		}
		got, err := proxies(env(map[string]string{"http_proxy": given}))(&http.Request{URL: u})
		if err != nil || got.String() != want {
			t.Errorf("%s: %v, %v, want %s", given, got, err, want)
		}
	}
}

// TestProxiesAndRedirectsAgainstRequests fails when a request goes to another proxy than
// Python's requests would send it to, or when a redirect's target gets credentials that
// requests would keep from it, or does not get those that requests would send.
func TestProxiesAndRedirectsAgainstRequests(t *testing.T) {
	t.Parallel()
	seed := seedOf(t)
	r := rand.New(rand.NewPCG(seed, 18))
	one := func(of ...string) string { return of[r.IntN(len(of))] }
	address := func() string {
		return one("http", "https") + "://" + one("a.example", "A.example", "b.a.example", "10.1.2.3", "xa.example", "[2001:db8::1]") + one("", "", ":80", ":443", ":5000")
	}
	var asked []proxied
	for range 500 {
		p := proxied{address(), map[string]string{}}
		for _, name := range []string{"http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"} {
			if r.IntN(3) == 0 {
				p.Env[name] = one("http://p1:1", "p2", "https://p3:3", "http://u:s@p4:4")
			}
		}
		for _, name := range []string{"no_proxy", "NO_PROXY"} {
			if r.IntN(2) == 0 {
				p.Env[name] = one("*", "a.example", ".a.example", "example:5000", "10.0.0.0/8", "10.1.2.3", "other, .example", "b.a.example:443", "10.2.0.0/16,10.1.2", "2001:db8::1", ",", "*,x")
			}
		}
		if r.IntN(4) == 0 {
			p.Env["REQUEST_METHOD"] = "GET"
		}
		asked = append(asked, p)
	}
	var redirects [][2]string
	for range 300 {
		redirects = append(redirects, [2]string{address(), address()})
	}
	var theirs struct {
		Proxies []string
		Kept    []bool
	}
	askMLflow(t, "mlflow3", map[string]any{"cases": []int{}, "proxies": asked, "redirects": redirects}, &theirs)
	parse := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for i, p := range asked {
		got, err := proxies(env(p.Env))(&http.Request{URL: parse(p.URL)})
		ours := ""
		if got != nil {
			ours = got.String()
		}
		if err != nil || ours != strings.TrimSuffix(theirs.Proxies[i], "/") {
			t.Errorf("seed %d: %s with %v goes to %q %v, want %q", seed, p.URL, p.Env, ours, err, theirs.Proxies[i])
		}
	}
	for i, r := range redirects {
		if got := sameServer(parse(r[0]), parse(r[1])); got != theirs.Kept[i] {
			t.Errorf("seed %d: from %s to %s credentials go along: %v, want %v", seed, r[0], r[1], got, theirs.Kept[i])
		}
	}
}
