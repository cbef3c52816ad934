package test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// signedFront stands before the S3 store for the URLs that are signed: it counts them, and
// holds that they come with nothing of the workspace's.
func signedFront(t *testing.T) (host string, taken *count.Tally) {
	t.Helper()
	taken = &count.Tally{}
	target := &url.URL{Scheme: "http", Host: theObjects(t).s3}
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(target)
		p.Out.Host = p.In.Host // which is signed
	}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			if !slices.Contains([]string{"Accept", "Accept-Encoding", "Connection", "If-Match", "Range", "User-Agent", "X-Of-The-Url"}, name) {
				t.Errorf("the host of a signed URL is sent %s", name)
			}
		}
		if r.Header.Get("X-Of-The-Url") == "" {
			t.Error("a signed URL comes without the header that it needs")
		}
		rec := &statusOf{ResponseWriter: w, status: http.StatusOK}
		proxy.ServeHTTP(rec, r)
		taken.Add(fmt.Sprint(rec.status))
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), taken
}

type statusOf struct {
	http.ResponseWriter
	status int
}

func (s *statusOf) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// TestDatabricksIsMounted fails when a mount of a Databricks workspace does not show its
// experiments, runs, logged and registered models, or a file of one; when a signed URL, or
// its host, is sent the workspace's token, or a URL that has ended is used for long; when what
// was read is gone with the workspace; or when a secret comes into the log, the status or
// the cache.
func TestDatabricksIsMounted(t *testing.T) {
	t.Parallel()
	w := newWorkspaceFake(t)
	host, taken := signedFront(t)
	w.signFor(host)
	w.life = 6 * time.Second
	cache := t.TempDir()
	m := mountAt(t, "databricks", append(w.env(), fast...), "--cache-dir", cache, "--metadata-ttl", "1s", "--log-level", "debug")
	for at, want := range map[string][]string{
		"runs": {dbxRun}, "models": {dbxUC, dbxOwn, dbxModel},
		"runs/" + dbxRun: {"MLmodel", "many"}, "models/" + dbxUC + "@champion": {"MLmodel", "many", "registered_model_meta"}, "models/" + dbxUC: {"1", "2"},
	} {
		out, err := output("ls", m.path(at)+"/")
		for _, name := range want {
			if !slices.Contains(strings.Split(string(out), "\n"), name) || err != nil {
				t.Errorf("%s has no %s:\n%s%v", at, name, out, err)
			}
		}
	}
	out, err := output("find", m.path("experiments"), "-maxdepth", "1")
	if err != nil || len(lines(out)) < 2 {
		t.Errorf("%s, %v", out, err)
	}
	for begin := time.Now(); time.Since(begin) < 2*w.life; time.Sleep(2 * time.Second) {
		for _, dir := range []string{"runs/" + dbxRun, "models/" + dbxModel, "models/" + dbxUC + "/1", "models/" + dbxOwn + "/1"} {
			got, err := output("dd", "if="+m.path(dir, "model.pkl"), "iflag=direct", "bs=4096", "status=none")
			if string(got) != dbxFiles["model.pkl"] || err != nil {
				t.Errorf("%s: %d bytes, %v", dir, len(got), err)
			}
		}
	}
	if n := taken.Of("403"); n > 4 {
		t.Errorf("signed URLs that had ended were used %d times", n)
	}
	w.srv.Close()
	time.Sleep(1500 * time.Millisecond)
	for _, dir := range []string{"runs/" + dbxRun, "models/" + dbxUC + "/1", "models/" + dbxOwn + "/1"} {
		if got, err := read(m.path(dir, "model.pkl")); string(got) != dbxFiles["model.pkl"] || err != nil {
			t.Errorf("with the workspace gone, %s: %d bytes, %v", dir, len(got), err)
		}
	}
	status, err := os.ReadFile(m.path(".mlflowfs", "status.json"))
	if err != nil {
		t.Error(err)
	}
	m.stop()
	for _, secret := range []string{dapi, "s3cret", "X-Amz-Signature", "ASIATEMPORARY"} {
		if strings.Contains(m.log.String(), secret) || strings.Contains(string(status), secret) {
			t.Errorf("%s is in the log or the status", secret)
		}
		if out, _ := output("grep", "-rl", secret, cache); len(out) > 0 {
			t.Errorf("%s lies in %s", secret, out)
		}
	}
}

// TestDatabricksLoginIsAsked fails when a service principal's token is asked for more than
// once by many readers, is not renewed before its end or after it is refused, or its secret
// is sent elsewhere than to the workspace's own login, or shown.
func TestDatabricksLoginIsAsked(t *testing.T) {
	t.Parallel()
	w := newWorkspaceFake(t)
	w.life = 6 * time.Second
	profile := filepath.Join(t.TempDir(), "cfg")
	if err := os.WriteFile(profile, fmt.Appendf(nil, "[DEFAULT]\nhost = https://nowhere.example\ntoken = s3cret-of-nowhere\n[bot]\nhost = %s/?o=1\nclient_id = %s\nclient_secret = %s\n", w.srv.URL, principal, principalSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	env := slices.DeleteFunc(w.env("DATABRICKS_CONFIG_FILE="+profile), func(v string) bool {
		return strings.HasPrefix(v, "DATABRICKS_HOST") || strings.HasPrefix(v, "DATABRICKS_TOKEN")
	})
	m := mountRaced(t, "databricks://bot", env, "--metadata-ttl", "1s", "--log-level", "debug", "--cache-dir", t.TempDir())
	logins := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		n := w.logins
		w.logins = 0
		return n
	}
	list := func() {
		if _, err := output("ls", m.path("runs", dbxRun, "many")); err != nil {
			t.Error(err)
		}
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(list)
	}
	wg.Wait()
	if n := logins(); n < 1 || n > 2 { // of the tracking server and of the registry
		t.Errorf("the principal logged in %d times for 16 readers", n)
	}
	for begin := time.Now(); time.Since(begin) < 12*time.Second; time.Sleep(time.Second) {
		list()
	}
	if n := logins(); n < 1 || n > 6 {
		t.Errorf("in 12 s the principal logged in %d times, each for 6 s", n)
	}
	if count.Of(w.take(), "/oidc/v1/token") == 0 {
		t.Error("no login was seen")
	}
	w.mu.Lock()
	w.life = time.Hour
	w.mu.Unlock()
	time.Sleep(7 * time.Second)
	list() // which takes a token for an hour
	time.Sleep(11 * time.Second)
	w.set("another-s3cret", 0) // and that is refused now
	list()
	m.stop()
	if strings.Contains(m.log.String(), "s3cret") {
		t.Errorf("a secret is in the log:\n%s", m.log)
	}
	wrong := append(slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, "DATABRICKS_CONFIG_FILE") }),
		"DATABRICKS_HOST="+w.srv.URL, "DATABRICKS_CLIENT_ID="+principal, "DATABRICKS_CLIENT_SECRET=s3cret-wrong")
	refuses(t, 4, wrong, []string{"ls", "runs:/" + dbxRun}, "DATABRICKS_CLIENT_SECRET", "refused")
}

// TestDatabricksRefusesInASentence fails when a workspace that is not configured, a token
// that has ended, a model that may not be read, or a name of two parts ends in an error that
// does not say what to do; or a workspace that is busy for a moment ends in one at all.
func TestDatabricksRefusesInASentence(t *testing.T) {
	t.Parallel()
	w := newWorkspaceFake(t)
	env := append(w.env(), fast...)
	without := func(names ...string) []string {
		return slices.DeleteFunc(slices.Clone(env), func(v string) bool {
			return slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(v, n+"=") })
		})
	}
	home := "HOME=" + t.TempDir()
	list := []string{"ls", "models:/" + dbxUC + "/1"}
	refuses(t, 1, append(without("DATABRICKS_HOST", "DATABRICKS_TOKEN"), home), []string{"ls", "runs:/" + dbxRun}, "databricks configure")
	refuses(t, 1, append(without("DATABRICKS_TOKEN"), home), []string{"ls", "runs:/" + dbxRun}, "DATABRICKS_TOKEN")
	refuses(t, 1, append(without("DATABRICKS_HOST"), home), []string{"ls", "runs:/" + dbxRun}, "DATABRICKS_HOST")
	refuses(t, 1, append(env, home, "DATABRICKS_CONFIG_PROFILE=none"), []string{"ls", "runs:/" + dbxRun}, "databricks configure")
	refuses(t, 3, env, []string{"ls", "models:/s.fraud/1"}, "write catalog.schema.name")
	refuses(t, 3, env, []string{"ls", "models:/" + dbxUC + "/9"}, "does not exist")
	refuses(t, 3, env, []string{"ls", "models:/" + dbxUC + "/Production"}, "name a version's number, or an alias")
	w.mu.Lock()
	w.denied = true
	w.mu.Unlock()
	refuses(t, 4, env, list, "EXECUTE on the model "+dbxUC, "USE SCHEMA on main.s", "USE CATALOG on main")
	w.mu.Lock()
	w.denied = false
	w.mu.Unlock()
	w.set(dapi, 2)
	if _, err := command(t, env, list...); err != nil {
		t.Errorf("a workspace that is busy for a moment: %v", err)
	}
	w.set("another", 0)
	refuses(t, 4, env, list, "401", "make another")
	out, _ := mlflowfs(t, env, "doctor", "--cache-dir", t.TempDir(), "databricks").CombinedOutput()
	if !strings.Contains(string(out), "make another") || strings.Contains(string(out), "s3cret") {
		t.Errorf("doctor says\n%s", out)
	}
	w.set(dapi, 0)
	out, err := mlflowfs(t, env, "doctor", "--cache-dir", t.TempDir(), "databricks").CombinedOutput()
	if !strings.Contains(string(out), "a Databricks workspace at 127.0.0.1") || !strings.Contains(string(out), "presigned") || err != nil {
		t.Errorf("doctor says\n%s%v", out, err)
	}
}
