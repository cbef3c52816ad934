package test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// TestCopiesCanBeChangedAndRemoved fails when a user who copies a model with its modes,
// as cp -r and shutil.copytree do, can't change or remove the copy; or when the mount
// itself is written to.
func TestCopiesCanBeChangedAndRemoved(t *testing.T) {
	t.Parallel()
	needsRoot(t, "it becomes another user")
	s := shared.get(t, "server 3.17")
	m := mountAt(t, s.uri, nil, "--allow-other")
	dir := t.TempDir()
	os.Chmod(filepath.Dir(dir), 0o755)
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	model := m.path("models", "echo", "1")
	const asUser = `set -e
cd "$1"
cp -r "$2" c; echo x >>c/requirements.txt; rm -rf c
python3 -c 'import shutil, sys; shutil.copytree(sys.argv[1], "d"); shutil.rmtree("d")' "$2"
test -z "$(ls -A .)"`
	out, err := output("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", asUser, "sh", dir, model)
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for path, want := range map[string]fs.FileMode{model: fs.ModeDir | 0o755, model + "/MLmodel": 0o644, m.dir: fs.ModeDir | 0o755} {
		if st, err := os.Stat(path); err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v", path, st, err)
		}
	}
	for what, err := range map[string]error{
		"write":  os.WriteFile(model+"/MLmodel", nil, 0),
		"create": os.WriteFile(model+"/new", nil, 0o644),
		"mkdir":  os.Mkdir(model+"/dir", 0o755),
		"remove": os.Remove(model + "/MLmodel"),
		"rename": os.Rename(model+"/MLmodel", model+"/x"),
		"chmod":  os.Chmod(model+"/MLmodel", 0o600),
	} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestInodeNumbersOutlastARemount fails when a backup finds all files changed after a
// remount, since their inode numbers are others; or when two files have one number.
func TestInodeNumbersOutlastARemount(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17")
	numbers := func() map[string]uint64 {
		t.Helper()
		m := mountAt(t, s.uri, nil)
		defer m.stop()
		out := map[string]uint64{}
		for _, root := range []string{m.path("runs", s.Second), m.path("models", "echo"), m.path("experiments", "wide")} {
			err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
				if err != nil || strings.HasSuffix(p, "/runs.csv") { // a table of runs that others start
					return err
				}
				st, err := os.Lstat(p)
				if err != nil {
					return err
				}
				rel, _ := filepath.Rel(m.dir, p)
				out[rel] = st.Sys().(*syscall.Stat_t).Ino
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		return out
	}
	first, again := numbers(), numbers()
	seen := map[uint64]string{}
	for p, ino := range first {
		if again[p] != ino {
			t.Errorf("%s is %d, and %d after a remount", p, ino, again[p])
		}
		if seen[ino] != "" {
			t.Errorf("%s and %s are both %d", p, seen[ino], ino)
		}
		seen[ino] = p
	}
	if len(first) < 50 {
		t.Errorf("only %d names", len(first))
	}
}

// TestFollowerSeesWhatANewOpenSees fails when the lines that a run adds to a log are
// not there for who opens it again, or when a reader that stays gets bytes of another
// version and not an error.
func TestFollowerSeesWhatANewOpenSees(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17")
	experiment := fmt.Sprint("other followed ", time.Now().UnixNano())
	run := newRun(t, s.uri, newExperiment(t, s.uri, experiment, ""))
	log := func(text string) {
		t.Helper()
		s.release.python(t, []string{"MLFLOW_TRACKING_URI=" + s.uri}, "", "log_text.py", run, "grow.log", text)
	}
	point := func(step int) {
		t.Helper()
		api(t, s.uri, "/api/2.0/mlflow/runs/log-metric", map[string]any{"run_id": run, "key": "loss", "value": step, "timestamp": step, "step": step})
	}
	log("one\n")
	point(1)
	m := mountAt(t, s.uri, nil, "--metadata-ttl", "1s")
	path := m.path("runs", run, "grow.log")
	open, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	follower := exec.Command("tail", "-F", "-n", "+1", "--sleep-interval=0.2", path)
	var followed count.Log
	follower.Stdout = &followed
	if err := follower.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		follower.Process.Kill()
		follower.Wait()
	}()
	waitFor(t, "tail -F shows nothing", time.Minute, func() bool { return followed.String() == "one\n" })
	history := m.path("experiments", experiment, run, "metrics", "loss.csv")
	if b, err := os.ReadFile(history); strings.Count(string(b), "\n") != 2 {
		t.Errorf("the metric's history: %q, %v", b, err)
	}
	log("one\ntwo\n")
	point(2)
	waitFor(t, "a new open does not see the metric's new point", time.Minute, func() bool {
		b, _ := os.ReadFile(history)
		return strings.Count(string(b), "\n") == 3
	})
	waitFor(t, "a new open does not see the new line", time.Minute, func() bool {
		b, _ := os.ReadFile(path)
		return string(b) == "one\ntwo\n"
	})
	b := make([]byte, 100)
	n, err := open.ReadAt(b, 0)
	if got := string(b[:n]); got != "one\n" && got != "one\ntwo\n" && !errors.Is(err, syscall.ESTALE) {
		t.Errorf("who stays reads %q, %v", got, err)
	}
	waitFor(t, "tail -F does not show the grown file from its start", time.Minute, func() bool { return followed.String() == "one\none\ntwo\n" })
}
