package meta

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// oldTracesFor is how long a server that knows MLflow 2's API of traces alone is not
// asked by the new one.
const oldTracesFor = 10 * time.Minute

// newTraces asks by MLflow 3's API of traces; false says that the server has none of it.
func (s *restStore) newTraces(ask func() error) (known bool, err error) {
	if time.Now().UnixNano() < s.oldTraces.Load() {
		return false, nil
	}
	err = ask()
	var e *rest.Error
	if errors.As(err, &e) && e.NoSuchEndpoint() {
		s.oldTraces.Store(time.Now().Add(oldTracesFor).UnixNano())
		return false, nil
	}
	return true, err
}

// oldTrace is a trace's info of MLflow 2 (service.proto, message TraceInfo).
type oldTrace struct {
	ID         string   `json:"request_id"`
	Experiment string   `json:"experiment_id"`
	Time       rest.Int `json:"timestamp_ms"`
	Duration   rest.Int `json:"execution_time_ms"`
	Status     string   `json:"status"`
	Metadata   []Pair   `json:"request_metadata"`
	Tags       []Pair   `json:"tags"`
}

// trace is it as MLflow 3 takes it (TraceInfoV2.to_v3).
func (o *oldTrace) trace() (*Trace, error) {
	duration := int64(o.Duration)
	j := jsonTrace{
		ID: o.ID, Duration: &duration, State: stateOf(o.Status),
		Metadata: mapOfPairs(o.Metadata), Tags: mapOfPairs(o.Tags),
	}
	j.setExperiment(o.Experiment)
	j.Time = protoTime(int64(o.Time))
	return j.trace()
}

func (s *restStore) Trace(ctx context.Context, id string) (*Trace, error) {
	if !ValidTraceID(id) {
		return nil, notFound("trace", id)
	}
	var out struct {
		Trace struct {
			Info json.RawMessage `json:"trace_info"`
		} `json:"trace"`
	}
	known, err := s.newTraces(func() error {
		return name(s.c.API3(ctx, "traces/"+url.PathEscape(id), nil, nil, &out))
	})
	if err == nil && known {
		if err := has(nil, "trace", id, string(out.Trace.Info)); err != nil {
			return nil, err
		}
		return traceOf(out.Trace.Info)
	}
	if known {
		return nil, err
	}
	var old struct {
		Info oldTrace `json:"trace_info"`
	}
	if err := s.lookUp(ctx, "traces/"+url.PathEscape(id)+"/info", nil, &old); err != nil {
		return nil, err
	}
	if err := has(nil, "trace", id, old.Info.ID); err != nil {
		return nil, err
	}
	return old.Info.trace()
}

func (s *restStore) SearchTraces(ctx context.Context, experimentID, token string) (p Page[Trace], err error) {
	const order = "timestamp_ms DESC"
	var location jsonTrace
	location.setExperiment(experimentID)
	body := map[string]any{"locations": []jsonLocation{location.Location}, "max_results": tracesPage, "order_by": []string{order}}
	if token != "" {
		body["page_token"] = token
	}
	var out struct {
		Traces []json.RawMessage `json:"traces"`
		Next   string            `json:"next_page_token"`
	}
	known, err := s.newTraces(func() error { return s.c.API3(ctx, "traces/search", nil, body, &out) })
	if err != nil {
		return p, err
	}
	if known {
		return tracesOf(out.Traces, out.Next, func(raw *json.RawMessage) (*Trace, error) { return traceOf(*raw) })
	}
	var old struct {
		Traces []oldTrace `json:"traces"`
		Next   string     `json:"next_page_token"`
	}
	q := search(tracesPage, token, "")
	q.Set("experiment_ids", experimentID)
	q.Set("order_by", order)
	err = s.c.API(ctx, "traces", q, nil, &old)
	var e *rest.Error
	if errors.As(err, &e) && e.NoSuchEndpoint() {
		return p, nil // MLflow before 2.13
	}
	if err != nil {
		return p, err
	}
	return tracesOf(old.Traces, old.Next, (*oldTrace).trace)
}

func tracesOf[J any](in []J, next string, f func(*J) (*Trace, error)) (Page[Trace], error) {
	p := Page[Trace]{Next: next}
	for i := range in {
		t, err := f(&in[i])
		if err != nil {
			return Page[Trace]{}, err
		}
		p.Items = append(p.Items, *t)
	}
	return p, nil
}

// Spans asks the door that MLflow's own pages have: it gives spans wherever they are, in
// the shape in which they are stored.
func (s *restStore) Spans(ctx context.Context, t *Trace) (io.ReadCloser, error) {
	body, err := s.c.Stream(ctx, "/ajax-api/2.0/mlflow/get-trace-artifact", url.Values{"request_id": {t.ID}})
	return body, name(err)
}

// name says of a refusal that one thing was asked for by its name.
func name(err error) error {
	var refusal *rest.Error
	if errors.As(err, &refusal) {
		refusal.Name = true
	}
	return err
}
