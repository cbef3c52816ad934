package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mlflowfs/mlflowfs/test/dbserver"
)

// TestArchivedTracesAreTheClients fails when the traces that MLflow has archived
// (traces.pb) of an sqlite file, of a PostgreSQL or MariaDB database or of a server are
// not those that MLflow's own client reads; when a mount that showed them before shows
// something else, or an error, after it; or when one whose archive is gone, which the
// client gives without spans, is an error.
func TestArchivedTracesAreTheClients(t *testing.T) {
	t.Parallel()
	stores := map[string]func(t *testing.T) (uri, asked string){
		"sqlite": func(t *testing.T) (string, string) {
			uri := "sqlite:///" + filepath.Join(t.TempDir(), "mlflow.db")
			return uri, uri
		},
		"server": func(t *testing.T) (string, string) {
			s := startServer(t, "mlflow3", nil)
			return "sqlite:///" + filepath.Join(s.dir, "mlflow.db"), s.url()
		},
	}
	for _, kind := range dbserver.Kinds {
		stores[string(kind)] = func(t *testing.T) (string, string) {
			s := dbserver.Start(t, kind)
			return s.URI(dbserver.Writer, "mlflow"), s.URI(dbserver.Reader, "mlflow")
		}
	}
	for kind, start := range stores {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			uri, asked := start(t)
			const name = "archived"
			genai(t, "mlflow3", uri, "traces", "make", name, "2")
			check := func(m *mount) {
				t.Helper()
				if said := genai(t, "mlflow3", uri, "traces", "check", m.dir, name); said != "" {
					t.Error(said)
				}
			}
			before := mountAt(t, asked, fast, "--metadata-ttl", "300ms")
			check(before)
			at := t.TempDir()
			if said := genai(t, "mlflow3", uri, "traces", "archive", at, name); said != "" {
				t.Fatal(said)
			}
			found, _ := filepath.Glob(at + "/*/traces/*/artifacts/traces.pb")
			if len(found) < 5 {
				t.Fatalf("MLflow archived %d traces", len(found))
			}
			check(before)
			check(mountAt(t, asked, fast))
			if err := os.Remove(found[0]); err != nil {
				t.Fatal(err)
			}
			m := mountAt(t, asked, fast)
			check(m)
			if kind != "server" && !strings.Contains(m.log.String(), "an archived trace has no spans any more") {
				t.Errorf("the log says nothing of a missing archive:\n%s", m.log)
			}
		})
	}
}
