package meta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// makeStore makes a FileStore of the runs, each as experiment/run, as MLflow 3
// writes it when it stands at the directory written.
func makeStore(t *testing.T, dir, written string, runs ...string) string {
	t.Helper()
	for _, at := range runs {
		e, id := filepath.Base(filepath.Dir(at)), filepath.Base(at)
		put(t, filepath.Join(dir, filepath.Dir(at), "meta.yaml"), fmt.Sprintf("artifact_location: file://%s/%s\nexperiment_id: '%s'\nlifecycle_stage: active\nname: name of %[2]s\n", written, e, e))
		put(t, filepath.Join(dir, at, "meta.yaml"), fmt.Sprintf("artifact_uri: file://%s/%s/%s/artifacts\nexperiment_id: '%[2]s'\nlifecycle_stage: active\nrun_id: %[3]s\nrun_name: name of %[3]s\nstatus: 3\nstart_time: 1\nend_time: null\n", written, e, id))
		put(t, filepath.Join(dir, at, "params", "lr"), "0.1")
		put(t, filepath.Join(dir, at, "artifacts", "a.txt"), "text")
	}
	return dir
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// TestOneBadPartHidesNoOther fails when a part of a FileStore that can't be read
// hides a healthy run, by its id or in a listing, is not said, or is said more than
// once; or when a run that is damaged itself is taken for one that is not there.
func TestOneBadPartHidesNoOther(t *testing.T) {
	t.Parallel()
	dir := makeStore(t, t.TempDir(), "/gone", "1/good", "2/bad", "3/alien", "4/good4")
	link(t, "loop", filepath.Join(dir, "loop"))
	link(t, "5", filepath.Join(dir, "5"))
	link(t, "/nowhere/6", filepath.Join(dir, "6"))
	put(t, filepath.Join(dir, "7", "meta.yaml"), "{[ no: YAML")
	put(t, filepath.Join(dir, "8", "meta.yaml"), "")
	put(t, filepath.Join(dir, "9", "meta.yaml"), "experiment_id: '1'\nname: a copy\n")
	put(t, filepath.Join(dir, "notes.txt"), "no directory")
	put(t, filepath.Join(dir, "2", "bad", "meta.yaml"), "run_id: [bad\n")
	put(t, filepath.Join(dir, "3", "alien", "meta.yaml"), "run_id: other\nexperiment_id: '3'\n")
	if err := os.MkdirAll(filepath.Join(dir, "1", "meta.yaml.d", "tags"), 0o755); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, "1", "good")
	link(t, "x", filepath.Join(good, "params", "x"))        // a loop
	link(t, "../../..", filepath.Join(good, "params", "d")) // a directory, which os.walk does not enter
	put(t, filepath.Join(good, "tags"), "a file, and no directory")
	var log bytes.Buffer
	s, _, err := Open(dir, env(nil), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for range 2 {
		r, err := s.Run(ctx, "good4")
		if err != nil || r.Name != "name of good4" {
			t.Errorf("a healthy run: %v, %v", r, err)
		}
		if r, err = s.Run(ctx, "good"); err != nil || !strings.Contains(string(r.JSON), `"params":[{"key":"lr","value":"0.1"}]`) {
			t.Errorf("a run with parts that can't be read: %v, %v", r, err)
		}
		if _, err = s.Run(ctx, "bad"); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a damaged run: %v", err)
		}
		if _, err = s.Run(ctx, "none"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a run that is not there: %v", err)
		}
		p, err := s.SearchExperiments(ctx, "", "")
		if err != nil || len(p.Items) != 4 {
			t.Errorf("%v, %v", p.Items, err)
		}
		for id, n := range map[string]int{"1": 1, "2": 0, "3": 0, "4": 1, "5": 0, "7": 0} {
			if p, err := s.SearchRuns(ctx, RunQuery{Experiments: []string{id}}, ""); err != nil || len(p.Items) != n {
				t.Errorf("experiment %s: %v, %v", id, p.Items, err)
			}
		}
	}
	told := map[string]bool{}
	for _, r := range s.Tell() {
		part, _, _ := strings.Cut(r.Words, " is passed over: ")
		told[part] = r.Lesser
		if n := strings.Count(log.String(), "part="+part+" ") + strings.Count(log.String(), fmt.Sprintf("part=%q ", part)); n != 1 {
			t.Errorf("%s is said %d times:\n%s", part, n, &log)
		}
	}
	for _, part := range []string{"loop/meta.yaml", "5/meta.yaml", "6/meta.yaml", "7/meta.yaml", "8/meta.yaml", "9/meta.yaml", "loop", "5", "2/bad", "3/alien", "1/good/params/x", "1/good/tags"} {
		if !told[part] {
			t.Errorf("%s is not told of: %v", part, told)
		}
	}
	if told["notes.txt"] || told["1/good"] || told["1/good/params/d"] {
		t.Errorf("more is told of than can't be read: %v", told)
	}
	// What can be read again is not told of any more.
	os.Remove(filepath.Join(dir, "7", "meta.yaml"))
	makeStore(t, dir, "/gone", "7/mended")
	if p, err := s.SearchExperiments(ctx, "", ""); err != nil || len(p.Items) != 5 {
		t.Errorf("%v, %v", p.Items, err)
	}
	for _, r := range s.Tell() {
		if strings.HasPrefix(r.Words, "7") {
			t.Error(r.Words)
		}
	}
}

// TestLinksOfTheOwnerAreFollowed fails when an experiment, a run or a param that the
// store's owner moved elsewhere and linked is not shown, or when a link by which a
// user would have the daemon read another user's files is followed.
func TestLinksOfTheOwnerAreFollowed(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	away := makeStore(t, filepath.Join(top, "disk2"), "/gone", "1/r1", "2/r2", "3/r3")
	dir := makeStore(t, filepath.Join(top, "mlruns"), "/gone", "4/r4")
	link(t, "../disk2/1", filepath.Join(dir, "1"))
	link(t, filepath.Join(away, "2"), filepath.Join(dir, "2"))
	put(t, filepath.Join(dir, "3", "meta.yaml"), "experiment_id: '3'\nname: '3'\n")
	link(t, filepath.Join(away, "3", "r3"), filepath.Join(dir, "3", "r3"))
	put(t, filepath.Join(away, "value"), "linked")
	link(t, "../../../value", filepath.Join(away, "1", "r1", "params", "p"))
	link(t, "mlruns", filepath.Join(top, "name"))
	for _, uri := range []string{dir, filepath.Join(top, "name")} {
		s := openStore(t, uri, nil)
		for _, id := range []string{"r1", "r2", "r3", "r4"} {
			r, err := s.Run(context.Background(), id)
			if err != nil || r.Name != "name of "+id {
				t.Errorf("%s: %v, %v", id, r, err)
			}
			if id == "r1" && err == nil && !strings.Contains(string(r.JSON), `{"key":"p","value":"linked"}`) {
				t.Errorf("%s", r.JSON)
			}
			p, err := s.SearchRuns(context.Background(), RunQuery{Experiments: []string{id[1:]}}, "")
			if err != nil || len(p.Items) != 1 || p.Items[0].ID != id {
				t.Errorf("experiment %s: %v, %v", id[1:], p.Items, err)
			}
		}
	}
	const root, daemon, alice, bob = 0, 10, 20, 30
	for _, c := range []struct {
		maker, owner, self uint32
		may                bool
	}{
		{alice, alice, root, true}, {alice, alice, bob, true}, {root, alice, daemon, true}, {daemon, alice, daemon, true},
		{alice, root, root, false}, {alice, bob, root, false}, {alice, daemon, daemon, false},
	} {
		if mayFollow(c.maker, c.owner, c.self) != c.may {
			t.Errorf("a link of %d to a file of %d is followed by %d: %v", c.maker, c.owner, c.self, !c.may)
		}
	}
}

// TestRunsOfDeletedExperimentsOpen fails when a run of an experiment that was
// deleted, and so lies in .trash, does not open by its id with its artifacts and
// models, as using.md promises, or when it is listed.
func TestRunsOfDeletedExperimentsOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	makeStore(t, dir, dir, "1/live", ".trash/2/r2")
	model := "m-" + strings.Repeat("2", 32)
	put(t, filepath.Join(dir, ".trash/2/models", model, "meta.yaml"), fmt.Sprintf("model_id: %s\nexperiment_id: '2'\nname: model\nsource_run_id: r2\nstatus: 2\nartifact_location: file://%s/2/models/%[1]s/artifacts\n", model, dir))
	put(t, filepath.Join(dir, ".trash/2/models", model, "artifacts/MLmodel"), "x")
	s := openStore(t, dir, nil)
	ctx := context.Background()
	r, err := s.Run(ctx, "r2")
	if err != nil || r.ExperimentID != "2" || r.ArtifactURI != filepath.Join(dir, ".trash/2/r2/artifacts") || !strings.Contains(string(r.JSON), `"artifact_uri":"file://`+dir+`/2/r2/artifacts"`) {
		t.Errorf("%+v, %v", r, err)
	}
	p, err := s.SearchLoggedModels(ctx, []string{"2"}, "r2", "")
	if err != nil || len(p.Items) != 1 || p.Items[0].ArtifactURI != filepath.Join(dir, ".trash/2/models", model, "artifacts") {
		t.Errorf("%+v, %v", p.Items, err)
	}
	if m, err := s.LoggedModel(ctx, model); err != nil || m.Name != "model" {
		t.Errorf("%v, %v", m, err)
	}
	if e, err := s.SearchExperiments(ctx, "", ""); err != nil || len(e.Items) != 1 {
		t.Errorf("%v, %v", e.Items, err)
	}
}

// TestMovedFileStoreFindsItsArtifacts fails when artifacts that were moved with
// their FileStore are not found, when those that are nowhere are not said, or when
// artifacts that are where a meta.yaml says are left for others.
func TestMovedFileStoreFindsItsArtifacts(t *testing.T) {
	t.Parallel()
	there := makeStore(t, t.TempDir(), "", "9/kept")
	for _, written := range []string{"/home/ann/mlruns", "/C:/Users/ann/mlruns"} {
		dir := makeStore(t, t.TempDir(), written, "1/r1", "1/r2", "9/kept")
		if err := os.RemoveAll(filepath.Join(dir, "1/r2/artifacts")); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, "9/kept/meta.yaml"), "artifact_uri: file://"+there+"/9/kept/artifacts\nexperiment_id: '9'\nrun_id: kept\nstatus: 3\n")
		put(t, filepath.Join(dir, "models/m/meta.yaml"), "name: m\n")
		put(t, filepath.Join(dir, "models/m/version-1/meta.yaml"), "name: m\nversion: 1\ncurrent_stage: None\nsource: file://"+written+"/1/r1/artifacts/model\n")
		put(t, filepath.Join(dir, "1/r1/artifacts/model/MLmodel"), "x")
		s := openStore(t, dir, nil)
		ctx := context.Background()
		for id, want := range map[string]string{"r1": filepath.Join(dir, "1/r1/artifacts"), "r2": "file://" + written + "/1/r2/artifacts", "kept": "file://" + there + "/9/kept/artifacts"} {
			if r, err := s.Run(ctx, id); err != nil || r.ArtifactURI != want {
				t.Errorf("%s: %+v, %v", id, r, err)
			}
		}
		if ver, err := s.Version(ctx, "m", "1"); err != nil || ver.URI != filepath.Join(dir, "1/r1/artifacts/model") {
			t.Errorf("a version: %+v, %v", ver, err)
		}
		if p, err := s.SearchExperiments(ctx, "", ""); err != nil || len(p.Items) != 2 || p.Items[0].Location != filepath.Join(dir, p.Items[0].ID) {
			t.Errorf("experiments: %+v, %v", p, err)
		}
		if told := s.Tell(); len(told) != 1 || !strings.HasPrefix(told[0].Words, "1 (artifacts)") {
			t.Errorf("%v", told)
		}
	}
}

// TestReplacedFileStoreIsSeen fails when a directory that took the place of a
// FileStore is not read, or when one that is gone is taken for a run that is not
// there.
func TestReplacedFileStoreIsSeen(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	dir := makeStore(t, filepath.Join(top, "mlruns"), "/gone", "1/r1")
	s := openStore(t, dir, nil)
	if got := nameOf(s, "r1"); got != "name of r1" {
		t.Fatal(got)
	}
	if err := os.Rename(dir, filepath.Join(top, "old")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Run(context.Background(), "r1"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a store that is gone: %v", err)
	}
	makeStore(t, dir, "/gone", "1/r2")
	if got := nameOf(s, "r2"); got != "name of r2" {
		t.Errorf("the new one's run: %s", got)
	}
}
