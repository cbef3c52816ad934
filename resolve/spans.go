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
		body, err = noSpans(), nil
	}
	if err != nil {
		return nil, err
	}
	s := &spans{bufio.NewReaderSize(body, spansPiece), body, context.AfterFunc(ctx, func() { body.Close() })}
	if first, err := s.Peek(1); err != nil && err != io.EOF || len(first) == 0 || first[0] != '{' {
		s.stop()
		body.Close()
		if err == nil || err == io.EOF {
			err = meta.ErrNoSpans
		}
		return nil, err
	}
	return s, nil
}

// openSpans goes where the trace says that they are. What nothing here may read, or finds
// on this machine, a tracking server may have a door to.
func (r *Resolver) openSpans(ctx context.Context, t *meta.Trace) (io.ReadCloser, error) {
	if t.Archive != "" && r.opt.Client == nil {
		return r.archivedSpans(ctx, t)
	}
	if t.Stored {
		return r.tracking.Spans(ctx, t)
	}
	body, err := r.openTraceFile(ctx, t, t.URI, spansFile)
	if err == nil {
		return body, nil
	}
	if r.opt.Client != nil && (IsRefusal(err) || errors.Is(err, fs.ErrNotExist)) {
		if body, serr := r.tracking.Spans(ctx, t); serr == nil {
			return body, nil
		}
	}
	return nil, err
}

// archivedSpans reads the archive of a trace's spans. One that is gone had none, as MLflow
// takes it (ArtifactRepository.download_archived_trace_data).
func (r *Resolver) archivedSpans(ctx context.Context, t *meta.Trace) (io.ReadCloser, error) {
	file, err := r.openTraceFile(ctx, t, t.Archive, meta.ArchiveFile)
	if errors.Is(err, fs.ErrNotExist) {
		r.log.Warn("an archived trace has no spans any more", "trace", t.ID, "err", err)
		return noSpans(), nil
	}
	if err != nil {
		return nil, err
	}
	body, err := meta.ArchivedSpans(file, file.Size())
	if err != nil {
		file.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{body, file}, nil
}

// noSpans is the JSON of a trace without spans.
func noSpans() io.ReadCloser { return io.NopCloser(strings.NewReader(`{"spans": []}`)) }

// traceFile is an open file of a trace's artifacts.
type traceFile struct {
	*io.SectionReader
	io.Closer
}

// openTraceFile opens a file in a trace's directory of artifacts, at uri, by the routes
// that lead to it, like any artifact.
func (r *Resolver) openTraceFile(ctx context.Context, t *meta.Trace, uri, name string) (*traceFile, error) {
	if uri == "" {
		return nil, fmt.Errorf("trace %s has no place for its spans: %w", t.ID, fs.ErrNotExist)
	}
	root, dir := withoutQuery(uri), ""
	// One store for the traces of an experiment: what is found out of its routes serves
	// them all.
	if above, ok := strings.CutSuffix(root, "/"+t.ID+"/artifacts"); ok && strings.HasSuffix(above, "/traces") {
		root, dir = above, t.ID+"/artifacts"
	}
	s, err := r.store(ctx, rootOf(root, artifact.Door{}))
	if err != nil {
		return nil, err
	}
	it, err := r.Lookup(ctx, &Dir{Parts: []Part{{s, dir}}, Final: t.Ended}, name)
	if err != nil {
		return nil, err
	}
	if it.Dir != nil {
		return nil, fmt.Errorf("%s is a directory: %w", name, fs.ErrNotExist)
	}
	if s.Local() {
		f, err := s.Open(it.Path)
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		return &traceFile{io.NewSectionReader(f, 0, info.Size()), f}, nil
	}
	it = it.Pinned()
	f := r.opt.Cache.Open(it.Key(), it, it.Known())
	return &traceFile{f.Reader(ctx), f}, nil
}
