package meta

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// aTraceOf is the statements of a trace of n spans, each of which began with others.
func aTraceOf(n int) []string {
	out := append(append([]string{}, tables...),
		"INSERT INTO experiments VALUES (1, 'e', 'active')",
		"CREATE TABLE trace_info (request_id TEXT, experiment_id INTEGER, timestamp_ms INTEGER, execution_time_ms INTEGER, status TEXT)",
		"CREATE TABLE trace_tags (request_id TEXT, key TEXT, value TEXT)",
		"CREATE TABLE spans (trace_id TEXT, span_id TEXT, parent_span_id TEXT, start_time_unix_nano INTEGER, content TEXT NOT NULL)",
		"INSERT INTO trace_info VALUES ('tr-1', 1, 1, 1, 'OK')",
		"INSERT INTO trace_tags VALUES ('tr-1', '"+spansLocation+"', '"+trackingStore+"')")
	for i := range n {
		parent := "'s0000'"
		if i == n-1 {
			parent = "NULL"
		}
		out = append(out, fmt.Sprintf("INSERT INTO spans VALUES ('tr-1', 's%04d', %s, %d, '%d')", i, parent, i/7, i))
	}
	return out
}

// archiving is what MLflow changes when it archives a trace (_finalize_archived_trace).
var archiving = []string{
	"BEGIN; UPDATE spans SET content = ''; UPDATE trace_tags SET value = '" + archived + "'; INSERT INTO trace_tags VALUES ('tr-1', '" + archivedAt + "', '/archive'); COMMIT",
}

// TestSpansAreAllOrAnError fails when a trace of a database that is archived or deleted
// while it is read is given short, without an error; when spans that are written or gone
// meanwhile move others, so that one is missing or given twice; or when the trace as it is
// then does not say where the spans are.
func TestSpansAreAllOrAnError(t *testing.T) {
	t.Parallel()
	const n = 3*spansPage + 10
	var all []string
	for i := range n - 1 {
		all = append(all, fmt.Sprint(i))
	}
	all = append([]string{fmt.Sprint(n - 1)}, all...)
	for what, c := range map[string]struct {
		meanwhile []string
		moved     bool
	}{
		"archived":           {archiving, true},
		"deleted":            {[]string{"DELETE FROM spans; DELETE FROM trace_tags; DELETE FROM trace_info"}, true},
		"nothing":            {},
		"one more":           {[]string{"INSERT INTO spans VALUES ('tr-1', 's', 's0000', 0, 'early')"}, false},
		"one that was given": {[]string{"DELETE FROM spans WHERE span_id = 's0003'"}, false},
		"cleared alone":      {[]string{"UPDATE spans SET content = '' WHERE span_id = 's0003'"}, false},
	} {
		path := sqliteOf(t, filepath.Join(t.TempDir(), "mlflow.db"), aTraceOf(n)...)
		s := openStore(t, "sqlite:///"+path, nil)
		tr, err := s.Trace(t.Context(), "tr-1")
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Spans(t.Context(), tr)
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, len(`{"spans": [`)+2)
		if _, err := io.ReadFull(r, first); err != nil {
			t.Fatal(err)
		}
		sqliteOf(t, path, c.meanwhile...)
		rest, err := io.ReadAll(r)
		if c.moved {
			if !errors.Is(err, ErrSpansMoved) {
				t.Errorf("%s: %v, after %d bytes", what, err, len(rest))
			}
		} else if got := string(first) + string(rest); err != nil || got != `{"spans": [`+strings.Join(all, ", ")+"]}" {
			t.Errorf("%s: %s, %v", what, got, err)
		}
		if what == "archived" {
			if tr, err = s.Trace(t.Context(), "tr-1"); err != nil || tr.Archive != "/archive" {
				t.Errorf("the trace is at %v, %v", tr, err)
			}
			r, _ := s.Spans(t.Context(), tr)
			if got, err := io.ReadAll(r); !errors.Is(err, ErrSpansMoved) || len(got) > 0 {
				t.Errorf("%s, %v", got, err)
			}
		}
	}
}
