package fs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// datasetStore has datasets of the ids and names, each with n records.
type datasetStore struct {
	meta.Store // nil: nothing else is asked for
	all        []meta.Dataset
	n          int
	endless    bool
	listed     atomic.Int64 // pages of datasets, and of records
	read       atomic.Int64
}

func (s *datasetStore) SearchDatasets(context.Context, string) (meta.Page[meta.Dataset], error) {
	s.listed.Add(1)
	return meta.Page[meta.Dataset]{Items: s.all}, nil
}

func (s *datasetStore) DatasetRecords(_ context.Context, id, token string) (p meta.Page[string], _ error) {
	s.read.Add(1)
	first, _ := strconv.Atoi(token)
	for i := first; i < min(first+100, s.n); i++ {
		p.Items = append(p.Items, fmt.Sprintf(`{"dataset_id": "%s", "i": %d}`, id, i))
	}
	if first+100 < s.n || s.endless {
		p.Next = strconv.Itoa(first + 100)
	}
	return p, nil
}

func (s *datasetStore) tree() asFS {
	log := slog.New(slog.DiscardHandler)
	c := cache.New(cache.Options{})
	return asFS{&Node{Dir: datasetsDir{&tree{r: resolve.New(resolve.Options{Tracking: s, Log: log, Cache: c}), cache: c, log: log}}}}
}

// TestDatasetsOfAStrangerAreFiles fails when the name or the id of a dataset, which a
// server may choose, leads out of datasets/, hides another, or has two datasets share a
// file; when the records of one are read further than a reader reads; or when records
// without an end are followed for ever.
func TestDatasetsOfAStrangerAreFiles(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 200)
	s := &datasetStore{n: 1000, all: []meta.Dataset{
		{ID: "d-11111111aaaa", Name: "twice"}, {ID: "d-22222222bbbb", Name: "twice"}, {ID: "d-11111111cccc", Name: "twice"}, {ID: "d-3", Name: "twice-d-22222222"},
		{ID: "d-4", Name: "../up"}, {ID: "d-5", Name: "."}, {ID: "d-6", Name: ""}, {ID: "d-77777777dddd", Name: long}, {ID: "../8", Name: "no id"}, {ID: "", Name: "none"}, {ID: "d-9", Name: "new\nline"},
	}}
	f := s.tree()
	list, err := f.root.Dir.List(context.Background())
	var names []string
	for err == nil {
		var e Entry
		if e, err = list.Next(context.Background()); err == nil {
			names = append(names, e.Name)
		}
	}
	want := []string{
		"twice-d-11111111.jsonl", "twice-d-22222222bbbb.jsonl", "twice-d-11111111cccc.jsonl", "twice-d-22222222.jsonl",
		"..%2Fup.jsonl", "%2E.jsonl", "d-6.jsonl", long[:238] + "-d-77777777.jsonl", "new\nline.jsonl",
	}
	if fmt.Sprintf("%q", names) != fmt.Sprintf("%q", want) {
		t.Errorf("the names are %q, and not %q", names, want)
	}
	for i, name := range names {
		n, err := f.walk(name)
		if err != nil || n.File == nil {
			t.Fatalf("%q: %v", name, err)
		}
		if s.read.Swap(0) != 1 {
			t.Errorf("%q: a look-up reads more than a page", name)
		}
		if i > 0 {
			continue
		}
		got, err := readWhole(f, name)
		if lines := strings.Split(strings.TrimSuffix(string(got), "\n"), "\n"); err != nil || len(lines) != 1000 || lines[999] != `{"dataset_id": "d-11111111aaaa", "i": 999}` {
			t.Errorf("%d lines, %v", len(lines), err)
		}
		s.read.Store(0)
	}
	for _, name := range []string{"twice.jsonl", "twice", "no id.jsonl", "none.jsonl", ".git", "../up.jsonl"} {
		if _, err := f.root.Dir.Lookup(context.Background(), name); !errors.Is(err, iofs.ErrNotExist) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if n := s.listed.Load(); n != 1 {
		t.Errorf("datasets were listed %d times", n)
	}
	s.endless = true
	if _, err := readWhole(s.tree(), "d-6.jsonl"); err == nil || s.read.Load() > 60_000 {
		t.Errorf("records without an end: %d pages, %v", s.read.Load(), err)
	}
}
