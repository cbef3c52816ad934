package test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestServerMayRestart fails when, with the server stopped under a mount, what was
// read does not read on; or when all is not well once it is back.
func TestServerMayRestart(t *testing.T) {
	t.Parallel()
	s := startServer(t, "mlflow3", nil)
	st := &seeded{uri: s.url(), release: "mlflow3", server: s}
	run := newRun(t, s.url(), "0")
	api(t, s.url(), "/api/2.0/mlflow/runs/update", map[string]any{"run_id": run, "status": "FINISHED", "end_time": time.Now().UnixMilli()})
	dir := filepath.Join(s.artifacts(), "0", run, "artifacts")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"warm", "cold"} {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := mountAt(t, st.uri, fast, "--fill-limit", "0") // the small files do not come together
	warm, cold := m.path("runs", run, "warm"), m.path("runs", run, "cold")
	if got, err := read(warm); string(got) != "warm" || err != nil {
		t.Fatal(string(got), err)
	}
	s.stop()
	if got, err := read(warm); string(got) != "warm" || err != nil {
		t.Errorf("what was read before: %q, %v", got, err)
	}
	if _, err := read(cold); err == nil || !strings.Contains(err.Error(), "Input/output error") {
		t.Errorf("a file never read, with the server down: %v", err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	if got, err := read(cold); string(got) != "cold" || err != nil {
		t.Errorf("with the server back: %q, %v", got, err)
	}

	// A read that begins while the server is down is answered when it is back. (Behind a
	// proxy, so that it is back as soon as it has been asked.)
	p := proxyTo(t, s.url())
	var asked atomic.Int64
	p.Break(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.RawQuery, run) {
			asked.Add(1)
		}
		return down(w, r)
	}, nil)
	patient := mountAt(t, p.URL, []string{"MLFLOW_HTTP_REQUEST_MAX_RETRIES=40"}, "--timeout", "2m")
	if !strings.Contains(patient.log.String(), "does not answer") {
		t.Errorf("a mount without its server says nothing:\n%s", patient.log)
	}
	type result struct {
		b   []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		b, err := read(patient.path("runs", run, "cold"))
		done <- result{b, err}
	}()
	waitFor(t, "the read does not ask again", long, func() bool { return asked.Load() > 1 })
	p.Break(nil, nil)
	if r := <-done; string(r.b) != "cold" || r.err != nil {
		t.Errorf("a read over a restart: %q, %v", r.b, r.err)
	}
}
