package resolve

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// MetricHistory is all points of a run's metric as a table: step, timestamp (ms since
// 1970) and value. Each page of the server's, 25,000 points, is by step; the pages
// stand in the server's order, which is by time.
func (r *Resolver) MetricHistory(ctx context.Context, run *meta.Run, key string) (*Table, error) {
	token, began := "", false
	next := func(ctx context.Context) (page, error) {
		p, err := r.tracking.MetricHistory(ctx, run.ID, key, token)
		if err != nil {
			return page{}, err
		}
		slices.SortStableFunc(p.Items, func(a, b meta.Point) int { return int(min(max(a.Step-b.Step, -1), 1)) })
		var rows [][]string
		if !began {
			rows = append(rows, []string{"step", "timestamp", "value"})
		}
		for _, p := range p.Items {
			rows = append(rows, []string{strconv.FormatInt(int64(p.Step), 10), strconv.FormatInt(int64(p.Timestamp), 10), string(p.Value)})
		}
		last := p.Next == "" || p.Next == token
		token, began = p.Next, true
		return page{text: asCSV(rows), last: last, final: run.Final()}, nil
	}
	return r.tables.get(ctx, "metric\x00"+run.ID+"\x00"+key, next, func(first int) int64 { return largeTable * int64(first) })
}

// largeTable is how many pages a table has at most that is not known to have more, each
// as long as the first; or fewer that are longer: a run that has just begun has logged
// little.
const largeTable = 1000

// RunTable is the runs of an experiment as a table, newest first: one row for each,
// with the last point of each metric and the params, in columns that are named as
// mlflow.search_runs names them.
//
// The first page, which has the 200 newest runs, tells the columns. Where there are
// more, there is one column more, too: what other runs have besides these columns, as
// a JSON object.
func (r *Resolver) RunTable(ctx context.Context, experimentID string) (*Table, error) {
	rows := &runRows{r: r, experiment: experimentID, given: map[string]bool{}}
	return r.tables.get(ctx, "runs\x00"+experimentID, rows.page, func(first int) int64 {
		pages := largeTable
		if known, ok := r.indexes.Peek(experimentID); ok {
			pages = max(pages, 2*(1+len(known.Items)/max(len(rows.given), 1)))
		}
		return int64(pages) * int64(first)
	})
}

// moreColumn is the column of what has no column of its own.
const moreColumn = "more"

// runRows makes the pages of a table of runs.
type runRows struct {
	r          *Resolver
	experiment string
	token      string
	head       []string
	at         map[string]int // column of a metric or param
	given      map[string]bool
}

func (rows *runRows) page(ctx context.Context) (page, error) {
	p, err := rows.r.SearchRuns(ctx, rows.experiment, true, rows.token)
	if err != nil {
		return page{}, err
	}
	values := make([]map[string]string, len(p.Items))
	for i := range p.Items {
		if values[i], err = valuesOf(&p.Items[i]); err != nil {
			return page{}, err
		}
	}
	last := p.Next == "" || p.Next == rows.token
	rows.token = p.Next
	var out [][]string
	if rows.head == nil {
		rows.columns(values, last)
		out = append(out, rows.head)
	}
	for i := range p.Items {
		// A run that began between two pages pushes the rest on by one.
		if id := p.Items[i].ID; !rows.given[id] {
			rows.given[strings.Clone(id)] = true
			out = append(out, rows.row(&p.Items[i], values[i]))
		}
	}
	return page{text: asCSV(out), last: last}, nil
}

// columns makes the head of the table.
func (rows *runRows) columns(values []map[string]string, whole bool) {
	rows.head = []string{"run_id", "run_name", "status", "start_time", "end_time", "artifact_uri"}
	names := map[string]bool{}
	for _, v := range values {
		for k := range v {
			names[k] = true
		}
	}
	rows.at = map[string]int{}
	for _, k := range slices.Sorted(maps.Keys(names)) { // metrics before params
		rows.at[k] = len(rows.head)
		rows.head = append(rows.head, k)
	}
	if !whole {
		rows.head = append(rows.head, moreColumn)
	}
}

func (rows *runRows) row(run *meta.Run, values map[string]string) []string {
	row := make([]string, len(rows.head))
	copy(row, []string{run.ID, run.Name, run.Status, instant(run.Start), instant(run.End), Shown(run.ArtifactURI)})
	more := map[string]string{}
	for k, v := range values {
		if at, ok := rows.at[k]; ok {
			row[at] = v
		} else {
			more[k] = v
		}
	}
	if len(more) > 0 {
		b, _ := json.Marshal(more) // can't fail: it is strings
		row[len(row)-1] = string(b)
	}
	return row
}

// valuesOf is the last point of each metric of a run, and its params, by their
// columns' names.
func valuesOf(run *meta.Run) (map[string]string, error) {
	d, err := run.Data()
	values := make(map[string]string, len(d.Metrics)+len(d.Params))
	for _, m := range d.Metrics {
		values["metrics."+m.Key] = string(m.Value)
	}
	for _, p := range d.Params {
		values["params."+p.Key] = p.Value
	}
	return values, err
}

// instant writes a time as spreadsheets read it.
func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func asCSV(rows [][]string) []byte {
	var b bytes.Buffer
	csv.NewWriter(&b).WriteAll(rows) // can't fail: it is memory
	return b.Bytes()
}
