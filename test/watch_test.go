package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// TestWatchTellsEachMoveOnce fails when a move of an alias is not told, or told
// twice, or does not run the command; or when an outage is told as a move.
func TestWatchTellsEachMoveOnce(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17").server
	p := proxyTo(t, s.url())
	model, to := newAlias(t, s.url())
	to("1")
	dir := t.TempDir()
	c := mlflowfs(t, fast, "watch", "--tracking-uri", p.URL, "--every", "200ms", "--exec", `echo "$MLFLOWFS_OLD_VERSION to $MLFLOWFS_VERSION of $MLFLOWFS_URI" >> `+filepath.Join(dir, "moves")+`; test $MLFLOWFS_VERSION != 3`, "models:/"+model+"@champion")
	out, errs := &count.Log{}, &count.Log{}
	c.Stdout, c.Stderr = out, errs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	says := func(text string) {
		t.Helper()
		waitFor(t, "no "+text+" in "+out.String()+errs.String(), 20*time.Second, func() bool { return strings.Contains(out.String(), text) })
	}
	says("models:/" + model + "@champion none 1")
	to("2")
	says("models:/" + model + "@champion 1 2")
	to("3")
	says("models:/" + model + "@champion 2 3")
	p.Break(down, nil)
	waitFor(t, "the outage is not seen", 20*time.Second, func() bool { return strings.Contains(errs.String(), "the server can't be asked") })
	p.Break(nil, nil)
	to("1")
	says("models:/" + model + "@champion 3 1")
	waitFor(t, "the last command does not run", 10*time.Second, func() bool { return filesBelow(dir) > 0 && strings.Count(readFile(dir+"/moves"), "\n") == 3 })
	c.Process.Signal(syscall.SIGTERM)
	if err := c.Wait(); err != nil {
		t.Error(err, errs)
	}
	moves, _ := os.ReadFile(filepath.Join(dir, "moves"))
	if got := string(moves); got != strings.ReplaceAll("1 to 2 of URI\n2 to 3 of URI\n3 to 1 of URI\n", "URI", "models:/"+model+"@champion") {
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

// newAlias makes a registered model of three versions; to has its alias champion
// mean one of them.
func newAlias(t *testing.T, server string) (model string, to func(version string)) {
	t.Helper()
	model = fmt.Sprintf("w%d", time.Now().UnixNano())
	ask := func(path string, in map[string]any) { api(t, server, "/api/2.0/mlflow/"+path, in) }
	ask("registered-models/create", map[string]any{"name": model})
	for range 3 {
		run := newRun(t, server, "0")
		ask("model-versions/create", map[string]any{"name": model, "source": "runs:/" + run, "run_id": run})
	}
	return model, func(version string) {
		ask("registered-models/alias", map[string]any{"name": model, "alias": "champion", "version": version})
	}
}
