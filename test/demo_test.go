package test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mlflowfs/mlflowfs/test/count"
)

// TestDemoShowsARealStore fails when the demo makes a store that the real MLflow
// does not read, does not show it, or leaves more than what it was given a place
// for.
func TestDemoShowsARealStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for round := range 2 { // the second time it finds its store
		c := mlflowfs(t, nil, "demo", dir)
		out := &count.Log{}
		c.Stdout = out
		m := launch(t, filepath.Join(dir, "mnt"), c)
		for _, want := range []string{"experiments", "churn@champion -> churn/2", "Production -> 1", "roc.png", "classes.json", "registered_model_meta", "ls -l ", "cat "} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the demo does not show %q:\n%s", want, out)
			}
		}
		if got, err := read(m.path("experiments/churn/tuned/artifacts/metrics.json")); err != nil || !bytes.Contains(got, []byte("0.902")) {
			t.Error(string(got), err)
		}
		py := release("mlflow3").python(t, []string{"MLFLOW_TRACKING_URI=sqlite:///" + dir + "/store/mlflow.db"}, "", "demo.py", m.dir)
		if !strings.HasSuffix(strings.TrimSpace(py), "ok") {
			t.Error(py)
		}
		if round == 0 {
			c.Process.Signal(syscall.SIGINT)
			<-m.ended
			if m.err != nil {
				t.Error(m.err)
			}
		} else {
			m.stop()
		}
	}

	tmp := t.TempDir()
	c := mlflowfs(t, []string{"TMPDIR=" + tmp}, "demo")
	m := launch(t, "", c)
	c.Process.Signal(syscall.SIGINT)
	<-m.ended
	if left, _ := os.ReadDir(tmp); len(left) > 0 || m.err != nil {
		t.Errorf("the demo leaves %v, %v", left, m.err)
	}

	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "mine"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	refuses(t, 1, nil, []string{"demo", full}, "not empty")
	refuses(t, 2, nil, []string{"demo", "a", "b"}, "one directory")
}

// TestDemoSchemaIsMLflows fails when the demo's tables are not those that MLflow
// makes.
func TestDemoSchemaIsMLflows(t *testing.T) {
	t.Parallel()
	ours, err := os.ReadFile("../cmd/mlflowfs/demo_schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	// A migration writes a table's constraints in any order.
	sorted := func(schema string) []string {
		l := strings.Split(strings.ReplaceAll(schema, ",\n", "\n"), "\n")
		slices.Sort(l)
		return l
	}
	theirs := release("mlflow3").python(t, nil, "", "dump_schema.py")
	if d := cmp.Diff(sorted(theirs), sorted(string(ours))); d != "" {
		t.Errorf("cmd/mlflowfs/demo_schema.sql is not what test/dump_schema.py prints now:\n%s", d)
	}
}
