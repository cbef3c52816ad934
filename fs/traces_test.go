package fs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/fs/storetest"
	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// traceStore is a tracking store with an experiment of n traces, whose spans it has.
type traceStore struct {
	meta.Store               // nil: nothing else is asked for
	n                        int
	spans                    func(id string) io.Reader
	endless                  bool         // each page has another behind it, with a new token
	searches, asked, streams atomic.Int64 // pages, look-ups and spans that were asked for
}

func traceNamed(i int) string { return fmt.Sprintf("tr-%032x", i) }

func (s *traceStore) trace(i int) meta.Trace {
	id := traceNamed(i)
	return meta.Trace{ID: id, ExperimentID: "1", Stored: true, Ended: true, Start: time.UnixMilli(int64(2e12) - int64(i)), Info: []byte(`{"trace_id": "` + id + `"}`)}
}

func (s *traceStore) SearchExperiments(context.Context, string, string) (meta.Page[meta.Experiment], error) {
	return meta.Page[meta.Experiment]{Items: []meta.Experiment{{ID: "1", Name: "big"}}}, nil
}

func (s *traceStore) SearchRuns(context.Context, meta.RunQuery, string) (meta.Page[meta.Run], error) {
	return meta.Page[meta.Run]{Items: []meta.Run{{ID: storetest.RunID(1), Name: "traces"}, {ID: storetest.RunID(2), Name: "traces.jsonl"}}}, nil
}

func (s *traceStore) SearchTraces(_ context.Context, _, token string) (p meta.Page[meta.Trace], _ error) {
	s.searches.Add(1)
	first, _ := strconv.Atoi(token)
	for i := first; i < min(first+100, s.n); i++ {
		p.Items = append(p.Items, s.trace(i))
	}
	if first+100 < s.n || s.endless {
		p.Next = strconv.Itoa(first + 100)
	}
	return p, nil
}

func (s *traceStore) Trace(_ context.Context, id string) (*meta.Trace, error) {
	s.asked.Add(1)
	var i int
	if _, err := fmt.Sscanf(id, "tr-%x", &i); err != nil || i >= s.n || traceNamed(i) != id {
		return nil, fmt.Errorf("trace %s: %w", id, iofs.ErrNotExist)
	}
	t := s.trace(i)
	return &t, nil
}

func (s *traceStore) Spans(_ context.Context, t *meta.Trace) (io.ReadCloser, error) {
	s.streams.Add(1)
	if s.spans == nil {
		return io.NopCloser(strings.NewReader(`{"spans": []}`)), nil
	}
	return io.NopCloser(s.spans(t.ID)), nil
}

// in is the experiment's directory.
func (s *traceStore) in(t *testing.T) asFS {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	c := cache.New(cache.Options{TempDir: t.TempDir()})
	r := resolve.New(resolve.Options{Tracking: s, Log: log, Cache: c})
	tr := &tree{r: r, cache: c, log: log}
	return asFS{&Node{Dir: experimentDir{tr, "1"}}}
}

// requests are the pages, look-ups and spans that were asked for since it was called last.
func (s *traceStore) requests() [3]int64 {
	return [3]int64{s.searches.Swap(0), s.asked.Swap(0), s.streams.Swap(0)}
}

// TestTracesAreAskedForAsNeeded fails when a listing of an experiment lists its million
// traces, when a listing of these asks for more pages than it gives names of, when to
// look at the name of their lines asks for any, or their first for more than a page, when a
// look-up of one depends on a listing, or when a name that no trace has asks for anything;
// or when a run of such a name hides them.
func TestTracesAreAskedForAsNeeded(t *testing.T) {
	t.Parallel()
	s := &traceStore{n: 1_000_000}
	f := s.in(t)
	list, err := f.root.Dir.List(context.Background())
	var names []string
	for err == nil {
		var e Entry
		if e, err = list.Next(context.Background()); err == nil {
			names = append(names, e.Name)
		}
	}
	if got := strings.Join(names, " "); got != "traces-00000001 traces.jsonl-00000002 runs.csv traces traces.jsonl" || s.requests() != [3]int64{} {
		t.Errorf("the experiment holds %s", got)
	}
	traces, err := f.walk("traces")
	if err != nil || s.requests() != [3]int64{} {
		t.Fatal(err)
	}
	list, err = traces.Dir.List(context.Background())
	for i := range 150 {
		var e Entry
		if err == nil {
			e, err = list.Next(context.Background())
		}
		if err != nil || e.Name != traceNamed(i)+".json" {
			t.Fatalf("name %d is %q, %v", i, e.Name, err)
		}
	}
	if got := s.requests(); got != [3]int64{2, 0, 0} {
		t.Errorf("150 names cost %v pages, look-ups and spans", got)
	}
	for _, name := range []string{".git", "a b.json", "..json", "x\n.json", strings.Repeat("a", 65) + ".json", traceNamed(1), traceNamed(1) + ".jsonl", "-x.json", ".json"} {
		if _, err := f.walk("traces/" + name); !errors.Is(err, iofs.ErrNotExist) || s.requests() != [3]int64{} {
			t.Errorf("%q: %v", name, err)
		}
	}
	got, err := readWhole(f, "traces/"+traceNamed(999_999)+".json")
	if want := `{"info": {"trace_id": "` + traceNamed(999_999) + `"}, "data": {"spans": []}}` + "\n"; err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
	if got := s.requests(); got != [3]int64{0, 1, 1} {
		t.Errorf("a look-up costs %v", got)
	}
	if _, err := f.walk("traces/" + traceNamed(1_000_000) + ".json"); !errors.Is(err, iofs.ErrNotExist) || s.requests() != [3]int64{0, 1, 0} {
		t.Errorf("one that is not there: %v", err)
	}
	n, err := f.walk("traces.jsonl")
	if err != nil || s.requests() != [3]int64{} || n.Size < 1<<32 {
		t.Errorf("the size of the lines is shown as %d, %v", n.Size, err)
	}
	h, err := n.File.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if n, err := h.ReadAt(context.Background(), make([]byte, 20), 0); err != nil || n != 20 || s.requests() != [3]int64{1, 0, 1} {
		t.Errorf("the first of a million lines: %d bytes, %v", n, err)
	}
}

// TestTracesOfAStrangerAreWholeOrAnError fails when spans of 50 MiB, with ends of lines
// between them, take memory, or come otherwise than they were sent; when a trace whose
// spans are no JSON hides the others; when spans that break off are taken for whole; or
// when a search without an end is followed for ever.
func TestTracesOfAStrangerAreWholeOrAnError(t *testing.T) {
	broken := errors.New("the server has gone")
	piece := []byte(`{"name": "` + strings.Repeat("x", 1000) + `"},` + "\r\n")
	const pieces = 50 << 10
	s := &traceStore{n: 4, spans: func(id string) io.Reader {
		switch id {
		case traceNamed(1):
			return strings.NewReader("<html>no JSON</html>")
		case traceNamed(2):
			return &repeated{head: []byte(`{"spans": [`), piece: piece, n: pieces, tail: []byte("{}\n]}\n")}
		case traceNamed(3):
			return io.MultiReader(strings.NewReader(`{"spans": [`), strings.NewReader(strings.Repeat(" ", 1<<20)), failing{broken})
		}
		return strings.NewReader(`{"spans": []}`)
	}}
	f := s.in(t)
	before := heapNow()
	n, err := f.walk("traces/" + traceNamed(2) + ".json")
	if err != nil {
		t.Fatal(err)
	}
	h, err := n.File.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := n.File.(Growing).Grow(context.Background(), 1<<40); err != nil {
		t.Fatal(err)
	}
	if took := heapNow() - before; took > 8<<20 {
		t.Errorf("a trace of 50 MiB takes %d bytes of memory", took)
	}
	text, err := io.ReadAll(io.NewSectionReader(readerAt{h}, 0, 1<<40))
	h.Close()
	var doc struct {
		Data struct{ Spans []struct{ Name string } }
	}
	if err := errors.Join(err, json.Unmarshal(text, &doc)); err != nil || len(doc.Data.Spans) != pieces+1 || bytes.Count(text, []byte("\n")) != 1 {
		t.Errorf("%d spans in %d bytes, %v", len(doc.Data.Spans), len(text), err)
	}
	if _, err := readWhole(f, "traces/"+traceNamed(1)+".json"); err == nil || errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("what is no JSON: %v", err)
	}
	if _, err := readWhole(f, "traces/"+traceNamed(3)+".json"); !errors.Is(err, broken) {
		t.Errorf("spans that break off: %v", err)
	}
	if _, err := readWhole(f, "traces.jsonl"); !errors.Is(err, broken) {
		t.Errorf("lines that break off: %v", err)
	}
	s.n = 3
	lines, err := readWhole(s.in(t), "traces.jsonl")
	if err != nil || bytes.Count(lines, []byte("\n")) != 2 || !bytes.Contains(lines, []byte(traceNamed(0))) {
		t.Errorf("%d lines, %v", bytes.Count(lines, []byte("\n")), err)
	}
	s.n, s.endless, s.spans = 0, true, nil
	if _, err := readWhole(s.in(t), "traces.jsonl"); err == nil || s.searches.Load() > 60_000 {
		t.Errorf("a search without an end: %d pages, %v", s.searches.Load(), err)
	}
}

// repeated is a text that is made as it is read.
type repeated struct {
	head, piece, tail []byte
	n                 int
}

func (r *repeated) Read(p []byte) (int, error) {
	for len(r.head) == 0 && r.n > 0 {
		r.head = r.piece
		r.n--
	}
	if len(r.head) == 0 {
		r.head, r.tail = r.tail, nil
	}
	if len(r.head) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.head)
	r.head = r.head[n:]
	return n, nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// readWhole reads a file by no size that is shown of it.
func readWhole(f asFS, name string) ([]byte, error) {
	file, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(file)
}

type readerAt struct{ h Handle }

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	return r.h.ReadAt(context.Background(), p, off)
}

func heapNow() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
