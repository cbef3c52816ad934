package meta

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mlflowfs/mlflowfs/test/dbserver"
)

// TestTablesThatMayNotBeReadAreRefused fails when, to a user who may read some of a
// MariaDB database's tables alone, what the others hold is shown as nothing, and not refused; when
// what he may read is refused, too; or when nothing tells of it.
func TestTablesThatMayNotBeReadAreRefused(t *testing.T) {
	t.Parallel()
	s := dbserver.Start(t, dbserver.MariaDB)
	mlflowTables(t, s, "first")
	db, err := s.Open("mlflow")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for table := range since { // those that are not there yet
		if _, err := db.Exec("CREATE TABLE IF NOT EXISTS " + table + " (name VARCHAR(10))"); err != nil {
			t.Fatal(err)
		}
	}
	for _, stmt := range []string{"UPDATE alembic_version SET version_num = '" + revisions[len(revisions)-1] + "'"} {
		if _, err := db.Exec(stmt); err != nil {
			t.Fatal(err)
		}
	}
	read := []string{"experiments", "runs", "params", "tags", "metrics", "latest_metrics", "inputs", "datasets", "input_tags"}
	s.Partial(t, "part", append(read, "alembic_version")...)
	s.Partial(t, "unnamed", read...)
	store := openStore(t, s.URI("part", "mlflow"), nil)
	if p, err := store.SearchExperiments(t.Context(), "", ""); err != nil || len(p.Items) != 1 {
		t.Errorf("what may be read: %v, %v", p, err)
	}
	for what, err := range map[string]error{
		"registered models": second(store.SearchRegisteredModels(t.Context(), "")),
		"versions":          second(store.SearchVersions(t.Context(), "m", "")),
		"prompts":           second(store.SearchPrompts(t.Context(), "")),
		"logged models":     second(store.SearchLoggedModels(t.Context(), []string{"1"}, "", "")),
		"traces":            second(store.SearchTraces(t.Context(), "1", "")),
		"datasets":          second(store.SearchDatasets(t.Context(), "")),
		"a model":           second(store.RegisteredModel(t.Context(), "m")),
	} {
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "SELECT") {
			t.Errorf("%s: %v", what, err)
		}
	}
	remarks := store.Tell()
	if len(remarks) != 2 || !remarks[1].Lesser || !strings.Contains(remarks[1].Words, "model_versions") || strings.Contains(remarks[1].Words, "runs") {
		t.Errorf("%+v", remarks)
	}
	if _, err := openStore(t, s.URI("unnamed", "mlflow"), nil).SearchRegisteredModels(t.Context(), ""); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "alembic_version") {
		t.Errorf("no right to read the revision: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestRevisionsMakeTheirTables fails when a table that is read is made by another of
// MLflow's migrations than is said here, or is not one of those that are asked for.
func TestRevisionsMakeTheirTables(t *testing.T) {
	t.Parallel()
	var steps []string
	for _, r := range revisions {
		if slices.Contains(slices.Collect(maps.Values(since)), r) {
			steps = append(steps, r)
		}
	}
	c := exec.Command(python("mlflow3"), append([]string{"-c", `
import sys, sqlalchemy, alembic.command
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base
uri = "sqlite:///" + sys.argv[1]
engine = sqlalchemy.create_engine(uri)
Base.metadata.create_all(engine)
config, before = _get_alembic_config(uri), set()
for revision in sys.argv[2:]:
    for step in ([revision + "-1"] if before else []) + [revision]:
        alembic.command.upgrade(config, step)
        now = set(sqlalchemy.inspect(engine).get_table_names())
        print("made", step, *sorted(now - before))
        before = now
`, filepath.Join(t.TempDir(), "mlflow.db")}, steps...)...)
	c.Env = append(os.Environ(), "MLFLOW_TRACKING_URI=")
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, err.(*exec.ExitError).Stderr)
	}
	made := map[string]string{}
	for l := range strings.Lines(string(out)) {
		if f := strings.Fields(l); len(f) > 1 && f[0] == "made" {
			for _, table := range f[2:] {
				made[table] = f[1]
			}
		}
	}
	for table, revision := range since {
		if made[table] != revision || !strings.Contains(sqlTables, "'"+table+"'") {
			t.Errorf("%s is made by %s, not %s", table, made[table], revision)
		}
	}
	if n := strings.Count(sqlTables, ",") + 1; n != len(since)+1 {
		t.Errorf("%d tables are read, and of %d it is said when they were made", n, len(since))
	}
}
