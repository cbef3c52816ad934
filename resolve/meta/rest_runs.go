package meta

import (
	"context"
	"encoding/json"
	"net/url"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

type restRun struct {
	Info struct {
		RunID        string   `json:"run_id"`
		RunUUID      string   `json:"run_uuid"`
		RunName      string   `json:"run_name"`
		ExperimentID string   `json:"experiment_id"`
		Status       string   `json:"status"`
		StartTime    rest.Int `json:"start_time"`
		EndTime      rest.Int `json:"end_time"`
		ArtifactURI  string   `json:"artifact_uri"`
	} `json:"info"`
	Data struct {
		Tags []struct{ Key, Value string } `json:"tags"`
	} `json:"data"`
}

func (r *restRun) run() Run {
	i := &r.Info
	run := Run{
		ID: i.RunID, Name: i.RunName, ExperimentID: i.ExperimentID, ArtifactURI: i.ArtifactURI,
		Status: i.Status, Start: millis(int64(i.StartTime)), End: millis(int64(i.EndTime)),
	}
	if run.ID == "" {
		run.ID = i.RunUUID
	}
	for _, t := range r.Data.Tags {
		if run.Name == "" && t.Key == "mlflow.runName" {
			run.Name = t.Value
		}
	}
	return run
}

// runOf reads a run from its JSON, and keeps that.
func runOf(raw json.RawMessage) (*Run, error) {
	var r restRun
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, err
	}
	run := r.run()
	run.JSON = raw
	return &run, nil
}

func (s *restStore) Run(ctx context.Context, id string) (*Run, error) {
	var out struct {
		Run json.RawMessage `json:"run"`
	}
	if err := s.lookUp(ctx, "runs/get", url.Values{"run_id": {id}}, &out); err != nil {
		return nil, err
	}
	if err := has(nil, "run", id, string(out.Run)); err != nil {
		return nil, err
	}
	return runOf(out.Run)
}

func (s *restStore) SearchRuns(ctx context.Context, which RunQuery, token string) (Page[Run], error) {
	if which.JSON {
		return s.searchRunsJSON(ctx, which.Experiments, token)
	}
	var out struct {
		Runs []restRun `json:"runs"`
		Next string    `json:"next_page_token"`
	}
	err := s.searchRuns(ctx, which.Experiments, token, &out)
	return page(out.Runs, out.Next, (*restRun).run), err
}

func (s *restStore) searchRuns(ctx context.Context, experimentIDs []string, token string, out any) error {
	if len(experimentIDs) == 0 {
		return nil
	}
	body := map[string]any{
		"experiment_ids": experimentIDs,
		"max_results":    runsPage,
		"order_by":       []string{"attributes.start_time DESC"},
	}
	if token != "" {
		body["page_token"] = token
	}
	return s.c.API(ctx, "runs/search", nil, body, out)
}

// searchRunsJSON is SearchRuns with the answer's JSON.
func (s *restStore) searchRunsJSON(ctx context.Context, experimentIDs []string, token string) (Page[Run], error) {
	var out struct {
		Runs []json.RawMessage `json:"runs"`
		Next string            `json:"next_page_token"`
	}
	if err := s.searchRuns(ctx, experimentIDs, token, &out); err != nil {
		return Page[Run]{}, err
	}
	p := Page[Run]{Next: out.Next}
	for _, raw := range out.Runs {
		run, err := runOf(raw)
		if err != nil {
			return Page[Run]{}, err
		}
		p.Items = append(p.Items, *run)
	}
	return p, nil
}

// historyPage is how many points of a metric are asked for at a time.
const historyPage = 25_000 // MLflow's own limit

// MetricHistory asks metrics/get-history, which MLflow 2 answers in pages, too.
func (s *restStore) MetricHistory(ctx context.Context, runID, key, token string) (Page[Point], error) {
	var out struct {
		Metrics []Point `json:"metrics"`
		Next    string  `json:"next_page_token"`
	}
	q := search(historyPage, token, "")
	q.Set("run_id", runID)
	q.Set("metric_key", key)
	err := s.c.API(ctx, "metrics/get-history", url.Values(q), nil, &out)
	return Page[Point]{out.Metrics, out.Next}, err
}
