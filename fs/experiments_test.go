package fs

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/fs/storetest"
	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// crowd is a server with n experiments, each of which has n runs. Each name has to
// be made into a file's.
type crowd struct {
	meta.Store
	n int
}

func (c crowd) SearchExperiments(context.Context, string, string) (p meta.Page[meta.Experiment], _ error) {
	for i := range c.n {
		p.Items = append(p.Items, meta.Experiment{ID: fmt.Sprint(i), Name: fmt.Sprint("team/", i)})
	}
	return p, nil
}

func (c crowd) SearchRuns(context.Context, meta.RunQuery, string) (p meta.Page[meta.Run], _ error) {
	for i := range c.n {
		p.Items = append(p.Items, meta.Run{ID: storetest.RunID(i), Name: fmt.Sprint("twice/", i/2)})
	}
	return p, nil
}

// TestLookupDoesNotWalkAllRuns fails when to look up one experiment, or one run of
// an experiment by its name or its id, names all of them again: a program that
// looks at each of many then takes minutes. It counts allocations, so it runs
// alone.
func TestLookupDoesNotWalkAllRuns(t *testing.T) {
	counts := map[int]float64{}
	for _, n := range []int{10, 10_000} {
		tr := &tree{r: resolve.New(resolve.Options{Tracking: crowd{n: n}}), cache: cache.New(cache.Options{}), log: slog.New(slog.DiscardHandler)}
		look := func() {
			for _, in := range []struct {
				d    Dir
				name string
			}{
				{experimentsDir{tr}, fmt.Sprint("team%2F", n-1)},
				{experimentDir{tr, "1"}, "twice%2F0-" + storetest.RunID(0)[:8]},
				{experimentDir{tr, "1"}, storetest.RunID(n - 1)},
			} {
				if got, err := in.d.Lookup(context.Background(), in.name); err != nil || got.Dir == nil {
					t.Errorf("%s: %v", in.name, err)
				}
			}
		}
		look() // it asks the server
		counts[n] = testing.AllocsPerRun(10, look)
	}
	if counts[10_000] > counts[10]+10 {
		t.Errorf("three look-ups allocate %v times among ten names, and %v times among ten thousand", counts[10], counts[10_000])
	}
}
