package test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Each move of an alias is told once, and runs a command, also when it goes and
// comes back; an outage is no move.
func TestWatch(t *testing.T) {
	s := startServer(t, "mlflow3", nil)
	to := newAlias(t, s.url())
	to("1")
	dir := t.TempDir()
	c := mlflowfs(t, fast, "watch", "--tracking-uri", s.url(), "--every", "200ms", "--exec", `echo "$MLFLOWFS_OLD_VERSION to $MLFLOWFS_VERSION of $MLFLOWFS_URI" >> `+filepath.Join(dir, "moves")+`; test $MLFLOWFS_VERSION != 3`, "models:/w@champion")
	out, errs := &logBuffer{}, &logBuffer{}
	c.Stdout, c.Stderr = out, errs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	says := func(text string) {
		t.Helper()
		waitFor(t, "no "+text+" in "+out.String()+errs.String(), 20*time.Second, func() bool { return strings.Contains(out.String(), text) })
	}
	says("models:/w@champion none 1")
	to("2")
	says("models:/w@champion 1 2")
	to("3")
	says("models:/w@champion 2 3")
	s.stop()
	time.Sleep(2 * time.Second)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	to("1")
	says("models:/w@champion 3 1")
	time.Sleep(time.Second)
	c.Process.Signal(syscall.SIGTERM)
	if err := c.Wait(); err != nil {
		t.Error(err, errs)
	}
	moves, _ := os.ReadFile(filepath.Join(dir, "moves"))
	if got := string(moves); got != "1 to 2 of models:/w@champion\n2 to 3 of models:/w@champion\n3 to 1 of models:/w@champion\n" {
		t.Errorf("the commands ran as\n%s", got)
	}
	if n := strings.Count(out.String(), "\n"); n != 4 {
		t.Errorf("%d lines:\n%s", n, out)
	}
	if !strings.Contains(errs.String(), "--exec failed") {
		t.Errorf("a command's failure is not said: %s", errs)
	}
	refuses(t, 2, nil, []string{"watch", "models:/w/1"}, "names nothing that moves")
	refuses(t, 2, nil, []string{"watch", "runs:/x"}, "names nothing that moves")
}

// newAlias makes a registered model w of three versions; what it gives has
// w@champion mean one of them.
func newAlias(t *testing.T, server string) (to func(version string)) {
	t.Helper()
	ask := func(path string, in map[string]any) { api(t, server, "/api/2.0/mlflow/"+path, in) }
	ask("registered-models/create", map[string]any{"name": "w"})
	for range 3 {
		run := newRun(t, server, "0")
		ask("model-versions/create", map[string]any{"name": "w", "source": "runs:/" + run, "run_id": run})
	}
	return func(version string) {
		ask("registered-models/alias", map[string]any{"name": "w", "alias": "champion", "version": version})
	}
}
