package fs

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// runsTable is the name of an experiment's table of runs, and csvEnding that of
// each table.
const (
	runsTable = "runs.csv"
	csvEnding = ".csv"
)

// report is a node of a text that is known.
func (t *tree) report(text string, run *meta.Run) *Node {
	n := sized(text)
	n.Mtime, n.TTL = run.Mtime(), t.r.TTL(run.Final())
	return n
}

// metadata is what was logged to a run, as files: run.json, params/<key>,
// tags/<key>, metrics/<key>.csv.
func (t *tree) metadata(run *meta.Run) (fixed, error) {
	var doc bytes.Buffer
	if err := json.Indent(&doc, run.JSON, "", "  "); err != nil {
		return nil, err
	}
	doc.WriteByte('\n')
	dir := func(in func(*meta.Run, meta.Data) Dir) *Node {
		return &Node{Dir: t.logged(run.ID, in), Mtime: run.Mtime(), TTL: t.r.TTL(run.Final())}
	}
	return fixed{
		{"metrics", dir(t.metrics)},
		{"params", dir(func(run *meta.Run, data meta.Data) Dir { return t.pairs("params", run, data.Params) })},
		{"run.json", t.report(doc.String(), run)},
		{"tags", dir(func(run *meta.Run, data meta.Data) Dir { return t.pairs("tags", run, data.Tags) })},
	}, nil
}

// logged is a directory in a run's, made of what has been logged by the time that
// somebody looks into it: for a program that stands in it, nobody looks up its name.
func (t *tree) logged(id string, in func(*meta.Run, meta.Data) Dir) Dir {
	return lazyDir(func(ctx context.Context) (Dir, error) {
		run, err := t.r.Run(ctx, id)
		if err != nil {
			return nil, err
		}
		data, err := run.Data()
		return in(run, data), err
	})
}

// pairs is a directory with a file for each of a run's params or tags, which
// holds its value and no more.
func (t *tree) pairs(what string, run *meta.Run, pairs []meta.Pair) fixed {
	var out fixed
	for _, p := range pairs {
		if name := Escape(p.Key); len(name) > MaxName {
			t.leaveOut(what, p.Key)
		} else {
			out = append(out, Entry{name, t.report(p.Value, run)})
		}
	}
	return out
}

// metricsDir has a table of all its points for each of a run's metrics. A
// listing does not ask for them: a table's size costs a request.
type metricsDir struct {
	t    *tree
	run  *meta.Run
	keys []string
}

var _ Dir = metricsDir{}

func (t *tree) metrics(run *meta.Run, data meta.Data) Dir {
	d := metricsDir{t: t, run: run.WithoutJSON()}
	for _, m := range data.Metrics {
		d.keys = append(d.keys, m.Key)
	}
	return d
}

func (d metricsDir) Lookup(ctx context.Context, name string) (*Node, error) {
	file, ok := strings.CutSuffix(name, csvEnding)
	key := Unescape(file)
	if !ok || Escape(key) != file || !slices.Contains(d.keys, key) {
		return nil, notExist(name)
	}
	points, err := d.t.r.MetricHistory(ctx, d.run, key)
	if err != nil {
		return nil, err
	}
	return tableNode(points, d.run.Mtime(), d.t.r.TTL(d.run.Final())), nil
}

func (d metricsDir) List(context.Context) (Listing, error) {
	var out entries
	for _, key := range d.keys {
		if name := Escape(key) + csvEnding; len(name) > MaxName {
			d.t.leaveOut("metrics", key)
		} else {
			out = append(out, Entry{name, &Node{File: text(""), Later: true}})
		}
	}
	return &out, nil
}

// table is experiments/<name>/runs.csv.
func (d experimentDir) table(ctx context.Context) (*Node, error) {
	runs, err := d.t.r.RunTable(ctx, d.id)
	if err != nil {
		return nil, err
	}
	return tableNode(runs, time.Time{}, d.t.r.TTL(false)), nil
}

// modelCard is models/<name>/model.json. Artifacts are in the directories beside
// it, so that it is taken for none.
const modelCard = "model.json"

// card is what the registry says of a registered model, in the names of its API.
func (d modelDir) card(m *meta.RegisteredModel) (*Node, error) {
	type version struct {
		Version string `json:"version"`
		Stage   string `json:"current_stage"`
		Status  string `json:"status"`
		Source  string `json:"source"`
		RunID   string `json:"run_id,omitempty"`
		Created int64  `json:"creation_timestamp"` // ms
	}
	card := struct {
		Name    string            `json:"name"`
		Created int64             `json:"creation_timestamp"`
		Aliases map[string]string `json:"aliases"`
		Latest  []version         `json:"latest_versions"`
	}{m.Name, m.Created.UnixMilli(), m.Aliases, []version{}}
	if card.Aliases == nil {
		card.Aliases = map[string]string{}
	}
	for _, v := range m.Latest {
		card.Latest = append(card.Latest, version{v.Version, v.Stage, v.Status, resolve.Shown(v.Source), v.RunID, v.Created.UnixMilli()})
	}
	b, err := json.MarshalIndent(card, "", "  ")
	n := sized(string(b) + "\n")
	n.Mtime, n.TTL = m.Created, d.t.r.TTL(false)
	return n, err
}
