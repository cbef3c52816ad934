package resolve

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// spansFile is the file of a trace's spans among its artifacts
// (mlflow.tracing.utils.artifact_utils).
const spansFile = "traces.json"

// spansPiece is how many bytes of spans are read at a time.
const spansPiece = 32 << 10

// spans are those of a trace, on their way to its text.
type spans struct {
	*bufio.Reader
	body io.Closer
	stop func() bool // keeps the end of ctx from closing the body
}

// more writes some of the spans, and what ends the trace's line behind the last.
func (s *spans) more(b *bytes.Buffer) (ended bool, err error) {
	b.Grow(spansPiece)
	piece := b.AvailableBuffer()[:spansPiece]
	n, err := s.Read(piece)
	b.Write(oneLine(piece[:n]))
	if err == nil {
		return false, nil
	}
	s.stop()
	s.body.Close()
	if err != io.EOF {
		return false, err
	}
	b.WriteString("}\n")
	return true, nil
}

// oneLine makes JSON of one line of JSON of several: outside of a text the end of a line
// means nothing, and in one it is not allowed.
func oneLine(b []byte) []byte {
	for i, c := range b {
		if c == '\n' || c == '\r' {
			b[i] = ' '
		}
	}
	return b
}

// spansOf opens the spans of a trace, of which the first must be there. They are closed
// when ctx ends.
func (r *Resolver) spansOf(ctx context.Context, t *meta.Trace) (*spans, error) {
	body, err := r.openSpans(ctx, t)
	if !t.Ended && errors.Is(err, fs.ErrNotExist) { // MLflow 2 writes them at its end
		body, err = io.NopCloser(strings.NewReader(`{"spans": []}`)), nil
	}
	if err != nil {
		return nil, err
	}
	s := &spans{bufio.NewReaderSize(body, spansPiece), body, context.AfterFunc(ctx, func() { body.Close() })}
	if first, err := s.Peek(1); err != nil && err != io.EOF || len(first) == 0 || first[0] != '{' {
		s.stop()
		body.Close()
		if err == nil || err == io.EOF {
			err = errNoSpans
		}
		return nil, err
	}
	return s, nil
}

// errNoSpans says that what stands where a trace's spans should is something else.
var errNoSpans = errors.New("it is no JSON of MLflow's")

// openSpans goes where the trace says that they are. What nothing here may read, or finds
// on this machine, a tracking server may have a door to.
func (r *Resolver) openSpans(ctx context.Context, t *meta.Trace) (io.ReadCloser, error) {
	if t.Stored {
		return r.tracking.Spans(ctx, t)
	}
	body, err := r.artifactSpans(ctx, t)
	if err != nil && r.opt.Client != nil && (IsRefusal(err) || errors.Is(err, fs.ErrNotExist)) {
		if body, serr := r.tracking.Spans(ctx, t); serr == nil {
			return body, nil
		}
	}
	return body, err
}

// artifactSpans reads the file of a trace's spans by the routes that lead to its
// artifacts, like any artifact.
func (r *Resolver) artifactSpans(ctx context.Context, t *meta.Trace) (io.ReadCloser, error) {
	if t.URI == "" {
		return nil, fmt.Errorf("trace %s has no place for its spans: %w", t.ID, fs.ErrNotExist)
	}
	root, dir := withoutQuery(t.URI), ""
	// One store for the traces of an experiment: what is found out of its routes serves
	// them all.
	if above, ok := strings.CutSuffix(root, "/"+t.ID+"/artifacts"); ok && strings.HasSuffix(above, "/traces") {
		root, dir = above, t.ID+"/artifacts"
	}
	s, err := r.store(ctx, rootOf(root, artifact.Door{}))
	if err != nil {
		return nil, err
	}
	it, err := r.Lookup(ctx, &Dir{Parts: []Part{{s, dir}}, Final: t.Ended}, spansFile)
	if err != nil {
		return nil, err
	}
	if it.Dir != nil {
		return nil, fmt.Errorf("%s is a directory: %w", spansFile, fs.ErrNotExist)
	}
	if s.Local() {
		return s.Open(it.Path)
	}
	it = it.Pinned()
	f := r.opt.Cache.Open(it.Key(), it, it.Known())
	return struct {
		io.Reader
		io.Closer
	}{f.Reader(ctx), f}, nil
}
