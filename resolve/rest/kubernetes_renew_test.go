package rest

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// kubeSource is a place that Kubernetes' token and namespace come from.
type kubeSource struct {
	seenAfter time.Duration // how long it may take until a change is seen
	// put puts others into dir, and gives the namespace that is there then.
	put func(t *testing.T, dir, token, namespace string) string
}

// kubeSources are all of them. The last ones' kubeconfig stays as it is.
var kubeSources = map[string]kubeSource{
	"account": {lookEvery, func(t *testing.T, dir, token, namespace string) string {
		// As the kubelet does it: ..data leads to another directory from one moment to the next.
		dir = filepath.Join(dir, "account")
		writeFile(t, filepath.Join(dir, "..of_"+token, "token"), token)
		writeFile(t, filepath.Join(dir, "..of_"+token, "namespace"), namespace)
		err := errors.Join(os.Symlink("..of_"+token, filepath.Join(dir, "..data_tmp")), os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		for _, name := range []string{"token", "namespace"} {
			if e := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); !errors.Is(e, os.ErrExist) {
				err = errors.Join(err, e)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		return namespace
	}},
	"kubeconfig": {lookEvery, func(t *testing.T, dir, token, namespace string) string {
		writeFile(t, filepath.Join(dir, "config"), kubeconfigOf(namespace, "token: "+token))
		return namespace
	}},
	"tokenFile": {kubeEvery, func(t *testing.T, dir, token, _ string) string {
		writeFile(t, filepath.Join(dir, "token"), token)
		return once(t, dir, "tokenFile: token")
	}},
	"exec": {kubeEvery, func(t *testing.T, dir, token, _ string) string {
		writeFile(t, filepath.Join(dir, "token"), token)
		return once(t, dir, execOf("echo >> runs; "+printToken("$(cat token)")))
	}},
}

// once writes a kubeconfig where there is none, and gives its namespace.
func once(t *testing.T, dir, user string) string {
	t.Helper()
	name := filepath.Join(dir, "config")
	if _, err := os.Stat(name); err != nil {
		writeFile(t, name, kubeconfigOf("of-old", user))
	}
	return "of-old"
}

// kubeServer refuses each token but valid, where that is not empty.
type kubeServer struct {
	mu    sync.Mutex
	valid string
	got   []headers
}

func (s *kubeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := headers{r.Header.Get("Authorization"), r.Header.Get("X-Mlflow-Workspace")}
	if s.got = append(s.got, h); s.valid != "" && h.Authorization != "Bearer "+s.valid {
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// only has the server take one token, empty for any, and forget what it got.
func (s *kubeServer) only(valid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.valid, s.got = valid, nil
}

// since gives what the server got since then.
func (s *kubeServer) since() []headers {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got
}

// TestKubernetesCredentialsAreRenewed fails when a client that lives on does not take
// another token of a service account (which the kubelet puts in the place of the last one),
// of a kubeconfig, of its tokenFile or of its program, or not the namespace that came with
// it: within a second where a file has changed that is looked at, a minute else, and at
// once when the server refuses what was read before. It fails, too, when the program runs
// for each request, or when a token that can't be read for a while ends the client.
func TestKubernetesCredentialsAreRenewed(t *testing.T) {
	t.Parallel()
	for name, source := range kubeSources {
		for _, auth := range []string{"kubernetes", "kubernetes-namespaced"} {
			t.Run(name+" "+auth, func(t *testing.T) {
				t.Parallel()
				s := &kubeServer{}
				srv := httptest.NewServer(s)
				defer srv.Close()
				dir := filepath.Join(t.TempDir(), "kube")
				synctest.Test(t, func(t *testing.T) { renewed(t, source, auth, s, srv.URL, dir) })
			})
		}
	}
}

// renewed changes a source under a client.
func renewed(t *testing.T, source kubeSource, auth string, s *kubeServer, uri, dir string) {
	namespace := source.put(t, dir, "tok-1", "ns-1")
	c, err := kubeClient(t, uri, dir, auth)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(step, token, valid string, requests int) {
		t.Helper()
		s.only(valid)
		want := headers{Authorization: "Bearer " + token}
		if auth == "kubernetes-namespaced" {
			want.Workspace = namespace
		}
		_, err := get(t, c, uri)
		if got := s.since(); err != nil || len(got) != requests || got[requests-1] != want {
			t.Errorf("%s: %v, %+v, want %+v at the request %d", step, err, got, want, requests)
		}
		c.CloseIdleConnections() // which the time would wait for
	}
	ask("at first", "tok-1", "", 1)
	for range 20 {
		time.Sleep(2 * lookEvery)
		ask("unchanged", "tok-1", "", 1)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "runs")); err == nil && len(b) != 1 {
		t.Errorf("the program ran %d times in 40 s", len(b))
	}
	namespace = source.put(t, dir, "tok-22", "ns-22")
	time.Sleep(source.seenAfter + time.Millisecond)
	ask("changed", "tok-22", "", 1)
	namespace = source.put(t, dir, "tok-333", "ns-333")
	ask("refused", "tok-333", "tok-333", 2)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(kubeEvery)
	ask("away", "tok-333", "", 1)
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	namespace = source.put(t, dir, "tok-4444", "ns-4444")
	time.Sleep(2 * lookEvery)
	ask("there again", "tok-4444", "", 1)
}
