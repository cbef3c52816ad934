package meta

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// sized is a tracking server whose runs are of a size.
type sized struct {
	Tracking
	size  int
	asked int
}

func (s *sized) Run(_ context.Context, id string) (*Run, error) {
	s.asked++
	return &Run{ID: id, Status: "FINISHED", JSON: make([]byte, s.size)}, nil
}

// TestRunsAreRememberedByTheirSize fails when the runs that are remembered are
// bounded by their number alone, so that those with many params take any memory; or
// when the last ones are not remembered.
func TestRunsAreRememberedByTheirSize(t *testing.T) {
	t.Parallel()
	const n = 20
	s := &sized{size: 2 * runsBytes / n}
	r := CachedTracking(s, func(bool) time.Duration { return time.Hour })
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
