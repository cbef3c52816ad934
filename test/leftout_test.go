package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// refusing has requests refused whose path ends in path and whose body holds text, as
// what stands before a server refuses them.
func refusing(path, text string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, path) {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if !strings.Contains(string(body), text) {
			return false
		}
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `{"error_code":"PERMISSION_DENIED","message":"not yours"}`)
		return true
	}
}

// leftOut is what a mount says of what it does not show: a line of `status` for each
// part, which stands in status.json, too.
func leftOut(t *testing.T, m *mount) (said []string) {
	t.Helper()
	out, err := mlflowfs(t, nil, "status", m.dir).CombinedOutput()
	if err != nil {
		t.Errorf("%s, %v", out, err)
	}
	for l := range strings.Lines(string(out)) {
		if words, ok := strings.CutPrefix(l, "left out"); ok {
			said = append(said, strings.TrimSpace(words))
		}
	}
	var s struct {
		LeftOut []struct{ Part, Experiment, Why string } `json:"left_out"`
	}
	b, err := read(m.path(".mlflowfs", "status.json"))
	if err != nil || json.Unmarshal(b, &s) != nil || len(s.LeftOut) != len(said) {
		t.Errorf("status says %q, and its file %s, %v", said, b, err)
		return said
	}
	for i, l := range s.LeftOut {
		if !strings.HasPrefix(said[i], l.Part) || !strings.Contains(said[i], l.Experiment) || !strings.Contains(said[i], l.Why) || l.Why == "" {
			t.Errorf("status says %q, and its file %+v", said[i], l)
		}
	}
	return said
}

// aPart tells whether one part is left out, and how that begins.
func aPart(said []string, begins string) bool {
	return len(said) == 1 && strings.HasPrefix(said[0], begins)
}

// TestRefusedExperimentHidesNoOther fails when an experiment whose runs a server does
// not let one search for, or experiments that it does not list, hide what it does give;
// when `status`, status.json, the log or `doctor` do not name what is missing; when it
// is not shown again; or when a search that is not refused takes a second request.
func TestRefusedExperimentHidesNoOther(t *testing.T) {
	t.Parallel()
	s := startServer(t, "mlflow3", nil)
	p := proxyTo(t, s.url())
	runs, ids := map[string]string{}, map[string]string{}
	for _, name := range []string{"a", "b", "closed", "d", "e"} {
		ids[name] = newExperiment(t, s.url(), name, "")
		runs[name] = newRun(t, s.url(), ids[name])
		grow(t, filepath.Join(s.artifacts(), ids[name], runs[name], "artifacts"), 1, 1000)
	}
	api(t, s.url(), "/api/2.0/mlflow/registered-models/create", map[string]any{"name": "model"})
	m := mountAt(t, p.URL, fast, "--metadata-ttl", "300ms")
	searches := func(list string) (n int, shown []string) {
		t.Helper()
		p.Reset()
		out, err := output("ls", m.path(list))
		if err != nil {
			t.Error(err)
		}
		requests, _ := p.Reset()
		return count.Of(requests, "/runs/search"), lines(out)
	}
	if n, shown := searches("runs"); n != 1 || len(shown) != 5 {
		t.Errorf("%d searches find %q", n, shown)
	}
	if said := leftOut(t, m); len(said) > 0 {
		t.Errorf("nothing is left out: %q", said)
	}

	p.Break(refusing("/runs/search", fmt.Sprintf("%q", ids["closed"])), nil)
	time.Sleep(time.Second) // what was listed is asked for again
	n, shown := searches("runs")
	if len(shown) != 4 || slices.Contains(shown, runs["closed"]) || n > 8 {
		t.Errorf("%d searches find %q", n, shown)
	}
	figure(t, "one of %d experiments is refused: %d searches", 6, n)
	if _, shown := searches("experiments"); !slices.Equal(shown, []string{"Default", "a", "b", "closed", "d", "e"}) {
		t.Errorf("experiments are %q", shown)
	}
	if _, shown := searches("experiments/b"); len(shown) != 4 { // its run, and what stands beside runs
		t.Errorf("another experiment holds %q", shown)
	}
	if _, err := output("ls", m.path("experiments", "closed")); err == nil || !strings.Contains(err.Error(), "Permission denied") {
		t.Errorf("the experiment itself: %v", err)
	}
	for _, name := range []string{"closed", "d"} {
		if b, err := output("ls", m.path("runs", runs[name])); err != nil || len(lines(b)) != 1 {
			t.Errorf("a run by its id: %s, %v", b, err)
		}
	}
	if said := leftOut(t, m); !aPart(said, `runs of the experiment "closed": `) || !strings.Contains(said[0], "not yours") {
		t.Errorf("left out are %q", said)
	}
	if n := strings.Count(m.log.String(), "left out"); n != 1 || !strings.Contains(m.log.String(), `the runs of the experiment \"closed\" can't be listed`) {
		t.Errorf("the log says it %d times:\n%s", n, m.log)
	}
	if out, err := mlflowfs(t, fast, "doctor", "--cache-dir", "none", p.URL).CombinedOutput(); err != nil || !strings.Contains(string(out), `better  left out     runs of the experiment "closed": `) {
		t.Errorf("doctor says\n%s, %v", out, err)
	}
	p.Break(nil, nil)
	waitFor(t, "an experiment that is not refused any more is not shown", 20*time.Second, func() bool {
		_, shown := searches("runs")
		return len(shown) == 5
	})
	if said := leftOut(t, m); len(said) > 0 {
		t.Errorf("left out are still %q", said)
	}
	m.stop()

	p.Break(refusing("/experiments/search", ""), nil)
	m = mountAt(t, p.URL, fast)
	if b, err := output("ls", m.path("runs", runs["a"]), m.path("models")); err != nil || !strings.Contains(string(b), "model\n") {
		t.Errorf("a run and the models without experiments: %s, %v", b, err)
	}
	for _, list := range []string{"runs", "experiments"} {
		if b, err := output("ls", m.path(list)); err == nil || !strings.Contains(err.Error(), "Permission denied") {
			t.Errorf("%s without experiments: %s, %v", list, b, err)
		}
	}
	if said := leftOut(t, m); !aPart(said, "experiments: ") {
		t.Errorf("left out are %q", said)
	}
	env := append([]string{"MLFLOW_TRACKING_URI=" + p.URL}, fast...)
	if out, err := command(t, env, "ls", "runs:/"+runs["a"]); err != nil || len(lines(out)) != 1 {
		t.Errorf("ls without experiments: %s, %v", out, err)
	}
	if out, err := mlflowfs(t, env, "doctor", "--cache-dir", "none").CombinedOutput(); err != nil || !strings.Contains(string(out), "better  left out     experiments: ") {
		t.Errorf("doctor says\n%s, %v", out, err)
	}
}

// TestUnusableRegistryCostsItself fails when a registry of a kind that nothing here
// reads, or whose file is damaged, keeps runs from being shown, or when models/, the
// commands, `status` or `doctor` do not say why there are no registered models.
func TestUnusableRegistryCostsItself(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17")
	damaged := filepath.Join(t.TempDir(), "mlflow.db")
	if err := os.WriteFile(damaged, bytes.Repeat([]byte("damage "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	for uri, why := range map[string]string{"uc:nowhere": "names no server", "databricks-uc": "Databricks", "sqlite:///" + damaged: "not a database"} {
		env := append([]string{"MLFLOW_TRACKING_URI=" + s.uri, "MLFLOW_REGISTRY_URI=" + uri}, fast...)
		if out, err := command(t, env, "cat", "runs:/"+s.Wide+"/doc/text.txt"); err != nil || len(out) == 0 {
			t.Errorf("%s: cat: %s, %v", uri, out, err)
		}
		if out, err := command(t, env, "ls", "runs:/"+s.Wide); err != nil || len(lines(out)) < 2 {
			t.Errorf("%s: ls: %s, %v", uri, out, err)
		}
		if out, err := mlflowfs(t, env, "ls", "models:/echo/1").CombinedOutput(); err == nil || !strings.Contains(string(out), why) {
			t.Errorf("%s: a model: %s, %v", uri, out, err)
		}
		if out, err := mlflowfs(t, env, "doctor", "--cache-dir", "none").CombinedOutput(); err != nil || !strings.Contains(string(out), "better  left out     registered models: ") || !strings.Contains(string(out), why) {
			t.Errorf("%s: doctor says\n%s, %v", uri, out, err)
		}
		m := mountAt(t, s.uri, fast, "--registry-uri", uri)
		if said := leftOut(t, m); !aPart(said, "registered models: ") || !strings.Contains(said[0], why) {
			t.Errorf("%s: left out are %q", uri, said)
		}
		if _, err := read(m.path("runs", s.Wide, "doc", "text.txt")); err != nil {
			t.Errorf("%s: %v", uri, err)
		}
		if out, err := output("ls", m.path("models")); err != nil || strings.Contains(string(out), "echo") || !strings.Contains(string(out), "m-") {
			t.Errorf("%s: models/ holds %s, %v", uri, out, err)
		}
		if _, err := output("ls", m.path("models", "echo", "1")); err == nil || !strings.Contains(err.Error(), "not supported") || !strings.Contains(m.log.String(), why) {
			t.Errorf("%s: a model of the mount: %v\n%s", uri, err, m.log)
		}
		if n := strings.Count(m.log.String(), "left out"); n != 1 {
			t.Errorf("%s: the log says it %d times:\n%s", uri, n, m.log)
		}
		m.stop()
	}
}
