package resolve

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// oneRun is a tracking store with a run, whose logged models are refused.
type oneRun struct {
	meta.Store
	dir  string
	fail error
}

func (s *oneRun) Run(context.Context, string) (*meta.Run, error) {
	return &meta.Run{ID: "r", ExperimentID: "1", ArtifactURI: s.dir, Status: "FINISHED"}, nil
}

func (s *oneRun) SearchLoggedModels(context.Context, []string, string, string) (meta.Page[meta.LoggedModel], error) {
	return meta.Page[meta.LoggedModel]{}, s.fail
}

// TestOnePartCostsThatPart fails when logged models that a user may not see, or a
// registry that can't be used, hide a run's own artifacts; when that is not told, or
// told for each look; or when a failure that passes is taken for an absent part.
func TestOnePartCostsThatPart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	refused := &rest.Error{Status: 403}
	tracking := &oneRun{dir: dir, fail: refused}
	none, _ := meta.NoRegistry(errors.New("uc is Databricks"))
	r := New(Options{Tracking: tracking, Registry: none, Log: slog.New(slog.NewTextHandler(&log, nil))})
	for range 3 {
		if f, err := r.Resolve(t.Context(), "runs:/r/f"); err != nil || f.Size != 1 {
			t.Errorf("%+v, %v", f.Item, err)
		}
		r.runModels.Drop("r")
		if p, err := r.SearchRegisteredModels(t.Context(), ""); err != nil || len(p.Items) > 0 {
			t.Errorf("%v, %v", p, err)
		}
	}
	if _, err := r.Resolve(t.Context(), "models:/a/1"); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "Databricks") {
		t.Errorf("a model of an absent registry: %v", err)
	}
	if n := strings.Count(log.String(), "left out"); n != 2 {
		t.Errorf("%d lines in the log for two parts:\n%s", n, &log)
	}
	if l := r.LeftOut(); len(l) != 2 || l[0].Kind != LoggedModels || l[1].Kind != RegisteredModels || l[0].Experiment != "1" || l[0].Why == "" {
		t.Errorf("%+v", l)
	}
	tracking.fail = nil
	r.runModels.Drop("r")
	if _, err := r.Resolve(t.Context(), "runs:/r/f"); err != nil || len(r.LeftOut()) != 1 {
		t.Errorf("%v, %+v", err, r.LeftOut())
	}
	tracking.fail = &rest.Error{Status: 500}
	r.runModels.Drop("r")
	if _, err := r.Resolve(t.Context(), "runs:/r/f"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a server that fails hides models in silence: %v", err)
	}
}
