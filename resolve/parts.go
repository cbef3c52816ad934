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

// Part is a kind of things that can't be had while the others can.
type Part string

// The parts.
const (
	RegisteredModels Part = "registered models"
	LoggedModels     Part = "logged models"
)

// LeftOut is a part that is missing from what is shown, and why.
type LeftOut struct {
	Part Part   `json:"part"`
	Why  string `json:"why"`
}

// lostParts are those that were found to be missing.
type lostParts struct {
	mu  sync.Mutex // guards why
	why map[Part]string
}

// LeavesOut tells whether err costs a part alone: the user may not see it, or
// nothing here can ask for it. It says so once in the log. A nil err says that
// the part is there.
func (r *Resolver) LeavesOut(part Part, err error) bool {
	refused := errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported)
	r.lost.mu.Lock()
	defer r.lost.mu.Unlock()
	switch {
	case err == nil:
		delete(r.lost.why, part)
	case refused:
		if _, known := r.lost.why[part]; !known {
			r.log.Warn("the "+string(part)+" are left out: the rest is shown", "err", err)
		}
		r.lost.why[part] = err.Error()
	}
	return refused
}

// LeftOut gives the parts that are missing now.
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
