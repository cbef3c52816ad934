package rest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// redirectingTwice are a server that redirects to another one, which does so once more to
// itself, and the headers that the other one gets.
func redirectingTwice(t *testing.T, status int) (near, far *httptest.Server, seen chan http.Header) {
	seen = make(chan http.Header, 10)
	far = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header
		if r.URL.Path != "/end" {
			http.Redirect(w, r, "/end", status)
		}
	}))
	t.Cleanup(far.Close)
	near = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, far.URL+"/first", status)
	}))
	t.Cleanup(near.Close)
	return near, far, seen
}

// TestNoHeaderGoesAlongWithARedirect fails when a host that a store redirects to, at
// once or by one more redirect of its own, gets a header that was for the store: it
// may hold a key.
func TestNoHeaderGoesAlongWithARedirect(t *testing.T) {
	t.Parallel()
	near, _, seen := redirectingTwice(t, http.StatusFound)
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

// TestRedirectKeepsTheWorkspace fails when a server that the tracking server redirects to
// is not asked in the user's workspace, and answers from another one; or when it, or a
// host that was not redirected to, gets the token or that header.
func TestRedirectKeepsTheWorkspace(t *testing.T) {
	t.Parallel()
	near, far, seen := redirectingTwice(t, http.StatusPermanentRedirect)
	c, err := NewClient(near.URL, env(map[string]string{"MLFLOW_WORKSPACE": "team-a", "MLFLOW_TRACKING_TOKEN": "s3cret", AllowAddressVariable: "127.0.0.1"}), quiet)
	if err != nil {
		t.Fatal(err)
	}
	for at, workspace := range map[string]string{near.URL: "team-a", far.URL + "/end": ""} {
		if _, err := get(t, c, at); err != nil {
			t.Fatal(err)
		}
		for len(seen) > 0 {
			if h := <-seen; h.Get("X-Mlflow-Workspace") != workspace || h.Get("Authorization") != "" {
				t.Errorf("from %s, another server gets %v", at, h)
			}
		}
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
