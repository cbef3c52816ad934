package resolve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// archiving is a database with a trace, which MLflow archives when its spans are asked for.
type archiving struct {
	meta.Store
	at    string // the archive
	moved bool   // before the trace was asked for
	asked atomic.Int64
}

func (a *archiving) Trace(context.Context, string) (*meta.Trace, error) {
	t := &meta.Trace{ID: "tr-1", ExperimentID: "1", Stored: true, Ended: true, Info: []byte(`"in the database"`)}
	if a.asked.Add(1) > 1 || a.moved {
		t.Archive, t.Info = a.at, []byte(`"in the archive"`)
	}
	return t, nil
}

func (a *archiving) SearchTraces(ctx context.Context, _, _ string) (p meta.Page[meta.Trace], err error) {
	t, err := a.Trace(ctx, "")
	return meta.Page[meta.Trace]{Items: []meta.Trace{*t}}, err
}

func (a *archiving) Spans(context.Context, *meta.Trace) (io.ReadCloser, error) {
	return io.NopCloser(spansMoved{}), nil
}

type spansMoved struct{}

func (spansMoved) Read([]byte) (int, error) { return 0, fmt.Errorf("tr-1: %w", meta.ErrSpansMoved) }

// TestArchivedSpansAreReadWhereTheyAre fails when a trace that is archived between two
// questions for it is an error, or is told of as it was before; when an archive that is gone
// is an error, which MLflow's client gives as no spans; when one that can't be read, or is
// none, is given as no spans; or when it opens what the settings don't.
func TestArchivedSpansAreReadWhereTheyAre(t *testing.T) {
	t.Parallel()
	whole := t.TempDir()
	const archive = "\x0a\x12\x12\x10\x12\x0e\x0a\x01\x01\x12\x01\x02\x2a\x06of all"
	broken, dir := t.TempDir(), t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(whole, meta.ArchiveFile), []byte(archive), 0o644),
		os.WriteFile(filepath.Join(broken, meta.ArchiveFile), []byte(archive[:9]), 0o644),
		os.Mkdir(filepath.Join(dir, meta.ArchiveFile), 0o755)); err != nil {
		t.Fatal(err)
	}
	const empty = `{"info": "in the archive", "data": {"spans": []}}` + "\n"
	for _, c := range []struct {
		at, want string
		err      error
		allowed  []string
	}{
		{at: whole, want: `"name": "of all"`},
		{at: "file://" + whole, want: `"name": "of all"`},
		{at: t.TempDir(), want: empty},
		{at: dir, want: empty},
		{at: broken, err: meta.ErrNoSpans},
		{at: "", err: meta.ErrSpansMoved},
		{at: "s3://refuses/x", err: fs.ErrPermission},
		{at: whole, allowed: []string{}, err: errors.ErrUnsupported},
		{at: "s3://secret/x", allowed: []string{"s3://other"}, err: errors.ErrUnsupported},
	} {
		for _, moved := range []bool{true, false} {
			s := &archiving{at: c.at, moved: moved}
			opt := Options{Tracking: s, Log: slog.New(slog.DiscardHandler), Buckets: map[string]artifact.OpenBucket{"s3": func(context.Context, string) (*artifact.Bucket, error) { return nil, fs.ErrPermission }}}
			if c.allowed != nil {
				opt.Allowed, _ = ParseAllowed(c.allowed)
			}
			r := New(opt)
			got, err := textOf(t, func() (*Table, error) { return r.TraceText(t.Context(), "1", "tr-1") })
			if !errors.Is(err, c.err) || c.err == nil && (err != nil || !strings.Contains(got, c.want) || !strings.HasPrefix(got, `{"info": "in the archive"`)) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%q: %s, %v", c.at, got, err)
			}
			s.asked.Store(0)
			line, err := textOf(t, func() (*Table, error) { return r.TraceTable(t.Context(), "1") })
			if c.err == nil && (line != got || err != nil) || c.err != nil && (line != "" || err != nil) {
				t.Errorf("%q: the lines are %q, %v", c.at, line, err)
			}
		}
	}
}

// textOf is all of a table.
func textOf(t *testing.T, open func() (*Table, error)) (string, error) {
	t.Helper()
	table, err := open()
	if err != nil {
		return "", err
	}
	defer table.Close()
	size, _, err := table.Grow(t.Context(), 1<<20)
	b := make([]byte, size)
	if err == nil {
		_, err = table.ReadAt(t.Context(), b, 0)
	}
	if err == io.EOF {
		err = nil
	}
	return string(b), err
}
