package test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// asker is a program that asks where artifacts are, with an environment of its own.
type asker struct {
	t   *testing.T
	env []string
	run string // its XDG_RUNTIME_DIR
}

func newAsker(t *testing.T, env ...string) *asker {
	t.Helper()
	run, err := os.MkdirTemp(work, "run-")
	if err != nil {
		t.Fatal(err)
	}
	a := &asker{t: t, run: run}
	a.env = append(append([]string{"XDG_RUNTIME_DIR=" + run, "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(), "XDG_STATE_HOME=" + t.TempDir(), "MLFLOWFS_CACHE_DIR=" + t.TempDir()}, fast...), env...)
	t.Cleanup(func() {
		for _, point := range a.automounts() {
			mlflowfs(t, a.env, "unmount", point).Run()
		}
		waitFor(t, "a mount stays", 20*time.Second, func() bool { return !strings.Contains(leftovers(), run) })
		os.RemoveAll(run)
	})
	return a
}

// automounts are the mount points that path made.
func (a *asker) automounts() (points []string) {
	for _, line := range lines([]byte(readFile("/proc/self/mountinfo"))) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], a.run+"/") {
			points = append(points, f[4])
		}
	}
	return points
}

// path is what the program is told, and what it is warned of.
func (a *asker) path(args ...string) (path, said string, code int) {
	a.t.Helper()
	c := mlflowfs(a.t, a.env, append([]string{"path", "--quiet"}, args...)...)
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		x, ok := err.(*exec.ExitError)
		if !ok {
			a.t.Fatal(err)
		}
		code = x.ExitCode()
	}
	return strings.TrimSuffix(out.String(), "\n"), errs.String(), code
}

// TestPathIsOnTheMountOfTheSame fails when a program is told of a file on a mount of
// another server, or of another user's, or of the other workspace; when it is not told of
// the one on its own; or when it is told where an alias led a moment ago.
func TestPathIsOnTheMountOfTheSame(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17 with workspaces")
	uri, ours := "MLFLOW_TRACKING_URI="+s.uri, []string{"MLFLOW_WORKSPACE=team-a"}
	m := mountAt(t, s.uri, append(ours, fast...), "--metadata-ttl", "1h")
	other := mountAt(t, s.uri, append([]string{"MLFLOW_WORKSPACE=default"}, fast...), "--metadata-ttl", "1h")
	for what, x := range map[string]struct {
		env  []string
		on   *mount // nil: it is brought
		text string
	}{
		"the same":            {ours, m, "model of team-a"},
		"the other workspace": {[]string{"MLFLOW_WORKSPACE=default"}, other, "model of default"},
		"another user":        {append([]string{"MLFLOW_TRACKING_USERNAME=eve", "MLFLOW_TRACKING_PASSWORD=e"}, ours...), nil, "model of team-a"},
	} {
		a := newAsker(t, append(x.env, uri)...)
		path, said, code := a.path("models:/shared@champion/MLmodel")
		if strings.Contains(said, "mounts that do not answer") && strings.Count(said, "\n") == 1 {
			said = "" // those of other tests
		}
		if b, err := read(path); err != nil || string(b) != x.text || code != 0 || said != "" {
			t.Errorf("%s: %s: %q, %v, %d, %s", what, path, b, err, code, said)
		}
		if on := x.on != nil && strings.HasPrefix(path, x.on.path("models/shared/")); on != (x.on != nil) || filepath.Base(path) != "MLmodel" {
			t.Errorf("%s: %s", what, path)
		}
	}

	a := newAsker(t, append(ours, uri)...)
	for args, want := range map[string]int{"models:/shared/77": 3, "runs:/" + strings.Repeat("f", 32): 3, "runs:/" + s.Spaces["team-a"] + "/none": 3, "models:/": 1} {
		if path, said, code := a.path(args); code != want || path != "" || said == "" {
			t.Errorf("%s: %q, %d, %s", args, path, code, said)
		}
	}
	path, _, _ := a.path("--run-id", s.Spaces["team-a"], "--path", "doc/text.txt")
	if want := m.path("runs", s.Spaces["team-a"], "doc/text.txt"); path != want {
		t.Errorf("a run's file is at %s, and not at %s", path, want)
	}
}

// TestPathIsAnew fails when a program is told where an alias led before it moved, though
// the mount believes for an hour what it heard; or when a version costs more than the
// questions for it, for where it lies, for its run and for what that has; the latest one
// is told of with the registered model, and is asked for no more.
func TestPathIsAnew(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17").server
	p := proxyTo(t, s.url())
	model, to := newAlias(t, s.url())
	m := mountAt(t, p.URL, fast, "--metadata-ttl", "1h")
	a := newAsker(t, "MLFLOW_TRACKING_URI="+p.URL)
	for _, version := range []string{"1", "3", "2", "1"} {
		to(version)
		path, said, code := a.path("models:/" + model + "@champion")
		if want := m.path("models", model, version); path != want || code != 0 {
			t.Errorf("the alias means version %s, and path says %s (%d, %s)", version, path, code, said)
		}
		asked, _ := p.Reset()
		if got := count.Of(asked, "/model-versions/get?"); (got == 0) != (version == "3") {
			t.Errorf("version %s was asked for %d times: %v", version, got, asked)
		}
	}
	if path, said, _ := a.path("models:/" + model + "/2"); path != m.path("models", model, "2") {
		t.Error(path, said)
	}
	if asked, _ := p.Reset(); len(asked) > 5 { // one is the listing, which is wanted next
		t.Errorf("a version's path costs %d requests: %v", len(asked), asked)
	}
}

// TestPathListsBeforeItIsTold fails when a directory that a URI led to before is listed only
// once the server has said that it still does: a store that is far is asked meanwhile. Or
// when it is listed twice, or what has come since is not in it.
func TestPathListsBeforeItIsTold(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17")
	p := proxyTo(t, s.uri)
	plant(t, s, "old", 1, text())
	m := mountAt(t, p.URL, fast, "--metadata-ttl", "1h")
	dir := m.path("runs", s.Empty, t.Name())
	if entries, err := os.ReadDir(dir); len(entries) != 1 {
		t.Fatal(entries, err)
	}
	plant(t, s, "new", 1, text())
	listed, isListing := make(chan bool), func(r *http.Request) bool {
		return r.URL.Path == artifactsAPI && strings.HasSuffix(r.URL.Query().Get("path"), "/"+t.Name())
	}
	var once sync.Once
	p.Reset()
	p.Break(func(w http.ResponseWriter, r *http.Request) bool {
		if isListing(r) {
			once.Do(func() { close(listed) })
		}
		if strings.HasSuffix(r.URL.Path, "/runs/get") {
			select {
			case <-listed:
			case <-time.After(long):
				t.Error("the store is not asked while the server is")
			}
		}
		return false
	}, nil)
	got, said, _ := newAsker(t, "MLFLOW_TRACKING_URI="+p.URL).path("runs:/" + s.Empty + "/" + t.Name())
	if entries, err := os.ReadDir(dir); got != dir || len(entries) != 2 {
		t.Errorf("%s (%s) has %v (%v)", got, said, entries, err)
	}
	if asked, _ := p.Reset(); count.Of(asked, artifactsAPI+"?") > 2 { // of its parent, too
		t.Errorf("it is listed more than once: %v", asked)
	}
}

// TestLatestVersionsAreWhole fails when a server tells of a version with the registered
// model, as the mount takes it, otherwise than by itself; a prompt's, too.
func TestLatestVersionsAreWhole(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"server 3.17", "server 2.22"} {
		url := shared.get(t, kind).server.url()
		model, _ := newAlias(t, url)
		post := func(path string, in map[string]any) { api(t, url, "/api/2.0/mlflow/"+path, in) }
		get := func(path string) map[string]any { return api(t, url, "GET /api/2.0/mlflow/"+path, nil) }
		for _, stage := range []string{"Staging", "Production"} {
			post("model-versions/transition-stage", map[string]any{"name": model, "version": map[string]string{"Staging": "1", "Production": "3"}[stage], "stage": stage})
		}
		post("model-versions/set-tag", map[string]any{"name": model, "version": "2", "key": "mlflow.prompt.is_prompt", "value": "true"})
		latest := get("registered-models/get?name=" + model)["registered_model"].(map[string]any)["latest_versions"].([]any)
		for _, told := range latest {
			told := told.(map[string]any)
			alone := get(fmt.Sprintf("model-versions/get?name=%s&version=%s", model, told["version"]))["model_version"]
			if diff := gocmp.Diff(alone, any(told)); diff != "" {
				t.Errorf("%s: by itself (-) and with its model (+):\n%s", kind, diff)
			}
		}
		if len(latest) != 3 {
			t.Errorf("%s: %d versions", kind, len(latest))
		}
	}
}

// TestAutomountIsOne fails when processes that want a mount beside each other make several,
// or when one of them fails; when a mount that was killed keeps the next from being made;
// or when one that nobody uses stays.
func TestAutomountIsOne(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"f": 1 << 20})
	a := newAsker(t, "MLFLOW_TRACKING_URI="+e.URL, "MLFLOWFS_AUTOMOUNT=1", "MLFLOWFS_IDLE_TIMEOUT=1m")
	logged := filepath.Join(t.TempDir(), "log")
	a.env = append(a.env, "MLFLOWFS_LOG_FILE="+logged, "MLFLOWFS_LOG_LEVEL=debug")
	paths := make([]string, 10)
	var wg sync.WaitGroup
	for i := range paths {
		wg.Go(func() {
			var said string
			var code int
			if paths[i], said, code = a.path("runs:/" + e.run + "/f"); code != 0 {
				t.Errorf("process %d: %d, %s", i, code, said)
			}
		})
	}
	wg.Wait()
	points := a.automounts()
	if len(points) != 1 {
		t.Fatalf("mounts: %v", points)
	}
	want := filepath.Join(points[0], "runs", e.run, "f")
	for _, path := range paths {
		if path != want {
			t.Errorf("%s, want %s", path, want)
		}
	}
	if st, err := os.Stat(filepath.Dir(points[0])); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("others may look into the directory of mounts: %v, %v", st.Mode(), err)
	}

	if b, err := os.ReadFile(logged); err != nil || len(b) == 0 {
		t.Errorf("the mount logs to another file: %q, %v", b, err)
	}
	m := &mount{t: t, dir: points[0]}
	if err := syscall.Kill(m.status().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if path, said, code := a.path("runs:/" + e.run + "/f"); path != want || code != 0 {
		t.Errorf("after a kill: %s, %d, %s", path, code, said)
	}
	if out, err := mlflowfs(t, a.env, "unmount", points[0]).CombinedOutput(); err != nil {
		t.Errorf("%s, %v", out, err)
	}

	a.env = append(a.env, "MLFLOWFS_IDLE_TIMEOUT=2s")
	path, said, code := a.path("runs:/" + e.run + "/f")
	if code != 0 {
		t.Fatal(said)
	}
	reader := exec.Command("sh", "-c", "exec < \"$0\"; sleep 4; cat | wc -c", path)
	if out, err := reader.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != strconv.Itoa(1<<20) {
		t.Errorf("a program that has a file open reads %s, %v", out, err)
	}
	waitFor(t, "a mount that nobody uses stays", 20*time.Second, func() bool { return len(a.automounts()) == 0 })
}

// TestPathNeedsNoMount fails when a mount that hangs, or can't be made, or a server that
// can't be asked through it, keeps a program from its artifact; when that is brought more
// than once; or when a refusal is not told.
func TestPathNeedsNoMount(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"f": 1 << 20})
	a := newAsker(t, "MLFLOW_TRACKING_URI="+e.URL)
	paths := map[string]string{}
	brought := func(what, says string) {
		t.Helper()
		began := time.Now()
		path, said, code := a.path("runs:/" + e.run + "/f")
		if code != 0 || !strings.HasPrefix(path, valueOf(a.env, "MLFLOWFS_CACHE_DIR")) || !strings.Contains(said, says) {
			t.Errorf("%s: %s, %d, %s", what, path, code, said)
		} else if st, err := os.Stat(path); err != nil || st.Size() != 1<<20 {
			t.Errorf("%s: %v, %v", what, st, err)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("%s: it takes %v", what, took)
		}
		paths[path] = what
		if n, _ := e.fetched(); n > 0 && what != "no mount" {
			t.Errorf("%s: %d bytes come again", what, n)
		}
	}
	e.fetched()
	brought("no mount", "")
	m := mountAt(t, e.URL, fast)
	daemon := m.daemon()
	syscall.Kill(daemon, syscall.SIGSTOP)
	brought("a mount that hangs", "do not answer")
	syscall.Kill(daemon, syscall.SIGCONT)
	m.stop()

	a.env = append(a.env, "MLFLOWFS_AUTOMOUNT=1")
	if err := os.MkdirAll(a.run+"/mlflowfs", 0o755); err != nil {
		t.Fatal(err)
	}
	brought("a directory that others may look into", "mode 0700")
	os.Remove(a.run + "/mlflowfs")
	if err := os.WriteFile(a.run+"/mlflowfs", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	brought("no directory for it", "can't be mounted")
	os.Remove(a.run + "/mlflowfs")
	if len(paths) != 1 {
		t.Errorf("one file is brought to %v", paths)
	}

	e.Break(func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"error_code": "PERMISSION_DENIED", "message": "not yours"}`)
		return true
	}, nil)
	if path, said, code := a.path("runs:/" + e.run + "/f"); code != 4 || path != "" || !strings.Contains(said, "not yours") {
		t.Errorf("a refusal is told as %q, %d, %s", path, code, said)
	}
	e.Break(nil, nil)
}

// valueOf is a variable's value.
func valueOf(env []string, name string) (value string) {
	for _, v := range env {
		if x, ok := strings.CutPrefix(v, name+"="); ok {
			value = x
		}
	}
	return value
}

// TestBeatTellsWorkFromAHang fails when a program that waits for a command can't tell that
// it is alive.
func TestBeatTellsWorkFromAHang(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"f": 1 << 20})
	hold := make(chan struct{})
	e.Break(func(http.ResponseWriter, *http.Request) bool { <-hold; return false }, nil)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := mlflowfs(t, append([]string{"MLFLOWFS_BEAT_FD=3", "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir()}, fast...), "path", "--quiet", "--tracking-uri", e.URL, "runs:/"+e.run+"/f")
	c.ExtraFiles = []*os.File{w}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	next := func() error {
		r.SetReadDeadline(time.Now().Add(3 * time.Second))
		_, err := r.Read(make([]byte, 1))
		return err
	}
	for range 3 {
		if err := next(); err != nil {
			t.Error("it is at work, and silent:", err)
		}
	}
	syscall.Kill(c.Process.Pid, syscall.SIGSTOP)
	for err = next(); err == nil; err = next() {
	}
	if !os.IsTimeout(err) {
		t.Error("it hangs, and the descriptor says", err)
	}
	syscall.Kill(c.Process.Pid, syscall.SIGCONT)
	close(hold)
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}
