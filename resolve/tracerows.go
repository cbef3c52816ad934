package resolve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// tracePage is how many bytes of traces are made at a time.
const tracePage = 128 << 10

// traceRows makes the pages of a table of traces.
type traceRows struct {
	r     *Resolver
	next  func(context.Context) (*meta.Trace, error) // io.EOF behind the last
	one   bool                                       // the first is the last
	began bool
	open  *spans     // of the trace that is being written; nil between two
	ahead []*opening // the traces that come then
	end   error      // what next gave behind them
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

// begin writes the beginning of the next trace whose spans can be had.
func (rows *traceRows) begin(ctx context.Context, b *bytes.Buffer) (last bool, err error) {
	o, err := rows.take(ctx)
	if err == io.EOF {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	switch err := o.err; {
	case err == nil:
	case !rows.one && (IsRefusal(err) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, meta.ErrNoSpans)):
		rows.r.log.Warn("a trace is left out: its spans can't be had", "trace", o.trace.ID, "err", err)
		return false, nil
	case errors.Is(err, fs.ErrNotExist): // that would be about the trace
		return false, fmt.Errorf("the spans of trace %s are missing: %v", o.trace.ID, err)
	default:
		return false, fmt.Errorf("the spans of trace %s: %w", o.trace.ID, err)
	}
	b.WriteString(`{"info": `)
	b.Write(oneLine(bytes.Clone(o.trace.Info)))
	b.WriteString(`, "data": `)
	rows.open = o.spans
	return false, nil
}

// tracesAhead is how many traces' spans are asked for at a time, once the first trace has
// been read.
const tracesAhead = 8

// opening is a trace whose spans are asked for.
type opening struct {
	trace *meta.Trace
	done  chan struct{} // closed when spans, or err, is there
	spans *spans
	err   error
}

// ask asks for the spans of a trace: once more where they were archived since the trace was
// asked for.
func (o *opening) ask(ctx context.Context, r *Resolver) (err error) {
	o.spans, err = r.spansOf(ctx, o.trace)
	if !errors.Is(err, meta.ErrSpansMoved) {
		return err
	}
	t, err := r.Trace(ctx, o.trace.ExperimentID, o.trace.ID)
	if err == nil {
		o.trace = t
		o.spans, err = r.spansOf(ctx, t)
	}
	return err
}

// take gives the next trace when its spans are there, and has those of the following ones
// asked for.
func (rows *traceRows) take(ctx context.Context) (*opening, error) {
	most := 1
	if rows.began {
		most = tracesAhead
	}
	for rows.end == nil && len(rows.ahead) < most {
		t, err := rows.next(ctx)
		switch {
		case !rows.one && errors.Is(err, fs.ErrNotExist): // it was deleted since it was found
		case err != nil:
			rows.end = err
		default:
			o := &opening{trace: t, done: make(chan struct{})}
			rows.ahead = append(rows.ahead, o)
			go func() {
				defer close(o.done)
				o.err = cache.Guard(func() error { return o.ask(ctx, rows.r) })
			}()
		}
	}
	if len(rows.ahead) == 0 {
		return nil, rows.end
	}
	o := rows.ahead[0]
	rows.ahead = rows.ahead[1:]
	<-o.done
	return o, nil
}
