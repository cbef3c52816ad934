package fs

import (
	"context"
	"strings"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// The names of an experiment's traces in its directory: a file for each, and all of them
// as lines.
const (
	tracesName  = "traces"
	tracesTable = "traces.jsonl"
	traceEnding = ".json"
)

// tracesDir is experiments/<name>/traces/. A listing gives names alone: what a trace holds,
// and how long it is, is asked for when it is looked up.
type tracesDir struct {
	t          *tree
	experiment string // its id
}

var _ Dir = tracesDir{}

func (d experimentDir) traces() *Node {
	return &Node{Dir: tracesDir{d.t, d.id}, TTL: d.t.r.TTL(false)}
}

// Lookup depends on no listing.
func (d tracesDir) Lookup(ctx context.Context, name string) (*Node, error) {
	id, ok := strings.CutSuffix(name, traceEnding)
	if !ok {
		return nil, notExist(name)
	}
	text, err := d.t.r.TraceText(ctx, d.experiment, id)
	if err != nil {
		return nil, err
	}
	return tableNode(text, time.Time{}, d.t.r.TTL(false)), nil
}

// List pages through the search.
func (d tracesDir) List(context.Context) (Listing, error) {
	var order resolve.NewestFirst
	search := func(ctx context.Context, token string) (meta.Page[meta.Trace], error) {
		return d.t.r.SearchTraces(ctx, d.experiment, token)
	}
	return &pages[meta.Trace]{search: search, entry: func(t *meta.Trace) (Entry, bool) {
		switch {
		case order.Again(t.ID, t.Start):
			return Entry{}, false
		case !meta.ValidTraceID(t.ID):
			return d.t.leaveOut(tracesName, t.ID)
		}
		return Entry{t.ID + traceEnding, &Node{File: text(""), Later: true}}, true
	}}, nil
}

// traceTable is experiments/<name>/traces.jsonl. Who lists the experiment with the sizes of
// what is in it asks for no trace.
func (d experimentDir) traceTable() *Node {
	return d.t.later(func(ctx context.Context) (*resolve.Table, error) { return d.t.r.TraceTable(ctx, d.id) })
}
