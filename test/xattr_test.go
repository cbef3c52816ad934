package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// xattrs reads the extended attributes of files, as JSON, in a process of its own.
const xattrs = `
import json, os, sys
print(json.dumps([{n: os.getxattr(p, n).decode() for n in os.listxattr(p)} for p in sys.argv[1:]]))
`

// TestExtendedAttributesNameTheArtifact fails when an artifact does not tell by
// its extended attributes what it is in MLflow's own words, and how much of it is
// here.
func TestExtendedAttributesNameTheArtifact(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17")
	e := newEngineFiles(t, map[string]int{"d/f": 300_000})
	m := mountAt(t, e.URL, fast)
	of := func(paths ...string) []map[string]string {
		t.Helper()
		out, err := exec.Command("python3", append([]string{"-c", xattrs}, paths...)...).CombinedOutput()
		var got []map[string]string
		if err != nil || json.Unmarshal(out, &got) != nil {
			t.Fatal(string(out), err)
		}
		return got
	}
	file := m.path("runs", e.run, "d", "f")
	got := of(m.path("runs"), m.path("runs", e.run), m.path("runs", e.run, "d"), file, m.path("models", "echo@champion", "MLmodel"))
	want := []map[string]string{
		{},
		{"user.mlflow.uri": "runs:/" + e.run, "user.mlflow.run_id": e.run},
		{"user.mlflow.uri": "runs:/" + e.run + "/d", "user.mlflow.run_id": e.run},
		{"user.mlflow.uri": "runs:/" + e.run + "/d/f", "user.mlflow.run_id": e.run, "user.mlflow.cached_bytes": "0"},
		{"user.mlflow.uri": "models:/echo/1/MLmodel", "user.mlflow.model_version": "echo/1", "user.mlflow.cached_bytes": "0"},
	}
	for i := range want {
		if fmt.Sprint(got[i]) != fmt.Sprint(want[i]) {
			t.Errorf("%v, and not %v", got[i], want[i])
		}
	}
	e.same(t, m, filepath.Join("d", "f"))
	if got := of(file)[0]["user.mlflow.cached_bytes"]; got != "300000" {
		t.Errorf("%s bytes are in the cache", got)
	}
	// A program that copies them has a link back to the run.
	if out, err := exec.Command("cp", "--preserve=xattr", file, filepath.Join(t.TempDir(), "copy")).CombinedOutput(); err != nil {
		t.Logf("cp: %s, %v", out, err) // where the file system of the copy takes none
	}
	if err := exec.Command("python3", "-c", "import os,sys; os.setxattr(sys.argv[1], 'user.x', b'y')", file).Run(); err == nil {
		t.Error("an attribute was set")
	}

	// An object store's validator is one, too.
	o, store := theObjects(t), s3Proxy(t)
	o.put(t, "s3", "xattr/f", fileOf(t, 1000))
	n := mountAt(t, s.uri, append(s3Env(store.Addr()), fast...), "--mount-uris", "s3://"+bucket+"/xattr")
	if got := of(n.path("uri", "s3", bucket, "xattr", "f"))[0]; got["user.mlflow.uri"] != "s3://"+bucket+"/xattr/f" || len(got["user.mlflow.etag"]) < 10 {
		t.Errorf("%v", got)
	}
	if _, err := os.Stat(n.path("uri")); err != nil {
		t.Error(err)
	}
}
