package meta

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"time"
)

// Trace is what a store says of a trace, but for its spans.
type Trace struct {
	ID           string
	ExperimentID string
	Start        time.Time

	// Info is JSON, as MLflow 3's TraceInfo.to_dict gives it. A search need not tell it.
	Info []byte

	// Stored says that the store itself has the spans: see [Traces]. Else they are in
	// traces.json in the directory of artifacts at URI.
	Stored bool
	URI    string

	// Archive is the directory of artifacts at which the store's own spans lie by now, in
	// an archive: see [ArchivedSpans].
	Archive string

	Ended bool // no span is added any more
}

// Traces tells of traces, by the same rules as [Tracking].
type Traces interface {
	Trace(ctx context.Context, id string) (*Trace, error)
	// SearchTraces gives the traces of an experiment. A store that knows no traces gives
	// none.
	SearchTraces(ctx context.Context, experimentID, token string) (Page[Trace], error)
	// Spans gives the spans of a trace as JSON, as MLflow's TraceData.to_dict gives them,
	// to one reader, who closes it. ctx is for all of that. A server gives those that lie
	// at artifacts, or in an archive, too; a database gives ErrSpansMoved of those.
	Spans(ctx context.Context, t *Trace) (io.ReadCloser, error)
}

// tracesPage is how many traces are asked for at a time; MLflow's own limit is 500.
const tracesPage = 200

var traceID = regexp.MustCompile(`^[a-zA-Z0-9][\w-]*$`)

// ValidTraceID tells whether id can be a trace's id: tr- and 32 hexadecimal digits, or
// those alone, are MLflow's own; others come with what other clients send.
func ValidTraceID(id string) bool { return len(id) <= 64 && traceID.MatchString(id) }

// The tags that say where spans are (mlflow.tracing.constant, mlflow.utils.mlflow_tags),
// and what the first of them holds where that is no directory of artifacts.
const (
	spansLocation = "mlflow.trace.spansLocation"
	artifactsAt   = "mlflow.artifactLocation"
	archivedAt    = "mlflow.trace.archiveLocation"
	traceName     = "mlflow.traceName"
	trackingStore = "TRACKING_STORE"
	archived      = "ARCHIVE_REPO"
)

// jsonTrace is a trace's info in the shape of TraceInfo.to_dict.
type jsonTrace struct {
	ID          string            `json:"trace_id"`
	Client      *string           `json:"client_request_id,omitempty"`
	Location    jsonLocation      `json:"trace_location"`
	Request     *string           `json:"request_preview,omitempty"`
	Response    *string           `json:"response_preview,omitempty"`
	Time        string            `json:"request_time"`
	Duration    *int64            `json:"execution_duration_ms,omitempty"`
	State       string            `json:"state"`
	Metadata    map[string]string `json:"trace_metadata"`
	Tags        map[string]string `json:"tags"`
	Assessments []json.RawMessage `json:"assessments,omitempty"`
}

type jsonLocation struct {
	Type       string `json:"type"`
	Experiment struct {
		ID string `json:"experiment_id"`
	} `json:"mlflow_experiment"`
}

func (j *jsonTrace) setExperiment(id string) {
	j.Location.Type, j.Location.Experiment.ID = "MLFLOW_EXPERIMENT", id
}

// protoTime writes milliseconds since 1970 as protobuf's JSON does.
func protoTime(ms int64) string {
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}

// trace is what j tells; j itself is its Info.
func (j *jsonTrace) trace() (*Trace, error) {
	t := j.bare()
	info, err := marshal(j)
	t.Info = info
	return t, err
}

func (j *jsonTrace) bare() *Trace {
	t := &Trace{ID: j.ID, ExperimentID: j.Location.Experiment.ID, Ended: j.State != "IN_PROGRESS"}
	t.Start, _ = time.Parse(time.RFC3339Nano, j.Time) // zero where it is none
	t.URI = j.Tags[artifactsAt]
	switch j.Tags[spansLocation] {
	case trackingStore:
		t.Stored = true
	case archived:
		t.Stored, t.Archive = true, j.Tags[archivedAt]
	}
	return t
}

// stateOf is the state of a trace by MLflow 2's word for it.
func stateOf(status string) string {
	if status == "" || status == "TRACE_STATUS_UNSPECIFIED" {
		return "STATE_UNSPECIFIED"
	}
	return status
}

// traceOf reads a trace's info as MLflow 3's server gives it, which differs from
// TraceInfo.to_dict in its duration ("1.5s").
func traceOf(raw json.RawMessage) (*Trace, error) {
	var j jsonTrace
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &j); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	var seconds string
	if d, ok := fields["execution_duration"]; ok && json.Unmarshal(d, &seconds) == nil {
		ms, err := durationMillis(seconds)
		if err != nil {
			return nil, fmt.Errorf("trace %s: %w", j.ID, err)
		}
		delete(fields, "execution_duration")
		fields["execution_duration_ms"] = json.RawMessage(strconv.FormatInt(ms, 10))
	}
	t := j.bare()
	info, err := marshal(fields)
	t.Info = info
	return t, err
}

var protoDuration = regexp.MustCompile(`^(-?)(\d{1,12})(?:\.(\d{1,9}))?s$`)

// durationMillis reads a duration of protobuf's JSON, as its ToMilliseconds does.
func durationMillis(s string) (int64, error) {
	m := protoDuration.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%.40q is no duration", s)
	}
	seconds, _ := strconv.ParseInt(m[2], 10, 64)
	ms, _ := strconv.ParseInt((m[3] + "000")[:3], 10, 64)
	if ms += seconds * 1000; m[1] == "-" {
		ms = -ms
	}
	return ms, nil
}

// marshal is json.Marshal that leaves <, > and & as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// spanReader is a trace's data made of pages of spans, each in its JSON.
type spanReader struct {
	next  func(token string) (Page[string], error)
	token string
	began bool
	some  bool // spans were given
	ended bool
	ready bytes.Buffer
}

var _ io.ReadCloser = (*spanReader)(nil)

func (r *spanReader) Read(p []byte) (int, error) {
	for r.ready.Len() == 0 {
		if r.ended {
			return 0, io.EOF
		}
		page, err := r.next(r.token)
		if err != nil {
			return 0, err
		}
		if !r.began {
			r.ready.WriteString(`{"spans": [`)
		}
		for _, span := range page.Items {
			if r.some {
				r.ready.WriteString(", ")
			}
			r.some = true
			r.ready.WriteString(span)
		}
		r.began, r.token = true, page.Next
		if r.token == "" {
			r.ended = true
			r.ready.WriteString("]}")
		}
	}
	return r.ready.Read(p)
}

func (r *spanReader) Close() error { return nil }
