package resolve

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// Kind is a kind of things that can't be had while the others can.
type Kind string

// The kinds.
const (
	RegisteredModels Kind = "registered models"
	LoggedModels     Kind = "logged models"
)

// LeftOut is a kind that is missing from what is shown, and why.
type LeftOut struct {
	Kind Kind   `json:"part"`
	Why  string `json:"why"`
}

// lostKinds are those that were found to be missing.
type lostKinds struct {
	mu  sync.Mutex // guards why
	why map[Kind]string
}

// LeavesOut tells whether err costs one kind alone: the user may not see it, or
// nothing here can ask for it. It says so once in the log. A nil err says that
// they are there.
func (r *Resolver) LeavesOut(kind Kind, err error) bool {
	refused := errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported)
	r.lost.mu.Lock()
	defer r.lost.mu.Unlock()
	switch {
	case err == nil:
		delete(r.lost.why, kind)
	case refused:
		if _, known := r.lost.why[kind]; !known {
			r.log.Warn("the "+string(kind)+" are left out: the rest is shown", "err", err)
		}
		r.lost.why[kind] = err.Error()
	}
	return refused
}

// LeftOut gives the kinds that are missing now.
func (r *Resolver) LeftOut() []LeftOut {
	r.lost.mu.Lock()
	defer r.lost.mu.Unlock()
	out := []LeftOut{}
	for _, p := range slices.Sorted(maps.Keys(r.lost.why)) {
		out = append(out, LeftOut{p, r.lost.why[p]})
	}
	return out
}

// SearchRegisteredModels gives a page of the registry's models; none where they are
// left out.
func (r *Resolver) SearchRegisteredModels(ctx context.Context, token string) (meta.Page[meta.RegisteredModel], error) {
	p, err := r.registry.SearchRegisteredModels(ctx, token)
	if r.LeavesOut(RegisteredModels, err) {
		return meta.Page[meta.RegisteredModel]{}, nil
	}
	return p, err
}

// SearchLoggedModels gives a page of the logged models of experiments, or of one of
// their runs where runID is not empty; none where they are left out.
func (r *Resolver) SearchLoggedModels(ctx context.Context, experimentIDs []string, runID, token string) (meta.Page[meta.LoggedModel], error) {
	p, err := r.tracking.SearchLoggedModels(ctx, experimentIDs, runID, token)
	if r.LeavesOut(LoggedModels, err) {
		return meta.Page[meta.LoggedModel]{}, nil
	}
	return p, err
}
