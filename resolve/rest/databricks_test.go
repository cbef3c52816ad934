package rest

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestDatabricksProfileIsTaken fails when a workspace is asked at another host, or with
// another login, than the Databricks SDK takes from the same environment and profiles; or
// when the token of one profile would go to the host of another.
func TestDatabricksProfileIsTaken(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	profiles := `[DEFAULT]
host = default.example/
token = of-default
[work]
host = https://work.example/?o=12
token = of%work
workspace_id = 12
[bot]
host = https://bot.example:8443
client_id = id
client_secret = s3cret
[half]
host = https://half.example
[cli]
host = https://cli.example
auth_type = databricks-cli
[both]
host = https://both.example
token = t
client_id = id
client_secret = s3cret
auth_type = oauth-m2m
[odd]
host = ftp://odd.example
token = t
`
	named := filepath.Join(home, "named")
	for name, text := range map[string]string{filepath.Join(home, ".databrickscfg"): profiles, named: "[__settings__]\ndefault_profile = mine\n[mine]\nhost = mine.example\ntoken = of-mine\n", filepath.Join(home, "bad"): "s3cret = no section\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		uri  string
		env  map[string]string
		want string // host and login, or words of the error
	}{
		{"databricks", nil, "https://default.example of-default"},
		{"databricks-uc", nil, "https://default.example of-default"},
		{"databricks://work", nil, "https://work.example of%work 12"},
		{"databricks-uc://bot", nil, "https://bot.example:8443 id"},
		{"databricks://both", nil, "https://both.example id"},
		{"databricks", map[string]string{"DATABRICKS_CONFIG_PROFILE": "work"}, "https://work.example of%work 12"},
		{"databricks", map[string]string{"DATABRICKS_HOST": "http://env.example", "DATABRICKS_TOKEN": "of-env"}, "http://env.example of-env"},
		{"databricks", map[string]string{"DATABRICKS_HOST": "env.example", "DATABRICKS_CLIENT_ID": "id", "DATABRICKS_CLIENT_SECRET": "s3cret"}, "https://env.example id"},
		{"databricks://work", map[string]string{"DATABRICKS_HOST": "http://env.example", "DATABRICKS_TOKEN": "of-env"}, "https://work.example of%work 12"},
		{"databricks", map[string]string{"DATABRICKS_CONFIG_FILE": "~/named"}, "https://mine.example of-mine"},
		{"databricks", map[string]string{"DATABRICKS_HOST": "env.example"}, "no login to Databricks in the environment"}, // and not with the default profile's token
		{"databricks", map[string]string{"DATABRICKS_TOKEN": "t"}, "no Databricks host"},
		{"databricks", map[string]string{"DATABRICKS_HOST": "https://u:s3cret@env.example", "DATABRICKS_TOKEN": "t"}, "no address like"},
		{"databricks://half", nil, "no login to Databricks in the profile \"half\""},
		{"databricks://cli", nil, "auth_type \"databricks-cli\", which mlflowfs does not do"},
		{"databricks://odd", nil, "no address like"},
		{"databricks://none", nil, "has no profile \"none\""},
		{"databricks://__settings__", map[string]string{"DATABRICKS_CONFIG_FILE": named}, "has no profile"},
		{"databricks", map[string]string{"DATABRICKS_CONFIG_FILE": home + "/bad"}, "no file that Python's configparser reads"},
		{"databricks", map[string]string{"DATABRICKS_CONFIG_FILE": home + "/none"}, "databricks configure"},
		{"databricks:/work", nil, "databricks://profile"},
		{"databricks://", nil, "databricks://profile"},
		{"databricks://scope:s3cret", nil, "secret scope"},
	} {
		env := func(name string) string {
			if name == "HOME" {
				return home
			}
			return c.env[name]
		}
		w, err := readWorkspace(c.uri, env)
		got := fmt.Sprint(err)
		if err == nil {
			got = strings.TrimSpace(fmt.Sprintf("%s %s%s %s", w.host, w.token, w.oauth.id, w.org))
		}
		if err == nil && got != c.want || err != nil && !strings.Contains(got, c.want) || strings.Contains(got, "s3cret") {
			t.Errorf("%s with %v: %s, and not %s", c.uri, c.env, got, c.want)
		}
	}
}

// TestDatabricksTokenKeepsToItsHost fails when a workspace's token, or a principal's
// secret, goes where the workspace redirects to, or to the host that the profile names
// later; or when two workspaces are taken for one.
func TestDatabricksTokenKeepsToItsHost(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if strings.Contains(fmt.Sprint(r.Header), "s3cret") {
			t.Errorf("another host is sent %v", r.Header)
		}
	}))
	t.Cleanup(other.Close)
	var seen atomic.Int64
	own := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer s3cret-token" && r.Header.Get("X-Databricks-Org-Id") == "7" {
			seen.Add(1)
		}
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(own.Close)
	file := filepath.Join(t.TempDir(), "cfg")
	write := func(host string) {
		if err := os.WriteFile(file, fmt.Appendf(nil, "[p]\nhost = %s\ntoken = s3cret-token\nworkspace_id = 7\n", host), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(own.URL)
	env := func(name string) string { return map[string]string{"DATABRICKS_CONFIG_FILE": file}[name] }
	c, err := NewDatabricksClient("databricks://p", env, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	before := Asker("databricks://p", env)
	ask := func() {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, c.URL("/x", nil).String(), nil)
		if resp, err := c.Do(req); err == nil {
			resp.Body.Close()
		}
	}
	ask()
	write(other.URL + "/?longer")
	time.Sleep(lookEvery + 10*time.Millisecond)
	ask()
	if seen.Load() != 2 {
		t.Errorf("the workspace saw its token %d times", seen.Load())
	}
	if after := Asker("databricks://p", env); after == before || strings.Contains(before+after, "s3cret") {
		t.Errorf("%s and %s", before, after)
	}
}

// TestOAuthTokenIsAskedOnce fails when many requests at once ask for a token each, a token
// is used beyond its end, a login that fails for a moment ends a request, one that is
// refused is asked for again and again, or an endless answer is read to its end.
func TestOAuthTokenIsAskedOnce(t *testing.T) {
	t.Parallel()
	var logins, asked atomic.Int64
	var mode atomic.Value
	mode.Store("well")
	life := 2
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/oidc/v1/token" {
			asked.Add(1)
			if r.Header.Get("Authorization") != fmt.Sprint("Bearer token-", logins.Load()) {
				w.WriteHeader(http.StatusUnauthorized)
			}
			io.WriteString(w, "{}")
			return
		}
		n := logins.Add(1)
		if id, secret, _ := r.BasicAuth(); id != "id" || secret != "s3cret" {
			t.Error("the login is not the principal's")
		}
		switch {
		case mode.Load() == "busy" && n%2 == 0:
			w.WriteHeader(http.StatusServiceUnavailable)
		case mode.Load() == "refused":
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"error_code":"x","message":"s3cret is wrong"}`)
		case mode.Load() == "endless":
			for {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		default:
			time.Sleep(50 * time.Millisecond)
			json.NewEncoder(w).Encode(map[string]any{"access_token": fmt.Sprint("token-", n), "expires_in": life})
		}
	}))
	t.Cleanup(srv.Close)
	env := func(name string) string {
		return map[string]string{"DATABRICKS_HOST": srv.URL, "DATABRICKS_CLIENT_ID": "id", "DATABRICKS_CLIENT_SECRET": "s3cret", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0.01", "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}[name]
	}
	open := func() *Client {
		c, err := NewDatabricksClient("databricks", env, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.CloseIdleConnections)
		return c
	}
	c := open()
	if logins.Load() != 0 {
		t.Error("a login is waited for before anything is asked")
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := c.JSON(t.Context(), "/x", nil, nil, &struct{}{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if logins.Load() != 1 || asked.Load() != 20 {
		t.Errorf("%d logins for %d requests", logins.Load(), asked.Load())
	}
	time.Sleep(1800 * time.Millisecond)
	if err := c.JSON(t.Context(), "/x", nil, nil, &struct{}{}); err != nil || logins.Load() != 2 {
		t.Errorf("a token near its end: %v after %d logins", err, logins.Load())
	}
	mode.Store("busy") // the next login is the third; and then one fails
	time.Sleep(1800 * time.Millisecond)
	logins.Store(3)
	if err := c.JSON(t.Context(), "/x", nil, nil, &struct{}{}); err != nil {
		t.Errorf("a login that fails once: %v", err)
	}
	for _, m := range []string{"refused", "endless"} {
		mode.Store(m)
		logins.Store(0)
		err := open().JSON(t.Context(), "/x", nil, nil, &struct{}{})
		if err == nil || strings.Contains(err.Error(), "s3cret") || logins.Load() != 1 {
			t.Errorf("%s: %v after %d logins", m, err, logins.Load())
		}
	}
}

// TestLentCredentialsAreNotShown fails when a log or an error shows what a registry lends.
func TestLentCredentialsAreNotShown(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	l := Lent{Key: "s3cret", Secret: "s3cret", Session: "s3cret", SAS: "s3cret", Token: "s3cret"}
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "lent", l, "at", &l)
	fmt.Fprintf(&b, "%v %+v %#v %s", l, l, l, struct{ L Lent }{l})
	if strings.Contains(b.String(), "s3cret") {
		t.Error(b.String())
	}
}

// TestDatabricksProfilesAgainstMLflow fails when a workspace is asked at another host, or
// as another user, than the Databricks SDK, by which MLflow's client asks, takes from the
// same environment and profiles; but that a profile is of a piece here, whatever is set
// beside it.
func TestDatabricksProfilesAgainstMLflow(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler()) // where the SDK looks for what it might not know
	t.Cleanup(srv.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(srv.URL, "http://"), ":")
	host := func(path string) string { return "http://localhost:" + port + path }
	home := t.TempDir()
	for name, text := range map[string]string{
		".databrickscfg": "[DEFAULT]\nhost = " + srv.URL + "/\ntoken = of-default\n[work]\nhost = " + host("/?o=12") + "\ntoken = of%%work\nworkspace_id = 12\n" +
			"[bot]\nhost = " + host("") + "\nclient_id = id\nclient_secret = s\n[half]\ntoken = t\n[bare]\n",
		"named": "[__settings__]\ndefault_profile = mine\n[mine]\nhost = " + host("") + "\ntoken = of-mine\n",
		"other": "[only]\nhost = " + host("") + "\ntoken = of-only\n",
	} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	type asked struct {
		Profile *string           `json:"profile"`
		Env     map[string]string `json:"env"`
	}
	var cases []asked
	for _, env := range []map[string]string{
		{}, {"DATABRICKS_CONFIG_PROFILE": "work"}, {"DATABRICKS_CONFIG_PROFILE": "none"}, {"DATABRICKS_CONFIG_FILE": "~/named"}, {"DATABRICKS_CONFIG_FILE": home + "/other"}, {"DATABRICKS_CONFIG_FILE": home + "/none"},
		{"DATABRICKS_HOST": srv.URL, "DATABRICKS_TOKEN": "of-env"}, {"DATABRICKS_HOST": host("/path"), "DATABRICKS_CLIENT_ID": "id", "DATABRICKS_CLIENT_SECRET": "s"},
		{"DATABRICKS_HOST": host("")}, {"DATABRICKS_TOKEN": "t"}, {"DATABRICKS_HOST": srv.URL, "DATABRICKS_TOKEN": "t", "DATABRICKS_WORKSPACE_ID": "7"},
	} {
		env["HOME"] = home
		cases = append(cases, asked{nil, env})
	}
	for _, profile := range []string{"DEFAULT", "work", "bot", "half", "bare", "none", "__settings__"} {
		cases = append(cases, asked{&profile, map[string]string{"HOME": home}})
	}
	in, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	dir := os.Getenv("MLFLOWFS_TESTENV")
	if dir == "" {
		dir = "../../.testenv"
	}
	c := exec.Command(filepath.Join(dir, "mlflow3", "bin", "python"), "../../test/databricks_config.py")
	c.Stdin, c.Env = strings.NewReader(string(in)), []string{"PATH=" + os.Getenv("PATH")}
	out, err := c.Output()
	var theirs [][]string
	if err == nil {
		err = json.Unmarshal(out, &theirs)
	}
	if err != nil || len(theirs) != len(cases) {
		t.Fatalf("%s: %v", out, err)
	}
	for i, c := range cases {
		uri := "databricks"
		if c.Profile != nil {
			uri += "://" + *c.Profile
		}
		w, err := readWorkspace(uri, func(name string) string { return c.Env[name] })
		var ours []string
		if err == nil {
			ours = []string{w.host.String(), w.token + w.oauth.id, w.org}
		}
		if len(theirs[i]) > 0 { // a path and a query it would put before the API's own
			theirs[i][0] = regexp.MustCompile(`^(https?://[^/?]+).*`).ReplaceAllString(theirs[i][0], "$1")
		}
		if fmt.Sprint(ours) != fmt.Sprint(theirs[i]) {
			t.Errorf("%s with %v: %q, %v; and the SDK takes %q", uri, c.Env, ours, err, theirs[i])
		}
	}
}
