package resolve

import (
	"bytes"
	"context"
	"errors"
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
	given := map[string]bool{}
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
			if given[t.ID] {
				continue // one that began between two pages pushes the rest on by one
			}
			given[t.ID] = true
			if t.Info == nil {
				return r.Trace(ctx, experimentID, t.ID)
			}
			return &t, nil
		}
	}}
	return r.tables.get(ctx, "traces\x00"+experimentID, rows.page, largerTrace)
}

// largerTrace is how large a table of traces may be: its first page, a trace or a part of
// one, tells nothing of that.
func largerTrace(int) int64 { return 1 << 40 }

// tracePage is how many bytes of traces are made at a time.
const tracePage = 128 << 10

// traceRows makes the pages of a table of traces.
type traceRows struct {
	r     *Resolver
	next  func(context.Context) (*meta.Trace, error) // io.EOF behind the last
	one   bool                                       // the first is the last
	began bool
	open  *spans // of the trace that is being written; nil between two
}

// page gives the next bytes: of the first page no more than one trace.
func (rows *traceRows) page(ctx context.Context) (page, error) {
	var b bytes.Buffer
	for first := !rows.began; b.Len() < tracePage; {
		if rows.open == nil {
			if last, err := rows.begin(ctx, &b); err != nil || last {
				return page{text: b.Bytes(), last: last}, err
			}
			continue
		}
		ended, err := rows.open.more(&b)
		switch {
		case err != nil:
			return page{}, fmt.Errorf("the spans of a trace: %w", err)
		case ended && rows.one:
			return page{text: b.Bytes(), last: true}, nil
		case ended:
			rows.open = nil
		}
		if rows.began = true; ended && first {
			break
		}
	}
	return page{text: b.Bytes(), part: true}, nil
}

// begin writes the beginning of the next trace.
func (rows *traceRows) begin(ctx context.Context, b *bytes.Buffer) (last bool, err error) {
	t, err := rows.next(ctx)
	if err == io.EOF {
		return true, nil
	}
	if !rows.one && errors.Is(err, fs.ErrNotExist) {
		return false, nil // it was deleted since it was found
	}
	if err != nil {
		return false, err
	}
	open, err := rows.r.spansOf(ctx, t)
	switch {
	case err == nil:
	case !rows.one && (IsRefusal(err) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoSpans)):
		rows.r.log.Warn("a trace is left out: its spans can't be had", "trace", t.ID, "err", err)
		return false, nil
	case errors.Is(err, fs.ErrNotExist): // that would be about the trace
		return false, fmt.Errorf("the spans of trace %s are missing: %v", t.ID, err)
	default:
		return false, fmt.Errorf("the spans of trace %s: %w", t.ID, err)
	}
	b.WriteString(`{"info": `)
	b.Write(oneLine(bytes.Clone(t.Info)))
	b.WriteString(`, "data": `)
	rows.open = open
	return false, nil
}
