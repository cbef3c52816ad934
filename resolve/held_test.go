package resolve

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// aWhile waits for what comes soon: before tables that nobody uses are old.
func aWhile(t *testing.T, what func() string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what())
		}
	}
}

// TestSizesOfTracesHoldLittleOpen fails when `ls -l` of many large traces of a server leaves
// more than a few bodies open, or `ls -l` of traces whose spans lie on this machine more
// than a few files; when one that has just been looked up is asked for anew by who opens it
// then; or when one that is open is let go of for others.
func TestSizesOfTracesHoldLittleOpen(t *testing.T) {
	const n = 60
	var open, spans atomic.Int64
	dir := t.TempDir()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id, ok := strings.CutPrefix(r.URL.Path, "/api/3.0/mlflow/traces/"); ok {
			tags := fmt.Sprintf(`{"mlflow.trace.spansLocation": "TRACKING_STORE", "mlflow.artifactLocation": %q}`, path.Join(dir, id))
			if strings.HasPrefix(id, "here") {
				tags = fmt.Sprintf(`{"mlflow.artifactLocation": %q}`, path.Join(dir, id))
			}
			fmt.Fprintf(w, `{"trace": {"trace_info": {"trace_id": %q, "trace_location": {"mlflow_experiment": {"experiment_id": "1"}}, "state": "OK", "tags": %s}}}`, id, tags)
			return
		}
		spans.Add(1)
		open.Add(1)
		defer open.Add(-1)
		io.WriteString(w, `{"spans": ["`)
		for range 1000 { // more than the buffers between
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}))
	defer srv.Close()
	r := resolver(t, srv.URL)
	r.tracking = meta.NewREST(r.opt.Client)
	look := func(id string) *Table {
		t.Helper()
		text, err := r.TraceText(t.Context(), "1", id)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	used := look("used")
	for i := range n {
		look(fmt.Sprint("there-", i)).Close()
	}
	held := func() string { return fmt.Sprint(open.Load(), " bodies are open") }
	aWhile(t, held, func() bool { return open.Load() <= openTables+1 })
	asked := spans.Load()
	look(fmt.Sprint("there-", n-1)).Close()
	if _, _, err := used.Grow(t.Context(), 4<<20); err != nil || spans.Load() != asked {
		t.Errorf("%v, %d requests for what is open", err, spans.Load()-asked)
	}
	used.Close()
	for i := range n {
		at := filepath.Join(dir, fmt.Sprint("here-", i))
		if err := os.Mkdir(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at, spansFile), []byte(`{"spans": ["`+strings.Repeat("x", 1<<20)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files := func() (open int) {
		fds, _ := os.ReadDir("/proc/self/fd")
		for _, fd := range fds {
			if at, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && path.Base(at) == spansFile {
				open++
			}
		}
		return open
	}
	for i := range n {
		look(fmt.Sprint("here-", i)).Close()
	}
	aWhile(t, func() string { return fmt.Sprint(files(), " files are open") }, func() bool { return files() <= openTables })
	aWhile(t, held, func() bool { return open.Load() == 0 })
	if asked := spans.Load(); asked != n+1 {
		t.Errorf("the server was asked for spans %d times", asked)
	}
}
