package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// TestSizesOfTracesLeaveThemReadable fails when `ls -l` of many large traces leaves more
// than a few files or connections open, of a server or of a database whose traces are
// archived; or when what was let go of can't be read right after it.
func TestSizesOfTracesLeaveThemReadable(t *testing.T) {
	t.Parallel()
	s, at := shared.get(t, "server 3.17"), t.TempDir()
	const name, n = "other large traces", 24
	s.release.code(t, t.TempDir(), []string{"MLFLOW_TRACKING_URI=" + s.uri}, "", "-c", `
import mlflow, sys
mlflow.set_experiment(sys.argv[1])
for i in range(int(sys.argv[2])):
    with mlflow.start_span(name=f"large {i}") as span:
        span.set_inputs("x" * 500_000)
mlflow.flush_trace_async_logging()
`, name, fmt.Sprint(n))
	large := func(uri string) {
		t.Helper()
		m := mountAt(t, uri, fast)
		open := func() int {
			fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.daemon()))
			if err != nil {
				t.Fatal(err)
			}
			return len(fds)
		}
		if _, err := output("ls", m.path("experiments", name, "traces")); err != nil {
			t.Fatal(err)
		}
		before := open()
		if out, err := output("ls", "-l", m.path("experiments", name, "traces")); err != nil || len(lines(out)) != n+1 {
			t.Errorf("%s, %v", out, err)
		}
		waitFor(t, "too much is open", 5*time.Second, func() bool { return open() <= before+12 })
		if out, err := output("sh", "-c", `cat "$1"/*.json | wc -lc`, "sh", m.path("experiments", name, "traces")); err != nil || len(out) < 10 || !strings.HasPrefix(strings.TrimSpace(string(out)), fmt.Sprint(n)+" ") {
			t.Errorf("%s, %v", out, err)
		}
	}
	large(s.uri)
	db := "sqlite:///" + filepath.Join(s.server.dir, "mlflow.db")
	if said := genai(t, s.release, db, "traces", "archive", at, name); !strings.Contains(said, fmt.Sprintf("%d, and not %d", n, n-1)) {
		t.Error(said)
	}
	large(db)
}
