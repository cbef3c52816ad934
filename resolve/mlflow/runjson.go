package mlflow

import (
	"encoding/json"
	"math"
	"time"
)

// The local stores build a run's JSON in the shape of a tracking server's
// answer to runs/get (service.proto, message Run).
type (
	jsonRunDoc struct {
		Info    jsonInfo     `json:"info"`
		Data    jsonData     `json:"data"`
		Inputs  struct{}     `json:"inputs"`
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
	p := Point{Key: m.Key, Timestamp: Int(m.Timestamp), Step: Int(m.Step)}
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
