package meta

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

type metaRun struct {
	RunID       string `yaml:"run_id"`
	RunUUID     string `yaml:"run_uuid"` // what MLflow before 1.0 has alone
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

// fileRun is a run with what of its meta.yaml the Run has no place for.
type fileRun struct {
	Run
	dir  string
	meta metaRun
}

func (v fileView) readRun(dir string) (*fileRun, error) {
	r := &fileRun{dir: dir}
	m := &r.meta
	if err := v.readYAML(path.Join(dir, metaFile), m); err != nil {
		return nil, err
	}
	id, in := path.Base(dir), path.Dir(dir)
	experiment := path.Base(in)
	if cmp.Or(m.RunID, m.RunUUID) != id || m.Experiment != experiment {
		return nil, errOther
	}
	uri, found := v.moved(m.ArtifactURI)
	if !found { // MLflow makes the directory when the run begins
		v.passed.over(in+" (artifacts)", errNowhere)
	}
	r.Run = Run{
		ID: id, Name: m.RunName, ExperimentID: experiment, ArtifactURI: uri,
		Status: runStatus(m.Status), Start: millis(m.Start),
	}
	if m.End != nil {
		r.End = millis(*m.End)
	}
	if r.Name == "" { // MLflow 1 kept the name in a tag alone
		b, err := v.readFile(path.Join(dir, "tags", "mlflow.runName"))
		if err == nil {
			r.Name = string(b)
		}
	}
	return r, nil
}

var errNowhere = errors.New("a run's artifacts are neither where its meta.yaml says, nor in the store")

// run finds a run by its id. One that can't be read is an error; experiments
// that can't be are passed over.
func (v fileView) run(id string) (*fileRun, error) {
	if !ValidRunID(id) || slices.Contains(reserved, id) {
		return nil, notFound("run", id)
	}
	dirs, err := v.experimentDirs()
	if err != nil {
		return nil, err
	}
	var unread []string
	for _, d := range dirs {
		dir := path.Join(d, id)
		_, err := v.lstat(dir)
		if v.passed.unless(d, err, errors.Is(err, fs.ErrNotExist) || notDir(err)) {
			if !errors.Is(err, fs.ErrNotExist) && !notDir(err) {
				unread = append(unread, d)
			}
			continue
		}
		r, err := v.readRun(dir)
		if err == nil || !errors.Is(err, errOther) {
			if err != nil {
				err = fmt.Errorf("run %s: %v", id, err)
			}
			return r, err
		}
		v.passed.over(dir, err)
	}
	err = notFound("run", id)
	if len(unread) > 0 {
		err = fmt.Errorf("%w; %s can't be read", err, strings.Join(unread, ", "))
	}
	return nil, err
}

// reserved are the directories of an experiment that are no runs
// (FileStore.RESERVED_EXPERIMENT_FOLDERS).
var reserved = []string{"tags", "datasets", "traces", modelsDir}

// runs gives the runs of experiments that are not deleted, the newest first.
func (v fileView) runs(experimentIDs []string) []*fileRun {
	var out []*fileRun
	for _, id := range experimentIDs {
		e, ok := v.experimentDir(id)
		if !ok {
			continue
		}
		dirs, err := v.children(e, anyDir)
		v.passed.unless(e, err, false)
		for _, d := range dirs {
			if slices.Contains(reserved, d) {
				continue
			}
			dir := path.Join(e, d)
			r, err := v.readRun(dir)
			if !v.passed.unless(dir, err, errors.Is(err, fs.ErrNotExist)) && r.meta.Stage != "deleted" {
				out = append(out, r)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b *fileRun) int {
		return cmp.Or(b.Start.Compare(a.Start), cmp.Compare(a.ID, b.ID))
	})
	return out
}

func (s *fileStore) Run(_ context.Context, id string) (*Run, error) {
	return askFiles(s, func(v fileView) (*Run, error) {
		r, err := v.run(id)
		if err != nil {
			return nil, err
		}
		r.JSON, err = v.runJSON(r)
		return &r.Run, err
	})
}

func (s *fileStore) SearchRuns(_ context.Context, which RunQuery, _ string) (Page[Run], error) {
	return askFiles(s, func(v fileView) (p Page[Run], err error) {
		for _, r := range v.runs(which.Experiments) {
			if which.JSON {
				if r.JSON, err = v.runJSON(r); err != nil {
					return Page[Run]{}, err
				}
			}
			p.Items = append(p.Items, r.Run)
		}
		return p, nil
	})
}

func (s *fileStore) MetricHistory(_ context.Context, runID, key, _ string) (Page[Point], error) {
	return askFiles(s, func(v fileView) (p Page[Point], err error) {
		r, err := v.run(runID)
		if err != nil {
			return p, err
		}
		b, err := v.readFile(path.Join(r.dir, "metrics", key))
		if errors.Is(err, fs.ErrNotExist) {
			return p, nil
		}
		for _, m := range metricPoints(key, string(b)) {
			p.Items = append(p.Items, m.point())
		}
		return p, err
	})
}

// runJSON builds what a tracking server on this store answers to runs/get. A
// param, tag or metric that can't be read is passed over.
func (v fileView) runJSON(r *fileRun) ([]byte, error) {
	out := jsonRun(&r.Run, r.meta.User, r.meta.Stage)
	out.Info.ArtifactURI = r.meta.ArtifactURI
	out.Data.Params = v.pairs(path.Join(r.dir, "params"))
	out.Data.Tags = v.pairs(path.Join(r.dir, "tags"))
	for _, p := range v.pairs(path.Join(r.dir, "metrics")) {
		if m, ok := lastMetric(p.Key, p.Value); ok {
			out.Data.Metrics = append(out.Data.Metrics, m)
		}
	}
	v.inputs(r, &out.Inputs)
	out.setOutputs(v.outputs(r))
	return json.Marshal(out)
}

// pairs reads each file below dir: its path there is the key, which may hold
// slashes, its content the value. As os.walk does, it follows no link to a
// directory.
func (v fileView) pairs(dir string) (out []jsonPair) {
	var walk func(prefix string)
	walk = func(prefix string) {
		at := path.Join(dir, prefix)
		entries, err := v.entries(at)
		v.passed.unless(at, err, false)
		for _, e := range entries {
			key := path.Join(prefix, e.Name())
			if e.IsDir() {
				walk(key)
				continue
			}
			part := path.Join(dir, key)
			if e.Type()&fs.ModeSymlink != 0 && v.isDir(part) {
				continue
			}
			b, err := v.readFile(part)
			if !v.passed.unless(part, err, false) {
				out = append(out, jsonPair{key, string(b)})
			}
		}
	}
	walk("")
	return out
}
