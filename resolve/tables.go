package resolve

import (
	"context"
	"encoding/csv"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// MetricHistory is all points of a run's metric as CSV: step, timestamp (ms
// since 1970) and value, by step.
func (r *Resolver) MetricHistory(ctx context.Context, run *meta.Run, key string) (string, error) {
	t, err := r.tables.Get(ctx, "metric\x00"+run.ID+"\x00"+key, func(ctx context.Context) (table, error) {
		points, err := all(ctx, func(ctx context.Context, token string) (meta.Page[meta.Point], error) {
			return r.tracking.MetricHistory(ctx, run.ID, key, token)
		})
		slices.SortStableFunc(points, func(a, b meta.Point) int { return int(min(max(a.Step-b.Step, -1), 1)) })
		rows := [][]string{{"step", "timestamp", "value"}}
		for _, p := range points {
			rows = append(rows, []string{strconv.FormatInt(int64(p.Step), 10), strconv.FormatInt(int64(p.Timestamp), 10), string(p.Value)})
		}
		return table{asCSV(rows), run.Final()}, err
	})
	return t.text, err
}

// RunTable is the runs of an experiment as CSV, newest first: one row for each,
// with the last point of each metric and the params, in columns that are named
// as mlflow.search_runs names them.
func (r *Resolver) RunTable(ctx context.Context, experimentID string) (string, error) {
	t, err := r.tables.Get(ctx, "runs\x00"+experimentID, func(ctx context.Context) (table, error) {
		runs, err := all(ctx, func(ctx context.Context, token string) (meta.Page[meta.Run], error) {
			return r.tracking.SearchRuns(ctx, meta.RunQuery{Experiments: []string{experimentID}, JSON: true}, token)
		})
		if err != nil {
			return table{}, err
		}
		text, err := runTable(runs)
		return table{text, false}, err
	})
	return t.text, err
}

// table is a report's text.
type table struct {
	text  string
	final bool
}

func runTable(runs []meta.Run) (string, error) {
	metrics, params := map[string]bool{}, map[string]bool{}
	values := make([]map[string]string, len(runs))
	for i := range runs {
		d, err := runs[i].Data()
		if err != nil {
			return "", err
		}
		values[i] = map[string]string{}
		for _, m := range d.Metrics {
			metrics[m.Key] = true
			values[i]["metrics."+m.Key] = string(m.Value)
		}
		for _, p := range d.Params {
			params[p.Key] = true
			values[i]["params."+p.Key] = p.Value
		}
	}
	head := []string{"run_id", "run_name", "status", "start_time", "end_time", "artifact_uri"}
	named := len(head)
	for _, k := range slices.Sorted(maps.Keys(metrics)) {
		head = append(head, "metrics."+k)
	}
	for _, k := range slices.Sorted(maps.Keys(params)) {
		head = append(head, "params."+k)
	}
	rows := [][]string{head}
	for i := range runs {
		r := &runs[i]
		row := []string{r.ID, r.Name, r.Status, instant(r.Start), instant(r.End), Shown(r.ArtifactURI)}
		for _, k := range head[named:] {
			row = append(row, values[i][k])
		}
		rows = append(rows, row)
	}
	return asCSV(rows), nil
}

// instant writes a time as spreadsheets read it.
func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func asCSV(rows [][]string) string {
	var b strings.Builder
	csv.NewWriter(&b).WriteAll(rows) // can't fail: it is memory
	return b.String()
}
