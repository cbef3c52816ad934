package rest

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNetrcIsForTheHostThatItNames fails when a host that the netrc file names, which a
// web address or a redirect leads to, is not sent the entry's user and password, as
// Python's requests sends them; when another one is, by the default entry, too; when a
// signed URL is, which AWS then refuses; or when a server's word has them sent while
// other users see what comes back.
func TestNetrcIsForTheHostThatItNames(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "netrc")
	if err := os.WriteFile(file, []byte("machine 127.0.0.1 login far password there\ndefault login any password where\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	basic := func(user, password string) string {
		r := &http.Request{Header: http.Header{}}
		r.SetBasicAuth(user, password)
		return r.Header.Get("Authorization")
	}
	far, anyone := basic("far", "there"), basic("any", "where")
	for _, shared := range []string{"false", "true"} {
		var other, tracking seen
		named := other.server(t, ok)
		near := tracking.server(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/away" {
				http.Redirect(w, r, named.URL, http.StatusFound)
			}
		})
		here := strings.Replace(near.URL, "127.0.0.1", "localhost", 1)
		vars := env(map[string]string{"NETRC": file, AllowAddressVariable: "127.0.0.1,localhost", AllowOtherVariable: shared})
		client, err := NewClient(here, vars, quiet)
		if err != nil {
			t.Fatal(err)
		}
		web, err := NewWebClient(vars, quiet)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"false": far}[shared]
		for _, c := range []struct {
			client    *Client
			url       string
			ctx       context.Context
			far, near string
		}{
			{client, named.URL, t.Context(), want, ""},
			{client, here + "/away", t.Context(), want, anyone},
			{web, named.URL, t.Context(), want, ""},
			{web, here, t.Context(), "", ""},
			{web, here + "/away", t.Context(), want, ""},
			{web, named.URL + "?X-Amz-Signature=1", WithSigned(t.Context()), "", ""},
			{web, here + "/away", WithSigned(t.Context()), "", ""},
		} {
			other, tracking = seen{}, seen{}
			req, err := http.NewRequestWithContext(c.ctx, http.MethodGet, c.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := c.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if other.auth != c.far || tracking.auth != c.near {
				t.Errorf("shared %s, %s: %q and %q, want %q and %q", shared, c.url, other.auth, tracking.auth, c.far, c.near)
			}
		}
	}
}

// TestEmptyNetrcEntryIsOfItsHost fails when a host whose entry of the netrc file says
// nothing is sent the default one's user and password: Python's netrc takes the host's.
func TestEmptyNetrcEntryIsOfItsHost(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "netrc")
	if err := os.WriteFile(file, []byte("machine empty\ndefault login any password where\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	vars := env(map[string]string{"NETRC": file})
	if user, password, ok := netrcFor("empty", vars); ok {
		t.Errorf("the empty entry: %q %q", user, password)
	}
	if user, password, ok := netrcFor("other", vars); user != "any" || password != "where" || !ok {
		t.Errorf("another host: %q %q %v", user, password, ok)
	}
}

// TestNetrcIsNotOfTheWorkingDirectory fails when a file that lies where a program without
// a home happens to run says who it is.
func TestNetrcIsNotOfTheWorkingDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile(".netrc", []byte("default login any password where\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if name := netrcFile(env(nil)); name != "" {
		t.Errorf("it is %s", name)
	}
}
