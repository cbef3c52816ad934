package resolve

import (
	"context"
	"fmt"
	"testing"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// talker is a tracking server whose search for experiments never ends.
type talker struct {
	meta.Store
	asked int
}

func (s *talker) SearchExperiments(context.Context, string, string) (p meta.Page[meta.Experiment], _ error) {
	s.asked++
	return meta.Page[meta.Experiment]{Next: fmt.Sprint(s.asked)}, nil
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
