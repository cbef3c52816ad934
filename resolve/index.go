package resolve

import (
	"context"
	"fmt"
	"sync"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// Index is a list that the tracking server gave, with the names that its user has
// for the items. They are made once for each answer of the server's, so that a
// look-up costs the same however long the list is.
type Index[T any] struct {
	Items []T

	once  sync.Once
	names []string
	at    map[string]int
}

// Names gives the name of each item, and which item a name means. The first call
// makes them by name, which is the same for all.
func (x *Index[T]) Names(name func([]T) (names []string, at map[string]int)) ([]string, map[string]int) {
	x.once.Do(func() { x.names, x.at = name(x.Items) })
	return x.names, x.at
}

// Experiments gives all experiments that are not deleted.
func (r *Resolver) Experiments(ctx context.Context) (*Index[meta.Experiment], error) {
	return r.experiments.Get(ctx, "", func(ctx context.Context) (*Index[meta.Experiment], error) {
		experiments, err := all(ctx, func(ctx context.Context, token string) (meta.Page[meta.Experiment], error) {
			return r.tracking.SearchExperiments(ctx, "", token)
		})
		if err == nil {
			r.listed(experiments)
		}
		r.LeavesOut(Experiments, "", err)
		return &Index[meta.Experiment]{Items: experiments}, err
	})
}

// experimentIDs gives the ids of all experiments that are not deleted.
func (r *Resolver) experimentIDs(ctx context.Context) ([]string, error) {
	experiments, err := r.Experiments(ctx)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(experiments.Items))
	for i, e := range experiments.Items {
		ids[i] = e.ID
	}
	return ids, nil
}

// maxPages is how many pages a search has, of a server that is right: one of runs
// has 200 of them.
const maxPages = 50_000

var errTooLong = fmt.Errorf("the server's answer has more than %d pages", maxPages)

// all reads every page of a search.
func all[T any](ctx context.Context, search func(context.Context, string) (meta.Page[T], error)) ([]T, error) {
	var out []T
	token := ""
	for range maxPages {
		p, err := search(ctx, token)
		if err != nil {
			return nil, err
		}
		out = append(out, p.Items...)
		if p.Next == "" || p.Next == token {
			return out, nil
		}
		token = p.Next
	}
	return nil, errTooLong
}

// ExperimentRuns gives all runs of an experiment that are not deleted, newest
// first, without their JSON.
func (r *Resolver) ExperimentRuns(ctx context.Context, experimentID string) (*Index[meta.Run], error) {
	return r.indexes.Get(ctx, experimentID, func(ctx context.Context) (*Index[meta.Run], error) {
		runs, err := all(ctx, func(ctx context.Context, token string) (meta.Page[meta.Run], error) {
			return r.SearchRuns(ctx, experimentID, false, token)
		})
		// A run that began between two pages pushes the rest on by one.
		seen, unique := map[string]bool{}, runs[:0]
		for _, run := range runs {
			if !seen[run.ID] {
				seen[run.ID] = true
				unique = append(unique, run)
			}
		}
		return &Index[meta.Run]{Items: unique}, err
	})
}
