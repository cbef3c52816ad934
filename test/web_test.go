package test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// TestWebAddressesAreRead fails when an artifact at a web address is not read:
// MLflow's documentation has http://<host>/mlartifacts for a server's artifacts;
// others are plain files, read with Range.
func TestWebAddressesAreRead(t *testing.T) {
	t.Parallel()
	or := originAt(t, "served 2.22")
	rel := strings.TrimPrefix(or.URI, "mlflow-artifacts:/")
	host := strings.TrimPrefix(or.server.url(), "http://")
	elsewhere := "MLFLOW_TRACKING_URI=sqlite:///" + filepath.Join(or.server.dir, "mlflow.db")
	for _, c := range []struct {
		uri string
		env string
	}{
		{or.server.url() + "/" + rel + "/d/e/f.txt", elsewhere},
		{or.server.url() + "/" + rel + "/d/e/f.txt", "MLFLOW_TRACKING_URI=" + or.server.url()},
		{or.server.url() + artifactsAPI + "/" + rel + "/d/e/f.txt", elsewhere},
		{"mlflow-artifacts://" + host + "/" + rel + "/d/e/f.txt", "MLFLOW_TRACKING_URI=http://127.0.0.1:9"},
	} {
		got, err := command(t, append(fast, c.env), "cat", c.uri)
		if string(got) != "deep" || err != nil {
			t.Errorf("%s: %q, %v", c.uri, got, err)
		}
		out, err := command(t, append(fast, c.env), "ls", strings.TrimSuffix(c.uri, "/e/f.txt"))
		if string(out) != "e/\ng.txt\n" || err != nil {
			t.Errorf("%s: %q, %v", c.uri, out, err)
		}
	}

	dir := t.TempDir()
	file := fileOf(t, 40<<20)
	if err := os.Rename(file, filepath.Join(dir, "a b.bin")); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "a b.bin")
	var ranged, whole atomic.Int64
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("sig") != "s3cret" {
			http.NotFound(w, r)
			return
		}
		if r.Header.Get("Range") != "" {
			ranged.Add(1)
		} else {
			whole.Add(1)
		}
		http.FileServer(http.Dir(dir)).ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	dst := t.TempDir()
	uri := web.URL + "/a%20b.bin?sig=s3cret"
	out, err := command(t, append(fast, elsewhere), "download", "--dst", dst, uri)
	if err != nil || strings.TrimSpace(string(out)) != filepath.Join(dst, "a b.bin") || sumOf(t, filepath.Join(dst, "a b.bin")) != sumOf(t, file) {
		t.Errorf("%s, %v", out, err)
	}
	if ranged.Load() < 3 || whole.Load() > 0 {
		t.Errorf("%d requests with a Range, %d without", ranged.Load(), whole.Load())
	}
	if out, err := command(t, append(fast, elsewhere), "resolve", uri); err != nil || strings.Contains(string(out), "s3cret") || !strings.Contains(string(out), "a plain web address: taken") {
		t.Errorf("%s, %v", out, err)
	}
	_, err = command(t, append(fast, elsewhere), "cat", web.URL+"/none?sig=s3cret")
	var f *failed
	if !errors.As(err, &f) || f.code != 3 || strings.Contains(f.said, "s3cret") {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestMountURIsShowsWhatWasNamed fails when uri/ does not show the buckets and
// directories that were named, or shows others.
func TestMountURIsShowsWhatWasNamed(t *testing.T) {
	t.Parallel()
	o := theObjects(t)
	s3, gs, wasbs := originAt(t, "s3"), originAt(t, "gs"), originAt(t, "wasbs")
	m := mountAt(t, s3.server.url(), append(o.env(), fast...), "--mount-uris", "s3://"+bucket+",gs://"+bucket+"/own/"+gs.Run, "--mount-uris", "wasbs://"+bucket+azureHost)
	for path, or := range map[string]*origin{
		"s3/" + bucket + "/own/" + s3.Run:                       s3,
		"gs/" + bucket + "/own/" + gs.Run:                       gs,
		"wasbs/" + account + "/" + bucket + "/own/" + wasbs.Run: wasbs,
	} {
		differ(t, path, m.path("uri", path, "artifacts"), m.path("runs", or.Run), "--exclude=model")
	}
	for dir, want := range map[string]string{"uri": "gs\ns3\nwasbs\n", "uri/gs/" + bucket: "own\n", "uri/gs/" + bucket + "/own": gs.Run + "\n"} {
		if out, err := output("ls", m.path(dir)); string(out) != want || err != nil {
			t.Errorf("%s: %s, %v", dir, out, err)
		}
	}
	for _, gone := range []string{"uri/s3/other", "uri/gs/" + bucket + "/own/" + gs.Odd, "uri/s3/" + bucket + "/nothing"} {
		if _, err := output("ls", m.path(gone)); err == nil || !strings.Contains(err.Error(), "No such file") {
			t.Errorf("%s: %v", gone, err)
		}
	}
	without := mountAt(t, s3.server.url(), nil)
	if _, err := output("ls", without.path("uri")); err == nil {
		t.Error("uri/ is there without --mount-uris")
	}
}
