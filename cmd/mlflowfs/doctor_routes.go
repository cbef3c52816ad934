package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// How many experiments are looked at, and how many runs of each for one with a file.
const (
	doctorExperiments = 20
	doctorRuns        = 10
)

// checkArtifacts says by which route the artifacts of each experiment's newest run
// that has some are reached, and what that costs: one finding for all experiments of
// a store to which it applies. Of an experiment without a run it says how the place is
// reached where artifacts would lie.
func checkArtifacts(ctx context.Context, s *stores) []finding {
	experiments, err := s.Experiments(ctx)
	switch {
	case resolve.IsRefusal(err):
		return nil // checkLeftOut says it
	case err != nil:
		return []finding{{"experiments", broken, err.Error(), ""}}
	}
	var found []placeOf
	for i, e := range experiments.Items {
		if i == doctorExperiments {
			found = append(found, placeOf{words: fmt.Sprintf("%d more experiments were not looked at", len(experiments.Items)-i)})
			break
		}
		reasons, runs, err := newestRun(ctx, s, e)
		if err != nil && !resolve.IsRefusal(err) {
			found = append(found, placeOf{experiment: e.Name, state: broken, words: err.Error()})
		}
		for _, why := range reasons {
			found = append(found, placeFor(e, why, runs))
		}
	}
	return byStore(found)
}

// checkLeftOut says which parts a mount would not show. It asks for those that nothing
// else asks for: a page of all runs, logged and registered models.
func checkLeftOut(ctx context.Context, s *stores) (out []finding) {
	_, runs := s.AllRuns()(ctx, "")
	_, logged := s.AllLoggedModels()(ctx, "")
	_, registered := s.SearchRegisteredModels(ctx, "")
	for i, err := range []error{runs, logged, registered} {
		if err != nil && !resolve.IsRefusal(err) {
			out = append(out, finding{[]string{"runs", "models", "registry"}[i], lesser, "can't be listed: " + err.Error(), ""})
		}
	}
	for _, l := range s.LeftOut() {
		out = append(out, finding{"left out", lesser, l.What() + ": " + l.Why, ""})
	}
	return out
}

// noRun is the id of no run.
const noRun = "00000000000000000000000000000000"

// newestRun says how the artifacts of an experiment's newest run that has some are
// reached, or the experiment's own place where there is no run.
func newestRun(ctx context.Context, s *stores, e meta.Experiment) (reasons []resolve.Reason, runs bool, err error) {
	page, err := s.SearchRuns(ctx, e.ID, false, "")
	if err != nil {
		return nil, false, err
	}
	if len(page.Items) == 0 && e.Location != "" {
		root, query := e.Location, ""
		if i := strings.IndexAny(root, "?#"); i >= 0 {
			root, query = root[:i], root[i:]
		}
		dir, err := s.AtRoot(ctx, strings.TrimSuffix(root, "/")+"/"+noRun+"/artifacts"+query) // as MLflow makes a run's
		if err != nil {
			return []resolve.Reason{{Where: e.Location, Err: err}}, false, nil
		}
		return s.Explain(ctx, resolve.Found{Item: resolve.Item{Dir: &dir}}), false, nil
	}
	for _, run := range page.Items[:min(len(page.Items), doctorRuns)] {
		found, err := s.ResolveRun(ctx, run.ID, "")
		if err != nil {
			return nil, true, err
		}
		reasons = s.Explain(ctx, found)
		if slices.ContainsFunc(reasons, tells) {
			break
		}
	}
	return reasons, true, nil
}

// tells tells whether a place has said all that it can: a file was read there, or is
// known not to be had.
func tells(why resolve.Reason) bool {
	return why.Err != nil || why.Elsewhere != "" || slices.ContainsFunc(why.Routes, func(v artifact.RouteStatus) bool { return v.Chosen && (v.Read || v.Local()) })
}

// placeOf is how artifacts of an experiment are reached.
type placeOf struct {
	experiment  string
	state       int
	words, mend string
}

// byStore makes one finding of all places that differ by the experiment alone.
func byStore(found []placeOf) (out []finding) {
	names := map[placeOf][]string{}
	var order []placeOf
	for _, p := range found {
		name := p.experiment
		p.experiment = ""
		if names[p] == nil {
			order = append(order, p)
		}
		if !slices.Contains(names[p], name) {
			names[p] = append(names[p], name)
		}
	}
	for _, p := range order {
		x := finding{"artifacts", p.state, p.words, p.mend}
		if of := strings.Join(names[p], ", "); of != "" {
			x.words = of + ": " + p.words
		}
		out = append(out, x)
	}
	return out
}

// placeFor says which route to a place was taken, what it costs, and why the ones
// before it were left. Where there are no runs, nothing is broken by it yet, and the
// tracking server's route, which is of a run, is not known.
func placeFor(e meta.Experiment, why resolve.Reason, runs bool) placeOf {
	p := placeOf{experiment: e.Name, words: storeOf(e, why.Where)}
	var left []string
	better := false // a route that was left would do better
	for _, v := range why.Routes {
		switch {
		case v.Err != nil:
			said, _, _ := strings.Cut(v.Err.Error(), "\n")
			left = append(left, fmt.Sprintf("%s is left: %s", v.Access, said))
			better = better || v.Access == artifact.Direct || !errors.Is(v.Err, errors.ErrUnsupported)
		case v.Chosen:
			p.words += ", " + string(v.Access) + ": " + cost(v)
			if v.Access == artifact.Server && len(left) > 0 && (better || v.Stream) {
				p.state = lesser
			}
		}
	}
	p.mend = strings.Join(left, "; ")
	if why.Elsewhere != "" {
		p.state, p.mend = lesser, why.Elsewhere
	}
	if why.Err != nil {
		p.state, p.mend = broken, why.Err.Error()
	}
	if !runs {
		p.state = min(p.state, lesser)
		p.words += "; no run yet"
	}
	return p
}

// cost says in words what a read by a route costs.
func cost(v artifact.RouteStatus) string {
	switch {
	case v.Local():
		return "each file is opened where it lies"
	case !v.Read:
		return "how files come is not known before one is read"
	case v.Stream && v.Access == artifact.Server:
		return "each file is streamed through the server as a whole, whatever is read of it"
	case v.Stream:
		return "each file comes as a whole, in one stream, whatever is read of it"
	case v.Access == artifact.Server:
		return "each read is one GET of the tracking server"
	case v.Access == artifact.Presigned:
		return "each read is one GET of the store, and each file one request to the tracking server, which signs its URL"
	}
	return "each read is one GET of the store"
}

// storeOf is the part of a place that an experiment has in common with others: of an
// object store the bucket, of directories the one that holds the experiment's.
func storeOf(e meta.Experiment, where string) string {
	u, err := url.Parse(where)
	switch {
	case err != nil:
		return where
	case u.Host != "":
		return u.Scheme + "://" + u.Host
	}
	if at, _, ok := strings.Cut(where+"/", "/"+e.ID+"/"); ok {
		return at + "/"
	}
	return path.Dir(where)
}
