package meta

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// The local stores build a run's JSON in the shape of a tracking server's
// answer to runs/get (service.proto, message Run).
type (
	jsonRunDoc struct {
		Info    jsonInfo     `json:"info"`
		Data    jsonData     `json:"data"`
		Inputs  jsonInputs   `json:"inputs"`
		Outputs *jsonOutputs `json:"outputs,omitempty"`
	}
	jsonInfo struct {
		RunUUID        string `json:"run_uuid"`
		ExperimentID   string `json:"experiment_id"`
		RunName        string `json:"run_name"`
		UserID         string `json:"user_id"`
		Status         string `json:"status"`
		StartTime      int64  `json:"start_time"`
		EndTime        int64  `json:"end_time,omitempty"`
		ArtifactURI    string `json:"artifact_uri"`
		LifecycleStage string `json:"lifecycle_stage"`
		RunID          string `json:"run_id"`
	}
	jsonData struct {
		Metrics []jsonMetric `json:"metrics,omitempty"`
		Params  []jsonPair   `json:"params,omitempty"`
		Tags    []jsonPair   `json:"tags,omitempty"`
	}
	jsonMetric struct {
		Key       string          `json:"key"`
		Value     json.RawMessage `json:"value"`
		Timestamp int64           `json:"timestamp"`
		Step      int64           `json:"step"`
	}
	jsonPair struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	jsonInputs struct {
		Datasets []jsonDatasetInput `json:"dataset_inputs,omitempty"`
		Models   []jsonModelInput   `json:"model_inputs,omitempty"`
	}
	jsonDatasetInput struct {
		Tags    []jsonPair  `json:"tags,omitempty"`
		Dataset jsonDataset `json:"dataset"`
	}
	jsonDataset struct {
		Name       string `json:"name" yaml:"name"`
		Digest     string `json:"digest" yaml:"digest"`
		SourceType string `json:"source_type" yaml:"source_type"`
		Source     string `json:"source" yaml:"source"`
		Schema     string `json:"schema,omitempty" yaml:"schema"`
		Profile    string `json:"profile,omitempty" yaml:"profile"`
	}
	jsonModelInput struct {
		ModelID string `json:"model_id"`
	}
	jsonOutputs struct {
		ModelOutputs []jsonModelOutput `json:"model_outputs"`
	}
	jsonModelOutput struct {
		ModelID string `json:"model_id"`
		Step    int64  `json:"step"`
	}
)

// point is m as a store gives it.
func (m jsonMetric) point() Point {
	p := Point{Key: m.Key, Timestamp: rest.Int(m.Timestamp), Step: rest.Int(m.Step)}
	p.Value.UnmarshalJSON(m.Value) // can't fail
	return p
}

func jsonRun(r *Run, user, stage string) *jsonRunDoc {
	return &jsonRunDoc{Info: jsonInfo{
		RunUUID: r.ID, RunID: r.ID, ExperimentID: r.ExperimentID, RunName: r.Name, UserID: user,
		Status: r.Status, StartTime: unixMilli(r.Start), EndTime: unixMilli(r.End),
		ArtifactURI: r.ArtifactURI, LifecycleStage: stage,
	}}
}

func (d *jsonRunDoc) setOutputs(o []jsonModelOutput) {
	if len(o) > 0 {
		d.Outputs = &jsonOutputs{ModelOutputs: o}
	}
}

// sortedPairs are the entries of a map, by key.
func sortedPairs(m map[string]string) (out []jsonPair) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, jsonPair{k, m[k]})
	}
	return out
}

func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// jsonNumber writes a metric as protobuf's JSON does: the values that JSON has
// no number for are strings.
func jsonNumber(v float64, nan bool) json.RawMessage {
	switch {
	case nan || math.IsNaN(v):
		return json.RawMessage(`"NaN"`)
	case math.IsInf(v, 1):
		return json.RawMessage(`"Infinity"`)
	case math.IsInf(v, -1):
		return json.RawMessage(`"-Infinity"`)
	}
	b, _ := json.Marshal(v) // can't fail: v is finite
	return b
}
