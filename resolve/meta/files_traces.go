package meta

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

const (
	tracesDir = "traces"
	traceFile = "trace_info.yaml"
)

// metaTrace is a trace_info.yaml, which MLflow 2 and 3 write in other words.
type metaTrace struct {
	ID       string `yaml:"trace_id"`
	Location struct {
		Experiment struct {
			ID string `yaml:"experiment_id"`
		} `yaml:"mlflow_experiment"`
	} `yaml:"trace_location"`
	Client    *string `yaml:"client_request_id"`
	Request   *string `yaml:"request_preview"`
	Response  *string `yaml:"response_preview"`
	Time      string  `yaml:"request_time"`
	Duration  *int64  `yaml:"execution_duration_ms"`
	State     string  `yaml:"state"`
	OldID     string  `yaml:"request_id"`
	OldPlace  string  `yaml:"experiment_id"`
	OldTime   int64   `yaml:"timestamp_ms"`
	OldLength *int64  `yaml:"execution_time_ms"`
	OldStatus string  `yaml:"status"`
}

// readTrace reads the trace in a directory, but for its tags, metadata and assessments.
func (v fileView) readTrace(dir string) (*jsonTrace, error) {
	var m metaTrace
	if err := v.readYAML(path.Join(dir, traceFile), &m); err != nil {
		return nil, err
	}
	j := &jsonTrace{
		ID: cmp.Or(m.ID, m.OldID), Client: m.Client, Request: m.Request, Response: m.Response, Time: m.Time,
		Duration: m.Duration, State: cmp.Or(m.State, stateOf(m.OldStatus)),
	}
	if m.ID == "" {
		j.Duration = m.OldLength
		j.Time = protoTime(m.OldTime)
	}
	j.setExperiment(cmp.Or(m.Location.Experiment.ID, m.OldPlace))
	if j.ID != path.Base(dir) || j.Location.Experiment.ID != path.Base(path.Dir(path.Dir(dir))) {
		return nil, errOther
	}
	return j, nil
}

func (s *fileStore) Trace(_ context.Context, id string) (*Trace, error) {
	if !ValidTraceID(id) {
		return nil, notFound("trace", id)
	}
	return askFiles(s, func(v fileView) (*Trace, error) {
		dirs, err := v.experimentDirs()
		if err != nil {
			return nil, err
		}
		for _, d := range dirs {
			dir := path.Join(d, tracesDir, id)
			j, err := v.readTrace(dir)
			if v.passed.unless(dir, err, errors.Is(err, fs.ErrNotExist) || notDir(err)) {
				continue
			}
			j.Tags, j.Metadata = mapOfJSONPairs(v.pairs(path.Join(dir, "tags"))), mapOfJSONPairs(v.pairs(path.Join(dir, "request_metadata")))
			if j.Assessments, err = v.assessments(path.Join(dir, "assessments")); err != nil {
				return nil, err
			}
			t, err := j.trace()
			if err == nil {
				t.URI, _ = v.moved(t.URI)
			}
			return t, err
		}
		return nil, notFound("trace", id)
	})
}

func mapOfJSONPairs(pairs []jsonPair) map[string]string {
	out := make(map[string]string, len(pairs))
	for _, p := range pairs {
		out[p.Key] = p.Value
	}
	return out
}

// assessments are the files in a directory, which MLflow writes as
// Assessment.to_dictionary gives them, in the order in which they were made.
func (v fileView) assessments(dir string) ([]json.RawMessage, error) {
	names, err := v.children(dir, anyFile)
	v.passed.unless(dir, err, false)
	type made struct {
		at  string
		raw json.RawMessage
	}
	var all []made
	for _, n := range names {
		var a map[string]any
		part := path.Join(dir, n)
		if v.passed.unless(part, v.readYAML(part, &a), false) || !strings.HasSuffix(n, ".yaml") {
			continue
		}
		at, _ := a["create_time"].(string)
		raw, err := marshal(a)
		if err != nil {
			return nil, err
		}
		all = append(all, made{at, raw})
	}
	slices.SortStableFunc(all, func(a, b made) int { return strings.Compare(a.at, b.at) })
	var out []json.RawMessage
	for _, m := range all {
		out = append(out, m.raw)
	}
	return out, nil
}

// SearchTraces gives all of an experiment's traces, the newest first, without their Info.
func (s *fileStore) SearchTraces(_ context.Context, experimentID, _ string) (Page[Trace], error) {
	return askFiles(s, func(v fileView) (p Page[Trace], err error) {
		e, ok := v.experimentDir(experimentID)
		if !ok {
			return p, nil
		}
		dir := path.Join(e, tracesDir)
		ids, err := v.children(dir, anyDir)
		v.passed.unless(dir, err, false)
		for _, id := range ids {
			part := path.Join(dir, id)
			j, err := v.readTrace(part)
			if !v.passed.unless(part, err, errors.Is(err, fs.ErrNotExist)) {
				p.Items = append(p.Items, *j.bare())
			}
		}
		slices.SortStableFunc(p.Items, func(a, b Trace) int { return b.Start.Compare(a.Start) })
		return p, nil
	})
}

// Spans gives none: MLflow writes those of a FileStore as artifacts.
func (s *fileStore) Spans(_ context.Context, t *Trace) (io.ReadCloser, error) {
	return nil, fmt.Errorf("the spans of trace %s are not in the FileStore: %w", t.ID, errors.ErrUnsupported)
}

// SearchDatasets gives none: MLflow keeps no evaluation datasets in a FileStore.
func (s *fileStore) SearchDatasets(context.Context, string) (Page[Dataset], error) {
	return Page[Dataset]{}, nil
}

func (s *fileStore) DatasetRecords(_ context.Context, id, _ string) (Page[string], error) {
	return Page[string]{}, notFound("dataset", id)
}
