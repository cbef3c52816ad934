package resolve

import (
	"context"
	"fmt"
	"io"
	"io/fs"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// Trace gives a trace of an experiment.
func (r *Resolver) Trace(ctx context.Context, experimentID, id string) (*meta.Trace, error) {
	if !meta.ValidTraceID(id) {
		return nil, fmt.Errorf("trace %q: %w", id, fs.ErrNotExist)
	}
	t, err := r.tracking.Trace(ctx, id)
	if err == nil && (t.ExperimentID != experimentID || t.ID != id) {
		return nil, fmt.Errorf("trace %q of the experiment %s: %w", id, experimentID, fs.ErrNotExist)
	}
	return t, err
}

// SearchTraces gives a page of an experiment's traces. An experiment for which that is
// refused is left out.
func (r *Resolver) SearchTraces(ctx context.Context, experimentID, token string) (meta.Page[meta.Trace], error) {
	p, err := r.tracking.SearchTraces(ctx, experimentID, token)
	if r.LeavesOut(Traces, experimentID, err) {
		err = fmt.Errorf("the traces of the experiment %q can't be listed: %w", r.experimentName(experimentID), err)
	}
	return p, err
}

// TraceText is a trace with its spans: a line of JSON, as MLflow's Trace.to_json gives it.
// It is made as far as it is read.
func (r *Resolver) TraceText(ctx context.Context, experimentID, id string) (*Table, error) {
	if !meta.ValidTraceID(id) {
		return nil, fmt.Errorf("trace %q: %w", id, fs.ErrNotExist)
	}
	rows := &traceRows{r: r, one: true, next: func(ctx context.Context) (*meta.Trace, error) {
		return r.Trace(ctx, experimentID, id)
	}}
	return r.tables.get(ctx, "trace\x00"+experimentID+"\x00"+id, rows.page, largerTrace)
}

// TraceTable is the traces of an experiment, a line for each as TraceText gives it, in the
// order of the search. A trace whose spans can't be had is left out, as by MLflow's
// search_traces.
func (r *Resolver) TraceTable(ctx context.Context, experimentID string) (*Table, error) {
	var left []meta.Trace
	var token string
	pages := 0
	var order NewestFirst
	rows := &traceRows{r: r, next: func(ctx context.Context) (*meta.Trace, error) {
		for {
			for len(left) == 0 {
				if pages > 0 && token == "" {
					return nil, io.EOF
				}
				if pages == maxPages {
					return nil, errTooLong
				}
				p, err := r.SearchTraces(ctx, experimentID, token)
				if err != nil {
					return nil, err
				}
				if pages > 0 && p.Next == token {
					p.Next = "" // a server that ignores the token would page for ever
				}
				left, token = p.Items, p.Next
				pages++
			}
			t := left[0]
			left = left[1:]
			if order.Again(t.ID, t.Start) {
				continue
			}
			if t.Info == nil {
				return r.Trace(ctx, experimentID, t.ID)
			}
			return &t, nil
		}
	}}
	return r.tables.get(ctx, "traces\x00"+experimentID, rows.page, largerTrace)
}

// UnknownSize is what is shown of the size of a table of traces: its first page, a trace
// or a part of one, tells nothing of that.
const UnknownSize = 1 << 40

func largerTrace(int) int64 { return UnknownSize }
