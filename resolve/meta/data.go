package meta

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Pair is a param or a tag.
type Pair struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Point is one value of a metric.
type Point struct {
	Key       string   `json:"key"`
	Value     Value    `json:"value"`
	Timestamp rest.Int `json:"timestamp"` // ms since 1970
	Step      rest.Int `json:"step"`
}

// Value is a metric's value as protobuf's JSON writes it: a number's digits,
// NaN, Infinity or -Infinity.
type Value string

// UnmarshalJSON takes 0.5 and "NaN".
func (v *Value) UnmarshalJSON(b []byte) error {
	*v = Value(strings.Trim(string(b), `"`))
	return nil
}

var _ json.Unmarshaler = (*Value)(nil)

// Data is what was logged to a run. Of a metric it is the last point.
type Data struct {
	Params  []Pair  `json:"params"`
	Tags    []Pair  `json:"tags"`
	Metrics []Point `json:"metrics"`
}

// Data reads what was logged from the run's JSON, which it must have.
func (r *Run) Data() (Data, error) {
	var doc struct{ Data Data }
	if err := json.Unmarshal(r.JSON, &doc); err != nil {
		return Data{}, fmt.Errorf("run %s: %w", r.ID, err)
	}
	return doc.Data, nil
}

// searchRunsJSON is SearchRuns with the answer's JSON.
func (s *restStore) searchRunsJSON(ctx context.Context, experimentIDs []string, token string) (Page[Run], error) {
	var out struct {
		Runs []json.RawMessage `json:"runs"`
		Next string            `json:"next_page_token"`
	}
	if err := s.searchRuns(ctx, experimentIDs, token, &out); err != nil {
		return Page[Run]{}, err
	}
	p := Page[Run]{Next: out.Next}
	for _, raw := range out.Runs {
		run, err := runOf(raw)
		if err != nil {
			return Page[Run]{}, err
		}
		p.Items = append(p.Items, *run)
	}
	return p, nil
}

// runOf reads a run from its JSON, and keeps that.
func runOf(raw json.RawMessage) (*Run, error) {
	var r restRun
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, err
	}
	run := r.run()
	run.JSON = raw
	return &run, nil
}

// historyPage is how many points of a metric are asked for at a time.
const historyPage = 25_000 // MLflow's own limit

// MetricHistory asks metrics/get-history, which MLflow 2 answers in pages, too.
func (s *restStore) MetricHistory(ctx context.Context, runID, key, token string) (Page[Point], error) {
	var out struct {
		Metrics []Point `json:"metrics"`
		Next    string  `json:"next_page_token"`
	}
	q := search(historyPage, token, "")
	q.Set("run_id", runID)
	q.Set("metric_key", key)
	err := s.c.JSON(ctx, api+"metrics/get-history", url.Values(q), nil, &out)
	return Page[Point]{out.Metrics, out.Next}, err
}
