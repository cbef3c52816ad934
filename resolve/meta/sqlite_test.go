package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// sqliteOf makes a sqlite file of statements, and gives its path.
func sqliteOf(t *testing.T, path string, statements ...string) string {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(s, err)
		}
	}
	return path
}

// tables are the least that a file has, of the revision of MLflow 2.22.
var tables = []string{
	"CREATE TABLE alembic_version (version_num TEXT)",
	"INSERT INTO alembic_version VALUES ('0584bdc529eb')",
	"CREATE TABLE experiments (experiment_id INTEGER, name TEXT, lifecycle_stage TEXT)",
	"CREATE TABLE runs (run_uuid TEXT, name TEXT, experiment_id INTEGER, artifact_uri TEXT, status TEXT, start_time INTEGER, end_time INTEGER, user_id TEXT, lifecycle_stage TEXT)",
	"CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT)",
	"CREATE TABLE tags (key TEXT, value TEXT, run_uuid TEXT)",
	"CREATE TABLE metrics (key TEXT, value REAL, timestamp INTEGER, run_uuid TEXT)",
}

func aRun(id, name string) []string {
	return append(append([]string{}, tables...),
		"INSERT INTO experiments VALUES (1, 'e', 'active')",
		"INSERT INTO runs VALUES ('"+id+"', '"+name+"', 1, '/a', 'FINISHED', 1, 2, 'u', 'active')")
}

func openStore(t *testing.T, uri string, vars map[string]string) Store {
	t.Helper()
	s, _, err := Open(uri, env(vars), quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// nameOf is the name of a run, or the error.
func nameOf(s Store, id string) string {
	r, err := s.Run(context.Background(), id)
	if err != nil {
		return err.Error()
	}
	return r.Name
}

// TestReplacedDatabaseIsSeen fails when a sqlite file that took the place of
// another is not read, when one that is gone is taken for a run that is not there,
// or when connections to the old one are kept for ever.
func TestReplacedDatabaseIsSeen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := sqliteOf(t, filepath.Join(dir, "mlflow.db"), aRun("r1", "first")...)
	s := openStore(t, "sqlite:///"+path, nil)
	if got := nameOf(s, "r1"); got != "first" {
		t.Fatal(got)
	}
	old := s.(*sqlStore).database.(*sqliteFile).file
	if err := os.Rename(sqliteOf(t, filepath.Join(dir, "new.db"), aRun("r1", "second")...), path); err != nil {
		t.Fatal(err)
	}
	if got := nameOf(s, "r1"); got != "second" {
		t.Errorf("the replaced file is read: %s", got)
	}
	old.users.Wait()
	for old.db.Stats().OpenConnections > 0 { // they are closed beside the answer; without that this never ends
		runtime.Gosched()
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Run(context.Background(), "r1"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is gone: %v", err)
	}
	sqliteOf(t, path, aRun("r1", "third")...)
	if got := nameOf(s, "r1"); got != "third" {
		t.Errorf("the file that came back: %s", got)
	}
}

// TestUpgradedDatabaseIsSeen fails when tables and columns that `mlflow db upgrade`
// adds while a mount stands are not read, when a table that it is just replacing is
// an error, or when the revision is not said.
func TestUpgradedDatabaseIsSeen(t *testing.T) {
	t.Parallel()
	path := sqliteOf(t, filepath.Join(t.TempDir(), "mlflow.db"), aRun("r1", "first")...)
	s := openStore(t, "sqlite:///"+path, nil)
	told := func(word string) {
		t.Helper()
		if r := s.Tell(); len(r) != 1 || !strings.Contains(r[0].Words, word) || r[0].Lesser != (word == "newer") {
			t.Errorf("%+v does not say %q", r, word)
		}
	}
	if _, err := s.LoggedModel(context.Background(), "m-"+strings.Repeat("0", 32)); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	told("0584bdc529eb, which is older")
	// As alembic does it: a copy, then one moment without the table.
	sqliteOf(t, path, "CREATE TABLE _alembic_tmp_params AS SELECT * FROM params", "DROP TABLE params")
	got := make(chan string)
	go func() { got <- nameOf(s, "r1") }()
	sqliteOf(t, path, "ALTER TABLE _alembic_tmp_params RENAME TO params",
		"CREATE TABLE logged_models (model_id TEXT, name TEXT, experiment_id INTEGER, source_run_id TEXT, artifact_location TEXT, status INTEGER, creation_timestamp_ms INTEGER, lifecycle_stage TEXT)",
		"INSERT INTO logged_models VALUES ('m-"+strings.Repeat("0", 32)+"', 'model', 1, 'r1', '/m', 2, 1, 'active')",
		"UPDATE alembic_version SET version_num = 'fffffffffff0'")
	if name := <-got; name != "first" {
		t.Errorf("a run, while its params are replaced: %s", name)
	}
	if m, err := s.LoggedModel(context.Background(), "m-"+strings.Repeat("0", 32)); err != nil || m.Name != "model" {
		t.Errorf("what came with the upgrade: %v, %v", m, err)
	}
	told("newer")
	sqliteOf(t, path, "UPDATE alembic_version SET version_num = '0584bdc529eb'") // no table changes
	if name := nameOf(s, "r1"); name != "first" {
		t.Error(name)
	}
	told("0584bdc529eb")
	sqliteOf(t, path, "UPDATE alembic_version SET version_num = 'fffffffffff0'")
	// What a file lacks for good is said, with its name and its revision.
	sqliteOf(t, path, "DROP TABLE tags")
	if _, err := s.Run(context.Background(), "r1"); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "fffffffffff0") || !strings.Contains(err.Error(), "tags") {
		t.Error(err)
	}
}

// TestWorkspaceIsTheClients fails when another workspace's runs, models or
// versions are shown, or when MLFLOW_WORKSPACE is obeyed where MLflow's client does
// not obey it.
func TestWorkspaceIsTheClients(t *testing.T) {
	t.Parallel()
	model := "m-" + strings.Repeat("1", 32)
	path := sqliteOf(t, filepath.Join(t.TempDir(), "mlflow.db"), append(aRun("mine", "mine"),
		"ALTER TABLE experiments ADD workspace TEXT DEFAULT 'default'",
		"INSERT INTO experiments VALUES (2, 'e2', 'active', 'team')",
		"INSERT INTO runs VALUES ('theirs', 'theirs', 2, '/a', 'FINISHED', 1, 2, 'u', 'active')",
		"CREATE TABLE logged_models (model_id TEXT, name TEXT, experiment_id INTEGER, source_run_id TEXT, artifact_location TEXT, status INTEGER, creation_timestamp_ms INTEGER, lifecycle_stage TEXT)",
		"INSERT INTO logged_models VALUES ('"+model+"', 'model', 2, 'theirs', '/m', 2, 1, 'active')",
		"CREATE TABLE registered_models (name TEXT, creation_time INTEGER, workspace TEXT)",
		"CREATE TABLE registered_model_tags (name TEXT, key TEXT, value TEXT, workspace TEXT)",
		"CREATE TABLE model_versions (name TEXT, version INTEGER, current_stage TEXT, source TEXT, status TEXT, creation_time INTEGER, workspace TEXT)",
		"INSERT INTO registered_models VALUES ('m', 1, 'default'), ('m', 1, 'team')",
		"INSERT INTO registered_model_tags VALUES ('m', 'mlflow.prompt.is_prompt', 'true', 'team')",
		"INSERT INTO model_versions VALUES ('m', 1, 'None', '/mine', 'READY', 1, 'default'), ('m', 1, 'None', 'dummy-source', 'READY', 1, 'team')",
	)...)
	ctx := context.Background()
	for name, c := range map[string]struct {
		vars  map[string]string
		mine  bool
		model string
	}{
		"none":        {nil, true, ""},
		"not enabled": {map[string]string{"MLFLOW_WORKSPACE": "team"}, true, ""},
		"enabled":     {map[string]string{"MLFLOW_WORKSPACE": " team ", "MLFLOW_ENABLE_WORKSPACES": "true"}, false, "model"},
		"default":     {map[string]string{"MLFLOW_ENABLE_WORKSPACES": "1"}, true, ""},
	} {
		s := openStore(t, "sqlite:///"+path, c.vars)
		for id, shown := range map[string]bool{"mine": c.mine, "theirs": !c.mine} {
			if _, err := s.Run(ctx, id); (err == nil) != shown || err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: run %s: %v", name, id, err)
			}
		}
		runs, err := s.SearchRuns(ctx, RunQuery{Experiments: []string{"1", "2"}}, "")
		if err != nil || len(runs.Items) != 1 || (runs.Items[0].ID == "mine") != c.mine {
			t.Errorf("%s: %v, %v", name, runs, err)
		}
		if m, err := s.LoggedModel(ctx, model); (err == nil) != (c.model != "") {
			t.Errorf("%s: %v, %v", name, m, err)
		}
		models, err := s.SearchRegisteredModels(ctx, "")
		if err != nil || (len(models.Items) == 1) != c.mine {
			t.Errorf("%s: %v, %v", name, models, err)
		}
		if v, err := s.Version(ctx, "m", "1"); err != nil || v.Prompt == c.mine {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
	// A file without workspaces is all of the default one.
	old := sqliteOf(t, filepath.Join(t.TempDir(), "old.db"), aRun("mine", "mine")...)
	s := openStore(t, "sqlite:///"+old, map[string]string{"MLFLOW_WORKSPACE": "team", "MLFLOW_ENABLE_WORKSPACES": "true"})
	if _, err := s.Run(ctx, "mine"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a workspace of a file that has none: %v", err)
	}
}

// TestSQLiteValuesAreTheClients fails when a NULL that MLflow's client reads is an
// error, or when a run that has its name in a tag alone has none.
func TestSQLiteValuesAreTheClients(t *testing.T) {
	t.Parallel()
	path := sqliteOf(t, filepath.Join(t.TempDir(), "mlflow.db"), append(aRun("r1", ""),
		"INSERT INTO tags VALUES ('mlflow.runName', 'tagged', 'r1'), ('null', NULL, 'r1')",
		"INSERT INTO metrics VALUES ('loss', NULL, NULL, 'r1')",
		"CREATE TABLE datasets (dataset_uuid TEXT, name TEXT, digest TEXT, dataset_source_type TEXT, dataset_source TEXT, dataset_schema TEXT, dataset_profile TEXT)",
		"CREATE TABLE inputs (input_uuid TEXT, source_type TEXT, source_id TEXT, destination_type TEXT, destination_id TEXT)",
		"INSERT INTO datasets VALUES ('d1', 'train', 'abc', 'local', '{}', NULL, NULL)",
		"INSERT INTO inputs VALUES ('i1', 'DATASET', 'd1', 'RUN', 'r1')",
	)...)
	s := openStore(t, "sqlite:///"+path, nil)
	r, err := s.Run(context.Background(), "r1")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"run_name":"tagged"`, `{"key":"null","value":""}`, `"dataset_inputs":[{"dataset":{"name":"train","digest":"abc"`, `"value":"NaN"`} {
		if !strings.Contains(string(r.JSON), want) {
			t.Errorf("%s is not in %s", want, r.JSON)
		}
	}
	p, err := s.SearchRuns(context.Background(), RunQuery{Experiments: []string{"1"}, JSON: true}, "")
	if err != nil || len(p.Items) != 1 || p.Items[0].Name != "tagged" {
		t.Errorf("%v, %v", p.Items, err)
	}
}

// TestRunsBegunMeanwhileMoveNoOther fails when a search of a sqlite file that is read page
// by page gives a run twice, or leaves one out, because others are begun and deleted on
// the way, or have no time, or one that is none.
func TestRunsBegunMeanwhileMoveNoOther(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "mlflow.db")
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	do := func(stmt string, args ...any) {
		t.Helper()
		if _, err := db.Exec(stmt, args...); err != nil {
			t.Fatal(err)
		}
	}
	do("CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, name TEXT, artifact_location TEXT, lifecycle_stage TEXT)")
	do("CREATE TABLE runs (run_uuid TEXT PRIMARY KEY, name TEXT, user_id TEXT, status TEXT, start_time BIGINT, end_time BIGINT, lifecycle_stage TEXT, artifact_uri TEXT, experiment_id INTEGER)")
	for _, table := range []string{"params", "tags"} {
		do("CREATE TABLE " + table + " (key TEXT, value TEXT, run_uuid TEXT)")
	}
	do("CREATE TABLE metrics (key TEXT, value FLOAT, timestamp BIGINT, run_uuid TEXT)")
	do("INSERT INTO experiments VALUES (1, 'e', '/a', 'active')")
	begin := func(id string, start any) {
		t.Helper()
		do("INSERT INTO runs VALUES (?, 'n', 'u', 'FINISHED', ?, NULL, 'active', '/a', 1)", id, start)
	}
	want := map[string]bool{}
	for i := range 3*sqlJSONPage + 7 {
		id, start := fmt.Sprintf("%05d", i), any(1_000_000+i/3) // three at a time
		switch i % 50 {
		case 0:
			start = nil
		case 1:
			start = 0
		}
		begin(id, start)
		want[id] = true
	}
	s := openStore(t, "sqlite:///"+file, nil)
	for _, which := range []RunQuery{{Experiments: []string{"1"}, JSON: true}, {Experiments: []string{"1"}}} {
		got, pages := map[string]bool{}, 0
		for token, more := "", true; more; more = token != "" {
			p, err := s.SearchRuns(t.Context(), which, token)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range p.Items {
				if got[r.ID] {
					t.Errorf("%s comes twice", r.ID)
				}
				if got[r.ID] = true; which.JSON == (len(r.JSON) == 0) {
					t.Errorf("%s has JSON of %d bytes", r.ID, len(r.JSON))
				}
			}
			token = p.Next
			pages++
			begin(fmt.Sprint("new", which.JSON, pages), 2_000_000)
		}
		for id := range want {
			if !got[id] {
				t.Errorf("%s is left out", id)
			}
		}
		if which.JSON && pages != 4 {
			t.Errorf("%d pages", pages)
		}
	}
}
