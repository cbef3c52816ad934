package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Kind is a kind of things that can't be had while the others can.
type Kind string

// The kinds.
const (
	Datasets         Kind = "datasets"
	Experiments      Kind = "experiments"
	LoggedModels     Kind = "logged models"
	Prompts          Kind = "prompts"
	RegisteredModels Kind = "registered models"
	Runs             Kind = "runs"
	Traces           Kind = "traces"
)

// LeftOut is what is missing from what is shown, and why: things of a kind, all of
// them or those of one experiment.
type LeftOut struct {
	Kind       Kind   `json:"part"`
	Experiment string `json:"experiment,omitempty"` // its name, or its id where no name is known
	Why        string `json:"why"`
}

// What is left out, in words.
func (l LeftOut) What() string {
	if l.Experiment == "" {
		return string(l.Kind)
	}
	return fmt.Sprintf("%s of the experiment %q", l.Kind, l.Experiment)
}

// lostPart is a part that can be missing: of a kind all, or what is in the experiment
// of an id.
type lostPart struct {
	kind       Kind
	experiment string
}

// maxLeftOut is how many missing parts are known by name.
const maxLeftOut = 300

// lostParts are those that were found to be missing.
type lostParts struct {
	mu      sync.Mutex // guards what follows
	why     map[lostPart]string
	skipped map[Kind]skipped
}

// skipped are the experiments for which a search over all of them is refused, by their
// ids.
type skipped struct {
	ids   map[string]bool
	all   bool // it is for all of them, or for how many they are
	found time.Time
}

// IsRefusal tells whether err costs what was asked for alone: the user may not see it,
// nothing here can ask for it, or MLflow itself refuses it, and would again.
func IsRefusal(err error) bool {
	var e *rest.Error
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) || errors.As(err, &e) && e.Final()
}

// LeavesOut tells whether err costs one part alone: what of a kind is in the
// experiment of an id, or all of it where that is empty. It says so once in the log. A
// nil err says that the part is there.
func (r *Resolver) LeavesOut(kind Kind, experiment string, err error) bool {
	part := lostPart{kind, experiment}
	r.lost.mu.Lock()
	defer r.lost.mu.Unlock()
	_, known := r.lost.why[part]
	switch {
	case err == nil:
		delete(r.lost.why, part)
		delete(r.lost.skipped[kind].ids, experiment)
		return false
	case !IsRefusal(err):
		return false
	case !known && len(r.lost.why) == maxLeftOut:
		return true
	case !known && experiment == "":
		r.log.Warn("the "+string(kind)+" are left out: the rest is shown", "err", err)
	case !known:
		r.log.Warn("the "+string(kind)+" of an experiment are left out: the rest is shown", "experiment", r.experimentName(experiment), "err", err)
	}
	r.lost.why[part] = err.Error()
	return true
}

// answered notes that a search was answered for experiments, which are all or some.
func (r *Resolver) answered(kind Kind, ids []string, all bool) {
	r.lost.mu.Lock()
	defer r.lost.mu.Unlock()
	if len(r.lost.why) == 0 {
		return
	}
	if all {
		delete(r.lost.why, lostPart{kind, ""})
	}
	for _, id := range ids {
		delete(r.lost.why, lostPart{kind, id})
	}
}

// listed notes which experiments there are: the runs of others are missing no more.
func (r *Resolver) listed(all []meta.Experiment) {
	r.lost.mu.Lock()
	defer r.lost.mu.Unlock()
	maps.DeleteFunc(r.lost.why, func(p lostPart, _ string) bool {
		return p.kind == Runs && p.experiment != "" && !slices.ContainsFunc(all, func(e meta.Experiment) bool { return e.ID == p.experiment })
	})
}

// LeftOut gives what is missing now.
func (r *Resolver) LeftOut() []LeftOut {
	r.lost.mu.Lock()
	defer r.lost.mu.Unlock()
	out := []LeftOut{}
	for p, why := range r.lost.why {
		out = append(out, LeftOut{p.kind, r.experimentName(p.experiment), why})
	}
	slices.SortFunc(out, func(a, b LeftOut) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Experiment, b.Experiment))
	})
	if len(out) == maxLeftOut {
		out = append(out, LeftOut{Kind: "more", Why: fmt.Sprintf("no more than %d parts are named", maxLeftOut)})
	}
	return out
}

// experimentName is the name of the experiment of an id, as far as one is known. It
// asks nobody.
func (r *Resolver) experimentName(id string) string {
	known, ok := r.experiments.Peek("")
	if !ok || id == "" {
		return id
	}
	for i := range known.Items {
		if e := &known.Items[i]; e.ID == id {
			return cmp.Or(e.Name, id)
		}
	}
	return id
}

// SearchRegisteredModels gives a page of the registry's models; none where they are
// left out.
func (r *Resolver) SearchRegisteredModels(ctx context.Context, token string) (meta.Page[meta.RegisteredModel], error) {
	p, err := r.registry.SearchRegisteredModels(ctx, token)
	if r.LeavesOut(RegisteredModels, "", err) {
		return meta.Page[meta.RegisteredModel]{}, nil
	}
	return p, err
}

// SearchRuns gives a page of an experiment's runs, the newest first. An experiment for
// which that is refused is left out.
func (r *Resolver) SearchRuns(ctx context.Context, experimentID string, json bool, token string) (meta.Page[meta.Run], error) {
	p, err := r.tracking.SearchRuns(ctx, meta.RunQuery{Experiments: []string{experimentID}, JSON: json}, token)
	if r.LeavesOut(Runs, experimentID, err) {
		err = fmt.Errorf("the runs of the experiment %q can't be listed: %w", r.experimentName(experimentID), err)
	}
	return p, err
}

// searchModels gives a page of the logged models of a run; none where those of its
// experiment are left out.
func (r *Resolver) searchModels(ctx context.Context, run *meta.Run, token string) (meta.Page[meta.LoggedModel], error) {
	p, err := r.tracking.SearchLoggedModels(ctx, []string{run.ExperimentID}, run.ID, token)
	if r.LeavesOut(LoggedModels, run.ExperimentID, err) {
		return meta.Page[meta.LoggedModel]{}, nil
	}
	return p, err
}
