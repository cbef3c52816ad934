package meta

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/mlflowfs/mlflowfs/test/dbserver"
)

// storeContent is what test/stores.py prints of a store.
type storeContent struct {
	Experiments map[string]string
	Runs        map[string]storeRun
	Order       map[string][]string // of the runs that are not deleted, by experiment
	Models      map[string]storeModel
	Logged      map[string][5]string
}

type storeRun struct {
	Name, Experiment, Status, Stage, User, URI string
	Start, End                                 int64
	Params, Tags                               map[string]string
	Metrics                                    map[string][3]any
	Points                                     map[string]int
	Inputs                                     [][7]any
	Read                                       []string
	Made                                       [][2]any
}

type storeModel struct {
	Aliases  map[string]string
	Latest   map[string]string // by stage
	Versions map[string][4]string
}

// TestLocalStoresAgainstMLflow fails when a sqlite file, of MLflow 1.6 to the newest,
// or a FileStore, with linked experiments, deleted ones and NULLs, does not hold
// the runs, params, tags, metrics, inputs, models, versions and aliases that
// MLflow's own client reads of it.
func TestLocalStoresAgainstMLflow(t *testing.T) {
	t.Parallel()
	seed := seed(t)
	two, three := t.TempDir(), t.TempDir()
	said := clientsReading(t, "mlflow2", two, seed)
	for uri, want := range clientsReading(t, "mlflow3", three, seed, filepath.Join(two, "mlruns-files")) {
		said[uri+" by 3.17"] = want
	}
	if len(said) != 8 {
		t.Fatalf("%d stores were read", len(said))
	}
	for at, want := range said {
		sameAsClient(t, strings.TrimSuffix(at, " by 3.17"), at, seed, want)
	}
}

// TestDatabasesAgainstMLflow fails when PostgreSQL or MariaDB, of the tables of MLflow
// 1.28, 2.22 and the newest, does not hold for a user who may only read what MLflow's own
// client reads of it.
func TestDatabasesAgainstMLflow(t *testing.T) {
	t.Parallel()
	for _, kind := range dbserver.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			server, read := dbserver.Start(t, kind), 0
			for _, release := range []string{"mlflow2", "mlflow3"} {
				for uri, want := range clientsReading(t, release, t.TempDir(), seed(t), "--server", server.URI(dbserver.Writer, "")) {
					sameAsClient(t, strings.Replace(uri, dbserver.Writer+":", dbserver.Reader+":", 1), uri, seed(t), want)
					read++
				}
			}
			if read != 3 {
				t.Fatalf("%d databases were read", read)
			}
		})
	}
}

// seed is what the stores are made by.
func seed(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv("MLFLOWFS_SEED"), "1"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// sameAsClient holds what is read of the store at a URI against what MLflow's client reads.
func sameAsClient(t *testing.T, uri, at string, seed int, want storeContent) {
	t.Helper()
	s, _, err := Open(uri, env(nil), quiet)
	if err != nil {
		t.Errorf("%s: %v", at, err)
		return
	}
	defer s.Close()
	if diff := gocmp.Diff(want, contentOf(t, s, want)); diff != "" {
		t.Errorf("seed %d: %s: MLflow's client (-) and ours (+):\n%s", seed, at, diff)
	}
	for _, r := range s.Tell() {
		if r.Lesser {
			t.Errorf("%s: %s", at, r.Words)
		}
	}
}

// python is that of a release of MLflow.
func python(release string) string {
	return filepath.Join(cmp.Or(os.Getenv("MLFLOWFS_TESTENV"), "../../.testenv"), release, "bin", "python")
}

// clientsReading runs test/stores.py.
func clientsReading(t *testing.T, release, dir string, seed int, others ...string) (out map[string]storeContent) {
	t.Helper()
	c := exec.Command(python(release), append([]string{"../../test/stores.py", dir, strconv.Itoa(seed)}, others...)...)
	var errs bytes.Buffer
	c.Stderr = &errs
	b, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	if err := json.Unmarshal(b[bytes.LastIndexByte(bytes.TrimSpace(b), '\n')+1:], &out); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return out
}

// contentOf asks a store for what the client has read of it.
func contentOf(t *testing.T, s Store, want storeContent) storeContent {
	t.Helper()
	ctx := context.Background()
	got := storeContent{map[string]string{}, map[string]storeRun{}, map[string][]string{}, map[string]storeModel{}, map[string][5]string{}}
	fail := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	experiments, err := s.SearchExperiments(ctx, "", "")
	fail(err)
	for _, e := range experiments.Items {
		got.Experiments[e.ID] = e.Name
		got.Order[e.ID] = []string{}
		runs, err := s.SearchRuns(ctx, RunQuery{Experiments: []string{e.ID}}, "")
		fail(err)
		for _, r := range runs.Items {
			got.Order[e.ID] = append(got.Order[e.ID], r.ID)
		}
	}
	for id := range want.Runs {
		r, err := s.Run(ctx, id)
		if err != nil {
			t.Error(err)
			continue
		}
		got.Runs[id] = runOfStore(t, s, r)
	}
	models, err := s.SearchRegisteredModels(ctx, "")
	fail(err)
	for _, m := range models.Items {
		one := storeModel{m.Aliases, map[string]string{}, map[string][4]string{}}
		for _, v := range m.Latest {
			one.Latest[v.Stage] = v.Version
		}
		versions, err := s.SearchVersions(ctx, m.Name, "")
		fail(err)
		for _, v := range versions.Items {
			same, err := s.Version(ctx, v.Name, v.Version)
			fail(err)
			one.Versions[v.Version] = [4]string{v.Stage, v.Source, v.Status, same.URI}
		}
		got.Models[m.Name] = one
	}
	for id := range want.Logged {
		m, err := s.LoggedModel(ctx, id)
		if err != nil {
			t.Error(err)
			continue
		}
		got.Logged[id] = [5]string{m.Name, m.ExperimentID, m.SourceRunID, m.ArtifactURI, m.Status[len("LOGGED_MODEL_"):]}
	}
	return got
}

// runOfStore is what a store says of a run, by its JSON and its other answers.
func runOfStore(t *testing.T, s Store, r *Run) storeRun {
	t.Helper()
	var doc jsonRunDoc
	if err := json.Unmarshal(r.JSON, &doc); err != nil {
		t.Error(err)
	}
	millis := func(at time.Time) int64 { return unixMilli(at) }
	out := storeRun{
		Name: r.Name, Experiment: r.ExperimentID, Status: r.Status, Stage: doc.Info.LifecycleStage, User: doc.Info.UserID, URI: doc.Info.ArtifactURI,
		Start: millis(r.Start), End: millis(r.End),
		Params: mapOf(doc.Data.Params), Tags: mapOf(doc.Data.Tags), Metrics: map[string][3]any{}, Points: map[string]int{},
		Inputs: [][7]any{}, Read: []string{}, Made: [][2]any{},
	}
	for _, m := range doc.Data.Metrics {
		points, err := s.MetricHistory(context.Background(), r.ID, m.Key, "")
		if err != nil {
			t.Error(err)
		}
		out.Points[m.Key] = len(points.Items)
		out.Metrics[m.Key] = [3]any{asPython(string(m.point().Value)), float64(m.Timestamp), float64(m.Step)}
	}
	for _, d := range doc.Inputs.Datasets {
		tags := map[string]any{}
		for k, v := range mapOf(d.Tags) {
			tags[k] = v
		}
		out.Inputs = append(out.Inputs, [7]any{d.Dataset.Name, d.Dataset.Digest, d.Dataset.SourceType, d.Dataset.Source, d.Dataset.Schema, d.Dataset.Profile, tags})
	}
	for _, m := range doc.Inputs.Models {
		out.Read = append(out.Read, m.ModelID)
	}
	if doc.Outputs != nil {
		for _, o := range doc.Outputs.ModelOutputs {
			out.Made = append(out.Made, [2]any{o.ModelID, float64(o.Step)})
		}
	}
	slices.Sort(out.Read)
	slices.SortFunc(out.Made, func(a, b [2]any) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return out
}

// asPython writes a number as Python's repr does.
func asPython(v string) string {
	f, err := strconv.ParseFloat(v, 64)
	switch {
	case err != nil || v == "NaN" || v == "Infinity" || v == "-Infinity":
		return v
	case f == 1e300:
		return "1e+300"
	case f == float64(int64(f)):
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

func mapOf(pairs []jsonPair) map[string]string {
	out := map[string]string{}
	for _, p := range pairs {
		out[p.Key] = p.Value
	}
	return out
}
