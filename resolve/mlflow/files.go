package mlflow

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// fileStore is a FileStore directory (mlflow.store.tracking.file_store and
// mlflow.store.model_registry.file_store):
//
//	<experiment_id>/meta.yaml
//	<experiment_id>/<run_id>/{meta.yaml,params/,metrics/,tags/,outputs/,artifacts/}
//	<experiment_id>/models/<m-id>/meta.yaml
//	models/<name>/{meta.yaml,version-<n>/meta.yaml,aliases/<alias>}
//
// It has no index: a search reads the meta.yaml of everything it looks at, and
// gives all it finds as one page. A file that a writer is replacing right now,
// or that is damaged, is passed over by a search, as MLflow passes it over.
type fileStore struct{ root *os.Root }

var _ Store = (*fileStore)(nil)

func openFileStore(dir string) (Store, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("the tracking URI names the directory %s, which can't be opened: %w", dir, err)
	}
	return &fileStore{root}, nil
}

const metaFile = "meta.yaml"

func (s *fileStore) Ping(context.Context) error {
	_, err := s.root.Stat(".")
	return err
}

func (s *fileStore) Close() error { return s.root.Close() }

func (s *fileStore) readYAML(name string, out any) error {
	b, err := s.root.ReadFile(name)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// children names the entries of a directory; a directory that is missing has
// none.
func (s *fileStore) children(dir string, want func(fs.DirEntry) bool) ([]string, error) {
	f, err := s.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	var names []string
	for _, e := range entries {
		if want(e) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, err
}

func anyDir(e fs.DirEntry) bool  { return e.IsDir() || e.Type()&fs.ModeSymlink != 0 }
func anyFile(e fs.DirEntry) bool { return !e.IsDir() }

// valid keeps a name that came from outside to one segment.
func valid(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

type metaExperiment struct {
	ID      string `yaml:"experiment_id"`
	Name    string `yaml:"name"`
	Stage   string `yaml:"lifecycle_stage"`
	Created int64  `yaml:"creation_time"`
}

// experiments reads every experiment that is not deleted; deleted ones lie in
// .trash.
func (s *fileStore) experiments() ([]Experiment, error) {
	dirs, err := s.children(".", func(e fs.DirEntry) bool { return anyDir(e) && e.Name() != ".trash" && e.Name() != "models" })
	var out []Experiment
	for _, d := range dirs {
		var m metaExperiment
		if s.readYAML(path.Join(d, metaFile), &m) == nil && m.Stage != "deleted" {
			out = append(out, Experiment{ID: d, Name: m.Name, Created: millis(m.Created)})
		}
	}
	return out, err
}

func (s *fileStore) SearchExperiments(context.Context, string) (Page[Experiment], error) {
	all, err := s.experiments()
	return Page[Experiment]{Items: all}, err
}

func (s *fileStore) ExperimentByName(_ context.Context, name string) (*Experiment, error) {
	all, err := s.experiments()
	for i := range all {
		if all[i].Name == name {
			return &all[i], nil
		}
	}
	if err == nil {
		err = notFound("experiment", name)
	}
	return nil, err
}

type metaRun struct {
	RunID       string `yaml:"run_id"`
	RunUUID     string `yaml:"run_uuid"`
	RunName     string `yaml:"run_name"`
	Experiment  string `yaml:"experiment_id"`
	ArtifactURI string `yaml:"artifact_uri"`
	Status      int    `yaml:"status"`
	Start       int64  `yaml:"start_time"`
	End         *int64 `yaml:"end_time"`
	Stage       string `yaml:"lifecycle_stage"`
	User        string `yaml:"user_id"`
}

// runStatus names a number of RunStatus (service.proto).
func runStatus(n int) string {
	names := []string{"", "RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"}
	if n < 1 || n >= len(names) {
		return ""
	}
	return names[n]
}

func (s *fileStore) readRun(dir string) (Run, metaRun, error) {
	var m metaRun
	if err := s.readYAML(path.Join(dir, metaFile), &m); err != nil {
		return Run{}, m, err
	}
	r := Run{
		ID: path.Base(dir), Name: m.RunName, ExperimentID: path.Dir(dir), ArtifactURI: m.ArtifactURI,
		Status: runStatus(m.Status), Start: millis(m.Start),
	}
	if m.End != nil {
		r.End = millis(*m.End)
	}
	if r.Name == "" { // MLflow 1 kept the name in a tag alone
		b, err := s.root.ReadFile(path.Join(dir, "tags", "mlflow.runName"))
		if err == nil {
			r.Name = string(b)
		}
	}
	return r, m, nil
}

func (s *fileStore) Run(_ context.Context, id string) (*Run, error) {
	if !ValidRunID(id) {
		return nil, notFound("run", id)
	}
	dirs, err := s.children(".", anyDir)
	if err != nil {
		return nil, err
	}
	for _, d := range dirs {
		dir := path.Join(d, id)
		r, m, err := s.readRun(dir)
		if errors.Is(err, fs.ErrNotExist) || d == "models" {
			continue
		}
		if err != nil {
			return nil, err
		}
		r.JSON, err = s.runJSON(&r, &m, dir)
		return &r, err
	}
	return nil, notFound("run", id)
}

func (s *fileStore) SearchRunData(ctx context.Context, experimentIDs []string, token string) (Page[Run], error) {
	p, err := s.SearchRuns(ctx, experimentIDs, token)
	for i := range p.Items {
		r := &p.Items[i]
		dir := path.Join(r.ExperimentID, r.ID)
		_, m, merr := s.readRun(dir)
		if err == nil {
			err = merr
		}
		if err == nil {
			r.JSON, err = s.runJSON(r, &m, dir)
		}
	}
	return p, err
}

func (s *fileStore) MetricHistory(ctx context.Context, runID, key, _ string) (Page[Point], error) {
	r, err := s.Run(ctx, runID)
	if err != nil {
		return Page[Point]{}, err
	}
	b, err := s.root.ReadFile(path.Join(r.ExperimentID, r.ID, "metrics", key))
	if errors.Is(err, fs.ErrNotExist) {
		return Page[Point]{}, nil
	}
	var p Page[Point]
	for _, m := range metricPoints(key, string(b)) {
		p.Items = append(p.Items, m.point())
	}
	return p, err
}

// runJSON builds what a tracking server on this store answers to runs/get.
func (s *fileStore) runJSON(r *Run, m *metaRun, dir string) ([]byte, error) {
	out := jsonRun(r, m.User, m.Stage)
	for _, part := range []struct {
		dir  string
		into *[]jsonPair
	}{{"params", &out.Data.Params}, {"tags", &out.Data.Tags}} {
		if err := s.walkValues(path.Join(dir, part.dir), "", func(key, value string) {
			*part.into = append(*part.into, jsonPair{key, value})
		}); err != nil {
			return nil, err
		}
	}
	if err := s.walkValues(path.Join(dir, "metrics"), "", func(key, value string) {
		if m, ok := lastMetric(key, value); ok {
			out.Data.Metrics = append(out.Data.Metrics, m)
		}
	}); err != nil {
		return nil, err
	}
	models, err := s.children(path.Join(dir, "outputs"), anyDir)
	if err != nil {
		return nil, err
	}
	var outputs []jsonModelOutput
	for _, id := range models {
		var o struct {
			Step int64 `yaml:"step"`
		}
		if s.readYAML(path.Join(dir, "outputs", id, metaFile), &o) == nil {
			outputs = append(outputs, jsonModelOutput{ModelID: id, Step: o.Step})
		}
	}
	out.setOutputs(outputs)
	return json.Marshal(out)
}

// walkValues calls f for each file below dir: its path below dir is the key (a
// key may hold slashes), its content the value.
func (s *fileStore) walkValues(dir, prefix string, f func(key, value string)) error {
	names, err := s.children(path.Join(dir, prefix), func(fs.DirEntry) bool { return true })
	if err != nil {
		return err
	}
	for _, n := range names {
		key := path.Join(prefix, n)
		b, err := s.root.ReadFile(path.Join(dir, key))
		if err == nil {
			f(key, string(b))
		} else if st, serr := s.root.Stat(path.Join(dir, key)); serr == nil && st.IsDir() {
			if err := s.walkValues(dir, key, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// lastMetric picks the point that MLflow calls the latest.
func lastMetric(key, lines string) (jsonMetric, bool) {
	points := metricPoints(key, lines)
	if len(points) == 0 {
		return jsonMetric{}, false
	}
	return points[len(points)-1], true
}

// metricPoints reads the lines "timestamp value [step]" of a metric file, and
// sorts them as MLflow does: by step, timestamp, value.
func metricPoints(key, lines string) []jsonMetric {
	type point struct {
		step, timestamp int64
		value           float64
	}
	var points []point
	for l := range strings.Lines(lines) {
		f := strings.Fields(l)
		if len(f) < 2 {
			continue
		}
		var p point
		var err1, err2, err3 error
		p.timestamp, err1 = strconv.ParseInt(f[0], 10, 64)
		p.value, err2 = strconv.ParseFloat(f[1], 64)
		if len(f) > 2 {
			p.step, err3 = strconv.ParseInt(f[2], 10, 64)
		}
		if errors.Join(err1, err2, err3) == nil {
			points = append(points, p)
		}
	}
	slices.SortStableFunc(points, func(a, b point) int {
		return cmp.Or(cmp.Compare(a.step, b.step), cmp.Compare(a.timestamp, b.timestamp), cmp.Compare(a.value, b.value))
	})
	out := make([]jsonMetric, len(points))
	for i, p := range points {
		out[i] = jsonMetric{Key: key, Value: jsonNumber(p.value, false), Timestamp: p.timestamp, Step: p.step}
	}
	return out
}

func (s *fileStore) SearchRuns(_ context.Context, experimentIDs []string, _ string) (Page[Run], error) {
	var p Page[Run]
	for _, e := range experimentIDs {
		if !valid(e) {
			continue
		}
		dirs, err := s.children(e, anyDir)
		if err != nil {
			return p, err
		}
		for _, d := range dirs {
			if r, m, err := s.readRun(path.Join(e, d)); err == nil && m.Stage != "deleted" {
				p.Items = append(p.Items, r)
			}
		}
	}
	slices.SortStableFunc(p.Items, func(a, b Run) int {
		return cmp.Or(b.Start.Compare(a.Start), cmp.Compare(a.ID, b.ID))
	})
	return p, nil
}

type metaLoggedModel struct {
	ID       string `yaml:"model_id"`
	Name     string `yaml:"name"`
	Location string `yaml:"artifact_location"`
	Source   string `yaml:"source_run_id"`
	Status   int64  `yaml:"status"`
	Created  int64  `yaml:"creation_timestamp"`
	Stage    string `yaml:"lifecycle_stage"`
}

func (s *fileStore) readLoggedModel(experiment, id string) (LoggedModel, error) {
	var m metaLoggedModel
	err := s.readYAML(path.Join(experiment, "models", id, metaFile), &m)
	if err == nil && m.Stage == "deleted" {
		err = notFound("logged model", id)
	}
	return LoggedModel{
		ID: id, Name: m.Name, ExperimentID: experiment, SourceRunID: m.Source,
		ArtifactURI: m.Location, Status: loggedModelStatus(m.Status), Created: millis(m.Created),
	}, err
}

func (s *fileStore) LoggedModel(_ context.Context, id string) (*LoggedModel, error) {
	if !ValidLoggedModelID(id) {
		return nil, notFound("logged model", id)
	}
	dirs, err := s.children(".", anyDir)
	if err != nil {
		return nil, err
	}
	for _, e := range dirs {
		m, err := s.readLoggedModel(e, id)
		if err == nil {
			return &m, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, notFound("logged model", id)
}

func (s *fileStore) SearchLoggedModels(_ context.Context, experimentIDs []string, runID, _ string) (Page[LoggedModel], error) {
	var p Page[LoggedModel]
	for _, e := range experimentIDs {
		if !valid(e) {
			continue
		}
		ids, err := s.children(path.Join(e, "models"), anyDir)
		if err != nil {
			return p, err
		}
		for _, id := range ids {
			m, err := s.readLoggedModel(e, id)
			if err == nil && (runID == "" || m.SourceRunID == runID) {
				p.Items = append(p.Items, m)
			}
		}
	}
	slices.SortStableFunc(p.Items, func(a, b LoggedModel) int { return b.Created.Compare(a.Created) })
	return p, nil
}
