package resolve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// guarded is a tracking server with experiments 0 to n-1, each of which has a run and a
// logged model of two pages. It refuses a search over experiments for one that is closed.
type guarded struct {
	meta.Store
	n      int
	closed map[string]bool
	hidden error // instead of the experiments
	why    error
	most   int // experiments of a search; 0: any number
	asked  int // searches of runs and models
}

func (s *guarded) SearchExperiments(context.Context, string, string) (p meta.Page[meta.Experiment], _ error) {
	for i := range s.n {
		p.Items = append(p.Items, meta.Experiment{ID: fmt.Sprint(i), Name: fmt.Sprint("e", i)})
	}
	return p, s.hidden
}

func (s *guarded) refuses(ids []string) error {
	s.asked++
	if slices.ContainsFunc(ids, func(id string) bool { return s.closed[id] }) || s.most > 0 && len(ids) > s.most {
		return s.why
	}
	return nil
}

func (s *guarded) SearchRuns(_ context.Context, which meta.RunQuery, token string) (p meta.Page[meta.Run], _ error) {
	if err := s.refuses(which.Experiments); err != nil {
		return p, err
	}
	for _, id := range which.Experiments {
		p.Items = append(p.Items, meta.Run{ID: "r" + id + token, ExperimentID: id})
	}
	if token == "" {
		p.Next = "2"
	}
	return p, nil
}

func (s *guarded) SearchLoggedModels(_ context.Context, ids []string, _, token string) (p meta.Page[meta.LoggedModel], _ error) {
	if err := s.refuses(ids); err != nil {
		return p, err
	}
	for _, id := range ids {
		p.Items = append(p.Items, meta.LoggedModel{ID: "m" + id + token})
	}
	if token == "" {
		p.Next = "2"
	}
	return p, nil
}

// close has the server refuse the experiments of ids, and no others.
func (s *guarded) close(ids ...string) {
	s.closed = map[string]bool{}
	for _, id := range ids {
		s.closed[id] = true
	}
}

// count gives how many items a search gives, and how many questions that was.
func count[T any](t *testing.T, s *guarded, search Search[T]) (items, asked int, err error) {
	t.Helper()
	s.asked = 0
	found, err := all(t.Context(), search)
	return len(found), s.asked, err
}

// missing are the experiments that are left out.
func missing(r *Resolver) (out []string) {
	for _, l := range r.LeftOut() {
		out = append(out, l.What())
	}
	return out
}

var forbidden error = &rest.Error{Status: 403, Code: "PERMISSION_DENIED"}

// TestRefusedExperimentCostsItself fails when an experiment whose runs the server does
// not let one search for hides those of others; when it is not named, or said more than
// once; when it is not shown again; when finding it takes many requests, or a search
// without one takes more than a request for each page.
func TestRefusedExperimentCostsItself(t *testing.T) {
	t.Parallel()
	for _, why := range []error{forbidden, &rest.Error{Status: 403}, &rest.Error{Status: 400, Code: "INVALID_PARAMETER_VALUE"}} {
		const n = 1000
		var log strings.Builder
		s := &guarded{n: n, why: why}
		r := New(Options{Tracking: s, TTL: 20 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))})
		expect := func(what string, items, most int, left ...string) {
			t.Helper()
			got, asked, err := count(t, s, r.AllRuns())
			if got != items || asked > most || err != nil || !slices.Equal(missing(r), left) {
				t.Errorf("%v, %s: %d runs by %d requests, %v, without %q", why, what, got, asked, err, missing(r))
			}
			t.Logf("figure: %s: %d requests", what, asked)
		}
		expect("none is refused", 2*n, 2)
		s.close("700")
		expect("one is", 2*(n-1), 24, `runs of the experiment "e700"`)
		expect("it is known", 2*(n-1), 2, `runs of the experiment "e700"`)
		time.Sleep(r.TTL(true))
		expect("it is asked for again", 2*(n-1), 5, `runs of the experiment "e700"`)
		if _, err := r.ExperimentRuns(t.Context(), "700"); err == nil || !errors.Is(err, why) || !strings.Contains(err.Error(), `the runs of the experiment "e700" can't be listed`) {
			t.Errorf("the experiment itself: %v", err)
		}
		if c := strings.Count(log.String(), "left out"); c != 1 || !strings.Contains(log.String(), "experiment=e700") {
			t.Errorf("it is said %d times:\n%s", c, &log)
		}
		s.close()
		if _, err := r.ExperimentRuns(t.Context(), "700"); err != nil {
			t.Error(err)
		}
		expect("its directory was listed", 2*n, 2)
		s.close("0", "500", "999")
		expect("three are", 2*(n-3), 70, `runs of the experiment "e0"`, `runs of the experiment "e500"`, `runs of the experiment "e999"`)
		s.close("500")
		time.Sleep(r.TTL(true))
		expect("two are not any more", 2*(n-1), 9, `runs of the experiment "e500"`)
		s.close()
		time.Sleep(r.TTL(true))
		expect("none is", 2*n, 2)
	}
}

// TestRefusedExperimentCostsItsModels fails when an experiment for which the server
// refuses logged models hides those of others, or is not named.
func TestRefusedExperimentCostsItsModels(t *testing.T) {
	t.Parallel()
	s := &guarded{n: 10, why: forbidden}
	r := New(Options{Tracking: s})
	s.close("3")
	if got, _, err := count(t, s, r.AllLoggedModels()); got != 18 || err != nil || !slices.Equal(missing(r), []string{`logged models of the experiment "e3"`}) {
		t.Errorf("%d, %v, without %q", got, err, missing(r))
	}
	s.hidden = forbidden
	r = New(Options{Tracking: s})
	got, _, err := count(t, s, r.AllLoggedModels())
	_, _, runs := count(t, s, r.AllRuns())
	if got != 0 || err != nil || !errors.Is(runs, fs.ErrPermission) || !slices.Equal(missing(r), []string{"experiments"}) {
		t.Errorf("experiments that are refused: %d, %v, %v, without %q", got, err, runs, missing(r))
	}
	s.hidden = nil
	s.close()
	if got, _, err := count(t, s, r.AllLoggedModels()); got != 20 || err != nil || len(missing(r)) > 0 {
		t.Errorf("experiments that are not any more: %d, %v, without %q", got, err, missing(r))
	}
}

// TestSearchThatIsRefusedAsksLittle fails when a search that is refused for all
// experiments, for many of them, for how many they are, or for a moment costs many
// requests, takes many names, or is taken for one that is refused for some.
func TestSearchThatIsRefusedAsksLittle(t *testing.T) {
	t.Parallel()
	var many, half []string
	for i := range 5000 {
		many = append(many, fmt.Sprint(i))
		if i%2 == 0 {
			half = append(half, fmt.Sprint(i))
		}
	}
	for name, c := range map[string]struct {
		closed      []string
		why         error
		most        int
		first, then int // requests at most
		fails       bool
		left        int // parts; -1: some
	}{
		"all":         {many, forbidden, 0, leastAsked + 1, 1, true, 1},
		"half":        {half, forbidden, 0, mostAsked + 3, 2, false, -1},
		"unknown":     {many, &rest.Error{Status: 401}, 0, 1, 1, true, 0},
		"down":        {many[7:8], &rest.Error{Status: 503}, 0, 1, 1, true, 0},
		"too many":    {nil, forbidden, 4000, 3, 1, true, 1},
		"only a few":  {nil, forbidden, 50, mostAsked + 3, 1, true, 1},
		"nobody home": {many[7:8], errors.New("connection refused"), 0, 1, 1, true, 0},
	} {
		s := &guarded{n: len(many), why: c.why, most: c.most}
		s.close(c.closed...)
		r := New(Options{Tracking: s, Log: slog.New(slog.DiscardHandler)})
		got, first, err := count(t, s, r.AllRuns())
		_, then, _ := count(t, s, r.AllRuns())
		left := len(r.LeftOut())
		if first > c.first || then > c.then || (err != nil) != c.fails || c.left >= 0 && left != c.left || left > maxLeftOut+1 || c.left < 0 && left < 2 {
			t.Errorf("%s: %d runs, %v, by %d requests, and then %d; %d parts are left out", name, got, err, first, then, left)
		}
		t.Logf("figure: %s: %d requests, and then %d; %d runs, %d parts left out", name, first, then, got, left)
	}
	r := New(Options{Tracking: &guarded{n: len(many)}, Log: slog.New(slog.DiscardHandler)})
	for _, id := range many {
		r.LeavesOut(Runs, id, forbidden)
	}
	if l := r.LeftOut(); len(l) != maxLeftOut+1 || l[maxLeftOut].Kind != "more" {
		t.Errorf("%d parts are named", len(l))
	}
	if _, err := r.Experiments(t.Context()); err != nil || len(r.LeftOut()) != maxLeftOut+1 {
		t.Errorf("%v, %d", err, len(r.LeftOut()))
	}
	r.listed(nil)
	if l := r.LeftOut(); len(l) != 0 {
		t.Errorf("of experiments that are gone %d are named", len(l))
	}
}
