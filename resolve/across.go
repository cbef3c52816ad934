package resolve

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Search gives a page of a search to its one reader, who asks for one after another;
// the token of the first is empty.
type Search[T any] func(ctx context.Context, token string) (meta.Page[T], error)

// AllRuns searches the runs of all experiments, the newest first. Experiments for which
// the server refuses that are left out.
func (r *Resolver) AllRuns() Search[meta.Run] {
	s := &across[meta.Run]{r: r, kind: Runs, ask: func(ctx context.Context, ids []string, token string) (meta.Page[meta.Run], error) {
		return r.tracking.SearchRuns(ctx, meta.RunQuery{Experiments: ids}, token)
	}}
	return s.page
}

// AllLoggedModels searches the logged models of all experiments. Those of experiments
// for which the server refuses that are left out; so are all, where it refuses to say
// which experiments there are.
func (r *Resolver) AllLoggedModels() Search[meta.LoggedModel] {
	s := &across[meta.LoggedModel]{r: r, kind: LoggedModels, ask: func(ctx context.Context, ids []string, token string) (meta.Page[meta.LoggedModel], error) {
		return r.tracking.SearchLoggedModels(ctx, ids, "", token)
	}}
	return func(ctx context.Context, token string) (meta.Page[meta.LoggedModel], error) {
		p, err := s.page(ctx, token)
		if IsRefusal(err) {
			return meta.Page[meta.LoggedModel]{}, nil
		}
		return p, err
	}
}

// across is a search over all experiments. It is one request for each page. MLflow's own
// servers leave out by themselves what a user may not see (3.17 with basic-auth); what
// stands before one, or another's server, may refuse a search over experiments for one
// of them, and does not say for which.
type across[T any] struct {
	r    *Resolver
	kind Kind
	ask  func(ctx context.Context, ids []string, token string) (meta.Page[T], error)
	ids  []string // the experiments, from the first page on
}

func (a *across[T]) page(ctx context.Context, token string) (p meta.Page[T], err error) {
	if token != "" {
		return a.ask(ctx, a.ids, token)
	}
	all, err := a.r.experimentIDs(ctx)
	if err != nil {
		return p, err
	}
	last := a.r.skippedOf(a.kind)
	known := time.Since(last.found) < a.r.TTL(true)
	if known {
		a.ids, _ = last.part(all)
	}
	if len(a.ids) == 0 {
		a.ids = all
	}
	p, err = a.ask(ctx, a.ids, "")
	if err == nil {
		a.r.answered(a.kind, a.ids, len(a.ids) == len(all))
	}
	if !IsRefusal(err) {
		return p, err
	}
	if status := (*rest.Error)(nil); known && last.all || errors.As(err, &status) && status.Status == http.StatusUnauthorized {
		return p, err // for all of them: that was found just now, or the credentials are refused
	}
	if err := a.find(ctx, all, last, err); err != nil {
		return p, err
	}
	return a.ask(ctx, a.ids, "")
}

// find finds the experiments for which the search is refused, which it is for all of
// them together by why, and has a search over the others. Those that were found the
// last time are asked for apart. Where none is answered, why is the error.
func (a *across[T]) find(ctx context.Context, all []string, last skipped, why error) error {
	h := halves{left: leastAsked, refused: map[string]error{}, ask: func(ids []string) error {
		_, err := a.ask(ctx, ids, "")
		return err
	}}
	others, before := last.part(all)
	groups := [][]string{others, before}
	if len(before) == 0 {
		groups = [][]string{others[:len(others)/2], others[len(others)/2:]} // of all it is known
	}
	for _, ids := range groups {
		if err := h.search(ids); err != nil {
			return err
		}
	}
	if len(h.answered) == 0 || len(h.answered) == len(all) { // one by one they may be few enough
		a.r.skip(a.kind, nil, true)
		a.r.LeavesOut(a.kind, "", why)
		return why
	}
	a.ids = h.answered
	a.r.answered(a.kind, a.ids, false)
	answered := make(map[string]bool, len(a.ids))
	for _, id := range a.ids {
		answered[id] = true
	}
	skip := map[string]bool{}
	for _, id := range all {
		if !answered[id] {
			skip[id] = true
		}
	}
	a.r.skip(a.kind, skip, false)
	for id, err := range h.refused {
		a.r.LeavesOut(a.kind, id, err)
	}
	if n := len(skip) - len(h.refused); n > 0 {
		a.r.LeavesOut(a.kind, "", fmt.Errorf("%d experiments besides those that are named were not asked for, as too many are refused: %w", n, why))
	}
	return nil
}

// skippedOf gives the experiments that a search of a kind was refused for.
func (r *Resolver) skippedOf(kind Kind) skipped {
	r.lost.mu.Lock()
	defer r.lost.mu.Unlock()
	s := r.lost.skipped[kind]
	s.ids = maps.Clone(s.ids)
	return s
}

// skip notes them.
func (r *Resolver) skip(kind Kind, ids map[string]bool, all bool) {
	r.lost.mu.Lock()
	defer r.lost.mu.Unlock()
	r.lost.skipped[kind] = skipped{ids, all, time.Now()}
}

// part parts experiments from those that are skipped.
func (s skipped) part(all []string) (others, skip []string) {
	for _, id := range all {
		if s.ids[id] {
			skip = append(skip, id)
		} else {
			others = append(others, id)
		}
	}
	return others, skip
}

// How many questions find out for which experiments a search is refused: some, more for
// each that is answered, and no more than that. One among a thousand is found by 20.
const (
	leastAsked = 32
	askedMore  = 16
	mostAsked  = 256
)

// halves finds by halving which experiments a question is refused for.
type halves struct {
	ask      func(ids []string) error
	asked    int
	left     int // questions
	answered []string
	refused  map[string]error
}

// search asks for experiments together, and where that is refused for each half. An
// error is of something else than a refusal.
func (h *halves) search(ids []string) error {
	if len(ids) == 0 || h.left == 0 || h.asked == mostAsked {
		return nil
	}
	h.left--
	h.asked++
	err := h.ask(ids)
	switch {
	case err == nil:
		h.answered = append(h.answered, ids...)
		h.left += askedMore
		return nil
	case !IsRefusal(err):
		return err
	case len(ids) == 1:
		h.refused[ids[0]] = err
		return nil
	}
	if err := h.search(ids[:len(ids)/2]); err != nil {
		return err
	}
	return h.search(ids[len(ids)/2:])
}
