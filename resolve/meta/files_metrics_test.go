package meta

import (
	"encoding/json"
	"testing"
)

// FuzzLastMetricIsJSON fails when some metric file of a FileStore makes a run.json
// that is no JSON.
func FuzzLastMetricIsJSON(f *testing.F) {
	f.Add("1 0.5 1\n2 0.6 1\n3 nan 9\n")
	f.Fuzz(func(t *testing.T, lines string) {
		if m, ok := lastMetric("k", lines); ok && !json.Valid(m.Value) {
			t.Errorf("%q: %s", lines, m.Value)
		}
	})
}
