package test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mlflowfs/mlflowfs/test/anykey"
)

// TestDirectoryWinsOnEveryWay fails when an object that has the name of a directory, as
// S3's consoles leave them, hides the directory on some way to it, so that a download
// ends well with no model; or when content that can't be shown for it is not said, and
// does not fail a download.
func TestDirectoryWinsOnEveryWay(t *testing.T) {
	t.Parallel()
	r := newS3Run(t)
	direct := newRun(t, r.server.url(), newExperiment(t, r.server.url(), "odd keys", "s3://"+bucket+"/a//b"))
	keys := anykey.Bucket{}
	for _, root := range []string{r.key(""), "a//b/" + direct + "/artifacts/"} {
		for name, content := range map[string]string{"good/model": "", "good/model/MLmodel": "flavors: {}", "good/f": "f", "bad/x": "ten bytes.", "bad/x/MLmodel": "flavors: {}", "bad/y": "y"} {
			keys[root+name] = content
		}
	}
	keys["a//b/"+direct+"/artifacts/good/back\bspace.txt"] = "\b" // the server escapes it: see TestAmbiguousPathIsRefused
	store := httptest.NewServer(keys)
	t.Cleanup(store.Close)
	onS3.mu.Lock()
	onS3.runs[r.id] = keys // newS3Run takes it away
	onS3.mu.Unlock()
	for _, way := range []string{"direct", "presigned", "server"} {
		run := "runs:/" + r.id
		if way == "direct" {
			run = "runs:/" + direct
		}
		env := join(s3Env(store.Listener.Addr().String()), fast, []string{"MLFLOW_TRACKING_URI=" + r.server.url(), "MLFLOWFS_ARTIFACT_ACCESS=" + way})
		if out, err := command(t, env, "cat", run+"/bad/x/MLmodel"); err != nil || string(out) != "flavors: {}" {
			t.Errorf("%s: %q, %v", way, out, err)
		}
		dst := t.TempDir()
		if out, err := command(t, env, "download", "--dst", dst, run+"/good"); err != nil {
			t.Errorf("%s: %s, %v", way, out, err)
		}
		for name, want := range map[string]string{"model/MLmodel": "flavors: {}", "f": "f"} {
			if got := readFile(filepath.Join(dst, "good", name)); got != want {
				t.Errorf("%s: %s is %q", way, name, got)
			}
		}
		if got, err := os.ReadFile(filepath.Join(dst, "good", "back\bspace.txt")); way == "direct" && (string(got) != "\b" || err != nil) {
			t.Errorf("a name with a control character: %q, %v", got, err)
		}
		_, err := command(t, env, "download", "--dst", dst, run+"/bad")
		var f *failed
		if !errors.As(err, &f) || f.code != 1 || !strings.Contains(f.said, `"x", is left out`) {
			t.Errorf("%s: a download without the bytes of a file: %v", way, err)
		}
		for name, want := range map[string]string{"x/MLmodel": "flavors: {}", "y": "y"} {
			if got := readFile(filepath.Join(dst, "bad", name)); got != want {
				t.Errorf("%s: %s is %q", way, name, got)
			}
		}
	}
}

// TestCompressedObjectIsReadAsItIsStored fails when an object of GCS with
// Content-Encoding: gzip has another size or other bytes than the store's, or when a
// way that can give it unpacked only, as through a tracking server, gives some of that
// rather than an error.
func TestCompressedObjectIsReadAsItIsStored(t *testing.T) {
	t.Parallel()
	or, o := originAt(t, "gs"), theObjects(t)
	plain := bytes.Repeat([]byte("unpacked, and longer than packed. "), 1000)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	run := newRun(t, or.server.url(), newExperiment(t, or.server.url(), "packed", "gs://"+bucket+"/packed"))
	release("mlflow3").python(t, o.env(), "", "objects.py", "gs", bucket, "packed/"+run+"/artifacts/t.json", file, "gzip")
	env := join(fast, []string{"MLFLOW_TRACKING_URI=" + or.server.url(), "STORAGE_EMULATOR_HOST=http://" + o.gcs})
	if got, err := command(t, env, "cat", "--artifact-access", "direct", "runs:/"+run+"/t.json"); err != nil || !bytes.Equal(got, packed.Bytes()) {
		t.Errorf("direct: %d bytes, %v", len(got), err)
	}
	dst := t.TempDir()
	_, err := command(t, env, "download", "--dst", dst, "--artifact-access", "server", "runs:/"+run+"/t.json")
	if _, serr := os.Stat(filepath.Join(dst, "t.json")); err == nil || !errors.Is(serr, os.ErrNotExist) {
		t.Errorf("through the server: %v, %v", err, serr)
	}
}
