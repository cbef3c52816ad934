package artifact

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// aWorkspace is a client of a workspace that answers with answer.
func aWorkspace(t *testing.T, answer http.HandlerFunc) *rest.Client {
	t.Helper()
	srv := httptest.NewServer(answer)
	t.Cleanup(srv.Close)
	env := map[string]string{"DATABRICKS_HOST": srv.URL, "DATABRICKS_TOKEN": "s3cret", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
	c, err := rest.NewDatabricksClient("databricks", func(name string) string { return env[name] }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// TestPagesOfAListingEnd fails when a workspace's listing is not read to its end, as its
// pages are empty, or it is asked without end by one that gives a page again and again, or
// by one that gives pages without end.
func TestPagesOfAListingEnd(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	for name, c := range map[string]struct {
		page func(n int64) (files, next string)
		want int // entries; -1: an error
		most int64
	}{
		"three pages": {func(n int64) (string, string) { return fmt.Sprintf(`{"path":"f%d"}`, n), []string{"", "a", "b", ""}[n] }, 3, 3},
		"an empty one": {func(n int64) (string, string) {
			return []string{"", `{"path":"f"}`, "", `{"path":"g"}`}[n], []string{"", "a", "b", ""}[n]
		}, 2, 3},
		"the last one repeats": {func(n int64) (string, string) { return []string{"", `{"path":"f"}`, "", ""}[n], "a" }, 1, 2},
		"one again and again":  {func(int64) (string, string) { return `{"path":"f"}`, "a" }, -1, 2},
		"pages without an end": {func(n int64) (string, string) {
			return strings.Repeat(`{"path":"f"},`, 400_000) + `{"path":"f"}`, fmt.Sprint(n)
		}, -1, 3},
		"a token that is a list": {func(int64) (string, string) { return `{"path":"f"}`, `"],"next_page_token":["` }, -1, 2},
	} {
		asked.Store(0)
		w := aWorkspace(t, func(w http.ResponseWriter, _ *http.Request) {
			files, next := c.page(asked.Add(1))
			fmt.Fprintf(w, `{"files":[%s],"next_page_token":"%s"}`, files, next)
		})
		tree, err := NewDatabricks(w, Door{RunID: "r"}).List(t.Context(), "")
		if got := len(tree[""]); asked.Load() > c.most || c.want < 0 && err == nil || c.want >= 0 && (got != c.want || err != nil) {
			t.Errorf("%s: %d entries by %d requests, %v", name, got, asked.Load(), err)
		}
	}
}

// TestWorkspaceSignsForOneFile fails when an answer that holds no URL, or several, or one
// that can't be parsed, is taken for the file's; when the token goes where a URL leads, or
// a refusal, or what is shown of an error, holds a secret.
func TestWorkspaceSignsForOneFile(t *testing.T) {
	t.Parallel()
	var seen atomic.Int64
	bytes := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		if r.Header.Get("Authorization") != "" || r.Header.Get("X-Key") != "k" {
			t.Errorf("the host of a URL is sent %v", r.Header)
		}
		if r.URL.Query().Get("sig") == "old" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Range", "bytes 0-0/1")
		w.WriteHeader(http.StatusPartialContent)
		io.WriteString(w, "x")
	}))
	t.Cleanup(bytes.Close)
	one := func(url string) string {
		return `{"signed_uri":"` + url + `","headers":[{"name":"X-Key","value":"k"}]}`
	}
	good := one(bytes.URL + "/f?sig=s3cret")
	for name, c := range map[string]struct {
		answer string
		ok     bool
	}{
		"one":          {`{"credential_infos":[` + good + `]}`, true},
		"none":         {`{"credential_infos":[]}`, false},
		"nothing":      {`{}`, false},
		"two":          {`{"credential_infos":[` + good + `,` + good + `]}`, false},
		"no URL":       {`{"credential_infos":[` + one("") + `]}`, false},
		"no good one":  {`{"credential_infos":[` + one("http://[s3cret") + `]}`, false},
		"a file":       {`{"credential_infos":[` + one("file:///etc/passwd?s3cret") + `]}`, false},
		"an inner one": {`{"credential_infos":[` + one("http://169.254.169.254/s3cret?s3cret") + `]}`, false},
		"an old one":   {`{"credential_infos":[` + one(bytes.URL+"/f?sig=old") + `]}`, false},
	} {
		var asked atomic.Int64
		w := aWorkspace(t, func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			if b, _ := io.ReadAll(r.Body); r.URL.Path != "/api/2.0/mlflow/artifacts/credentials-for-read" || string(b) != `{"path":["dir/f"],"run_id":"r"}` {
				t.Errorf("%s is asked for %s", r.URL.Path, b)
			}
			io.WriteString(w, c.answer)
		})
		env := map[string]string{rest.AllowAddressVariable: "127.0.0.1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
		web, err := rest.NewWebClient(func(name string) string { return env[name] }, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		d := NewDatabricks(w, Door{RunID: "r", Dir: "dir"})
		body, err := NewSigned(d, d, web).ReadRange(t.Context(), "f", 0, 1, "")
		if err == nil {
			body.Close()
		}
		if (err == nil) != c.ok || err != nil && strings.Contains(err.Error(), "s3cret") && !strings.Contains(err.Error(), "/s3cret") || asked.Load() > 2 {
			t.Errorf("%s: %v after %d requests", name, err, asked.Load())
		}
	}
	if seen.Load() != 3 {
		t.Errorf("the store was asked %d times", seen.Load())
	}
	d := NewDatabricks(nil, Door{RunID: "r"})
	if _, err := d.ReadRange(t.Context(), "f", 0, 1, ""); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}

// TestLifetimeOfASignedURL fails when a URL is used beyond what it says, as one that
// Azure signs says it, or is believed for ever.
func TestLifetimeOfASignedURL(t *testing.T) {
	t.Parallel()
	for u, want := range map[string][2]float64{ // minutes: at least, at most
		"https://h/f?X-Amz-Expires=900":           {15, 15},
		"https://h/f?X-Goog-Expires=60":           {1, 1},
		"https://h/f?sig=x":                       {1, 1},
		"https://h/f?se=2001-01-01T00%3A00%3A00Z": {1, 1},
		"https://h/f?se=nonsense":                 {1, 1},
		"https://h/f?se=" + url.QueryEscape(time.Now().UTC().Add(30*time.Minute).Format(time.RFC3339)) + "&sig=x": {29, 30},
		"https://h/f?X-Amz-Expires=-1": {1, 1},
	} {
		if got := lifetime(u).Minutes(); got < want[0] || got > want[1] {
			t.Errorf("%s lives for %v minutes", u, got)
		}
	}
}
