package test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// bent is a local store with which something was done after MLflow wrote it.
type bent struct {
	uri  string
	of   *seeded
	asIf string // the store that MLflow's client is asked about; empty: this one
	old  string // a sqlite file as it was before it was upgraded
}

// bentStores makes them.
func bentStores(t *testing.T, stores map[string]*seeded) map[string]*bent {
	t.Helper()
	dir := t.TempDir()
	files, db := stores["files 3.17"], stores["sqlite 2.22"]
	copied := func(name string) string {
		to := filepath.Join(dir, name)
		if out, err := exec.Command("cp", "-al", files.uri, to).CombinedOutput(); err != nil {
			t.Fatal(string(out), err)
		}
		return to
	}
	linked, moved := copied("linked"), copied("moved")
	link(t, linked, filepath.Join(dir, "disk2"), files)
	if err := move(moved, files.uri); err != nil {
		t.Fatal(err)
	}
	all := map[string]*bent{
		"files linked":    {uri: linked, of: files},
		"files moved":     {uri: moved, of: files, asIf: files.uri},
		"sqlite upgraded": upgraded(t, dir, db),
	}
	if soak != 0 { // which has MLflow 1, too
		all["sqlite 1.30 upgraded"] = upgraded(t, dir, shared.get(t, "sqlite 1.30"))
	}
	return all
}

// upgraded is a sqlite file that MLflow 3 has upgraded.
func upgraded(t *testing.T, dir string, of *seeded) *bent {
	t.Helper()
	old := filepath.Join(dir, string(of.release)+".db")
	now := old + ".upgraded"
	b, err := os.ReadFile(strings.TrimPrefix(of.uri, "sqlite:///"))
	if err := errors.Join(err, os.WriteFile(old, b, 0o600), os.WriteFile(now, b, 0o600)); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(release("mlflow3").bin("mlflow"), "db", "upgrade", "sqlite:///"+now)
	c.Dir, c.Env = dir, pythonEnv()
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatal(string(out), err)
	}
	return &bent{uri: "sqlite:///" + now, of: of, old: old}
}

// link moves an experiment and a run of a FileStore to another disk and links them, and
// leaves beside them what can't be read.
func link(t *testing.T, store, disk2 string, of *seeded) {
	t.Helper()
	experiment := func(run string) string {
		found, err := filepath.Glob(filepath.Join(store, "*", run))
		if err != nil || len(found) != 1 {
			t.Fatal(run, found, err)
		}
		return found[0]
	}
	second, wide := experiment(of.Second), filepath.Dir(experiment(of.Wide))
	away := filepath.Join(disk2, of.Second)
	err := errors.Join(os.Mkdir(disk2, 0o755),
		os.Rename(second, away), os.Symlink(away, second),
		os.Rename(wide, filepath.Join(disk2, "e")), os.Symlink("../disk2/e", wide),
		os.Symlink("loop", filepath.Join(store, "loop")), os.Symlink("/nowhere", filepath.Join(store, "777")),
		os.Mkdir(filepath.Join(store, "778"), 0o755), os.WriteFile(filepath.Join(store, "778", "meta.yaml"), []byte("{{{"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

// move has a FileStore's files tell that it was written at another place than was, which
// is there no more.
func move(store, was string) error {
	return filepath.WalkDir(store, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() != "meta.yaml" {
			return err
		}
		b, err := os.ReadFile(p)
		return errors.Join(err, os.Remove(p), os.WriteFile(p, bytes.ReplaceAll(b, []byte(was), []byte("/nowhere/mlruns")), 0o600)) // the file is linked
	})
}
