package resolve

import (
	"context"
	"fmt"
	"testing"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// talker is a tracking server whose runs are of a size, and whose search for
// experiments never ends.
type talker struct {
	meta.Store
	size  int
	asked int
}

func (s *talker) Run(_ context.Context, id string) (*meta.Run, error) {
	s.asked++
	return &meta.Run{ID: id, Status: "FINISHED", JSON: make([]byte, s.size)}, nil
}

func (s *talker) SearchExperiments(context.Context, string) (p meta.Page[meta.Experiment], _ error) {
	s.asked++
	return meta.Page[meta.Experiment]{Next: fmt.Sprint(s.asked)}, nil
}

// TestRunsAreRememberedByTheirSize fails when the runs that are remembered are
// bounded by their number alone, so that those with many params take any memory; or
// when the last ones are not remembered.
func TestRunsAreRememberedByTheirSize(t *testing.T) {
	t.Parallel()
	const n = 20
	s := &talker{size: 2 * runsBytes / n}
	r := New(Options{Tracking: s})
	ask := func(i int) {
		t.Helper()
		if _, err := r.Run(context.Background(), fmt.Sprint("run", i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		ask(i)
	}
	ask(n - 1)
	if s.asked != n {
		t.Errorf("%d requests for %d runs: the last one is not remembered", s.asked, n)
	}
	for i := range n {
		ask(i)
	}
	if s.asked < n+n/2 {
		t.Errorf("%d requests: runs of %d bytes in all are remembered", s.asked, n*s.size)
	}
}

// TestSearchThatNeverEndsIsEnded fails when a server that always has one more page
// keeps a look-up for ever, and grows the daemon.
func TestSearchThatNeverEndsIsEnded(t *testing.T) {
	t.Parallel()
	s := &talker{}
	if _, err := New(Options{Tracking: s}).Experiments(context.Background()); err == nil || s.asked != maxPages {
		t.Errorf("%d pages, %v", s.asked, err)
	}
}
