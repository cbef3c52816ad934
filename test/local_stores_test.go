package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMovedFileStoreIsShown fails when a FileStore of MLflow's that its owner moved
// to another directory, with an experiment linked from another disk, one deleted
// and one that can't be read, does not give by ls, cat and a mount what MLflow
// wrote; when a prompt lists the working directory; or when `doctor` and `status`
// do not say what can't be read.
func TestMovedFileStoreIsShown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	written := filepath.Join(dir, "written")
	out := release("mlflow3").code(t, dir, []string{"MLFLOW_TRACKING_URI=" + written}, "", "-c", `
import mlflow, os
uri = os.environ["MLFLOW_TRACKING_URI"]
c = mlflow.MlflowClient(uri, uri)
for name in ["kept", "linked", "deleted", "lost", "unread"]:
    e = c.create_experiment(name)
    run = c.create_run(e).info.run_id
    c.log_text(run, "text of " + name, "dir/a.txt")
    c.set_terminated(run)
    print(name, e, run)
c.delete_experiment(c.get_experiment_by_name("deleted").experiment_id)
c.create_registered_model("m")
c.create_model_version("m", c.get_run(run).info.artifact_uri + "/dir", run)
c.register_prompt("prompt", "say {{it}}")
`)
	experiment, run := map[string]string{}, map[string]string{}
	for l := range strings.Lines(out) {
		if f := strings.Fields(l); len(f) == 3 {
			experiment[f[0]], run[f[0]] = f[1], f[2]
		}
	}
	store, disk2 := filepath.Join(dir, "mlruns"), filepath.Join(dir, "disk2")
	do := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	do(os.Rename(written, store))
	do(os.Mkdir(disk2, 0o755))
	do(os.Rename(filepath.Join(store, experiment["linked"]), filepath.Join(disk2, "e")))
	do(os.Symlink("../disk2/e", filepath.Join(store, experiment["linked"])))
	do(os.RemoveAll(filepath.Join(store, experiment["lost"], run["lost"], "artifacts")))
	do(os.Symlink("loop", filepath.Join(store, "loop")))
	do(os.MkdirAll(filepath.Join(dir, "dummy-source", "s3cret"), 0o755))

	at := func(args ...string) (out, errs string, err error) {
		c := mlflowfs(t, append(fast, "MLFLOW_TRACKING_URI="+store), args...)
		c.Dir = dir
		var o, e strings.Builder
		c.Stdout, c.Stderr = &o, &e
		err = c.Run()
		return o.String(), e.String(), err
	}
	for _, name := range []string{"kept", "linked", "deleted"} {
		if got, _, err := at("cat", "runs:/"+run[name]+"/dir/a.txt"); err != nil || got != "text of "+name {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		got, _, err := at("ls", "--json", "runs:/"+run[name]+"/dir")
		var listed []struct{ Path string }
		if err != nil || json.Unmarshal([]byte(got), &listed) != nil || len(listed) != 1 {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if got, _, err := at("cat", "models:/m/1/a.txt"); err != nil || got != "text of unread" {
		t.Errorf("a version: %q, %v", got, err)
	}
	if got, said, err := at("ls", "runs:/"+run["lost"]); err != nil || !strings.Contains(said, "neither where") {
		t.Errorf("artifacts that are nowhere are not said: %q, %q, %v", got, said, err)
	}
	if got, said, err := at("ls", "models:/prompt/1"); err == nil || got != "" || !strings.Contains(said, "is a prompt") {
		t.Errorf("a prompt: %q, %q, %v", got, said, err)
	}
	if got, _, _ := at("doctor", "--cache-dir", "none"); !strings.Contains(got, "better  FileStore    loop/meta.yaml is passed over: too many levels of symbolic links") || !strings.Contains(got, experiment["lost"]+" (artifacts) is passed over") {
		t.Errorf("doctor says\n%s", got)
	}
	m := mountAt(t, store, fast)
	if got, err := read(m.path("runs", run["linked"], "dir", "a.txt")); err != nil || string(got) != "text of linked" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := output("ls", m.path("experiments")); err != nil || strings.Join(lines(got), " ") != "Default kept linked lost unread" {
		t.Errorf("experiments: %s, %v", got, err)
	}
	if got, _, err := at("status", m.dir); err != nil || !strings.Contains(got, "left out") || !strings.Contains(got, "loop/meta.yaml") {
		t.Errorf("status says\n%s, %v", got, err)
	}
	if n := strings.Count(m.log.String(), "part=loop/meta.yaml"); n != 1 {
		t.Errorf("the log says %d times that a part can't be read", n)
	}
}

// TestUpgradeUnderAMount fails when a run of a sqlite file can't be read while
// `mlflow db upgrade` of a newer MLflow changes its tables under a mount, when what
// the newer MLflow then logs is not seen, or when `doctor` does not say the revision.
func TestUpgradeUnderAMount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	uri := "sqlite:///" + filepath.Join(dir, "mlflow.db")
	logs := func(r release, before string) string {
		t.Helper()
		return lastLine(r.code(t, dir, []string{"MLFLOW_TRACKING_URI=" + uri}, "", "-c", before+`
import mlflow, os
c = mlflow.MlflowClient()
run = c.create_run("0", run_name="of " + mlflow.__version__[0]).info.run_id
c.log_param(run, "lr", "0.1")
c.set_terminated(run)
if mlflow.__version__[0] == "3":
    m = c.create_logged_model("0", name="model", source_run_id=run)
    c.finalize_logged_model(m.model_id, "READY")
print(run)
`))
	}
	doctor := func(words string) {
		t.Helper()
		if out, err := mlflowfs(t, fast, "doctor", "--cache-dir", "none", uri).CombinedOutput(); err != nil || !strings.Contains(string(out), words) {
			t.Errorf("doctor says, and not %q:\n%s, %v", words, out, err)
		}
	}
	logs("mlflow2", `
import mlflow
c = mlflow.MlflowClient()
c.create_run(c.create_experiment("elsewhere", artifact_location="file:///nowhere/ann/mlruns/9"))
`)
	doctor("/artifacts is not on this machine: there is no /nowhere/ann")
	doctor("ok      sqlite       the tables are of revision 0584bdc529eb, which is older than MLflow 3.17")
	m := mountAt(t, uri, fast)
	lr := m.path("experiments", "Default", "of 2", "params", "lr")
	done, seen := make(chan struct{}), make(chan error)
	go func() {
		var err error
		for reads := 0; ; reads++ {
			if b, rerr := read(lr); (rerr != nil || string(b) != "0.1") && err == nil {
				err = fmt.Errorf("read %d: %q, %v", reads, b, rerr)
			}
			select {
			case <-done:
				seen <- err
				return
			default:
			}
		}
	}()
	newer := logs("mlflow3", "import os; from mlflow.store.db import utils; utils._upgrade_db(utils.create_sqlalchemy_engine(os.environ['MLFLOW_TRACKING_URI']))")
	close(done)
	if err := <-seen; err != nil {
		t.Error("while the file is upgraded: ", err)
	}
	waitFor(t, "what the newer MLflow logged is not seen", 20e9, func() bool {
		b, err := output("ls", m.path("runs", newer))
		return err == nil && strings.TrimSpace(string(b)) == "model"
	})
	doctor("ok      sqlite       the tables are of revision dc11669786a5, that of MLflow 3.17")
}
