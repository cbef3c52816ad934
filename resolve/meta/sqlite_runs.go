package meta

import (
	"context"
	"database/sql"
	"encoding/json"
	"strconv"
	"strings"
)

// runColumns are what scanRun reads. A name that is only in a tag is the run's,
// too (SqlRun.to_mlflow_entity).
func (v sqlView) runColumns() string {
	tagged := "(SELECT t.value FROM tags t WHERE t.run_uuid = runs.run_uuid AND t.key = 'mlflow.runName')"
	return "run_uuid, COALESCE(NULLIF(" + v.or("runs", "name", "NULL") + ", ''), " + tagged + "), CAST(experiment_id AS TEXT), artifact_uri, status, start_time, end_time"
}

func scanRun(rows *sql.Rows) (r Run, err error) {
	var name, experiment, uri, status sql.NullString
	var start, end sql.NullInt64
	err = rows.Scan(&r.ID, &name, &experiment, &uri, &status, &start, &end)
	r.Name, r.ExperimentID, r.ArtifactURI, r.Status = name.String, experiment.String, uri.String, status.String
	r.Start, r.End = millis(start.Int64), millis(end.Int64)
	return r, err
}

func (v sqlView) run(ctx context.Context, id string) (*Run, error) {
	r, err := one(ctx, v.db, "run", id, scanRun, "SELECT "+v.runColumns()+" FROM runs WHERE run_uuid = ? AND "+v.inMine(), id)
	if err != nil {
		return nil, err
	}
	r.JSON, err = v.runJSON(ctx, r)
	return r, err
}

// sqlRunsPage is how many rows of runs are read at a time, without their JSON: each
// page sorts all of them, and has nothing but the row.
const sqlRunsPage = 10_000

func (v sqlView) searchRuns(ctx context.Context, which RunQuery, token string) (Page[Run], error) {
	if len(which.Experiments) == 0 {
		return Page[Run]{}, nil
	}
	size := sqlRunsPage
	if which.JSON {
		size = runsPage
	}
	in, args := placeholders(which.Experiments)
	p, err := queryPage(ctx, v.db, size, token, scanRun,
		"SELECT "+v.runColumns()+" FROM runs WHERE lifecycle_stage = 'active' AND experiment_id IN ("+in+") AND "+v.inMine()+" ORDER BY start_time IS NULL, start_time DESC, run_uuid", args...)
	for i := range p.Items {
		if err == nil && which.JSON {
			p.Items[i].JSON, err = v.runJSON(ctx, &p.Items[i])
		}
	}
	return p, err
}

// placeholders gives an IN list. Experiment ids are numbers in the database
// and text everywhere else.
func placeholders(ids []string) (string, []any) {
	args := make([]any, 0, len(ids))
	for _, id := range ids {
		if n, err := strconv.ParseInt(id, 10, 64); err == nil {
			args = append(args, n)
		} else {
			args = append(args, id)
		}
	}
	return strings.TrimSuffix(strings.Repeat("?,", len(args)), ","), args
}

// runJSON builds what a tracking server on this database answers to runs/get.
func (v sqlView) runJSON(ctx context.Context, r *Run) ([]byte, error) {
	type info struct{ user, stage sql.NullString }
	i, err := one(ctx, v.db, "run", r.ID, func(rows *sql.Rows) (i info, err error) {
		err = rows.Scan(&i.user, &i.stage)
		return i, err
	}, "SELECT user_id, lifecycle_stage FROM runs WHERE run_uuid = ?", r.ID)
	if err != nil {
		return nil, err
	}
	out := jsonRun(r, i.user.String, i.stage.String)
	if out.Data.Params, err = v.pairs(ctx, "SELECT key, value FROM params WHERE run_uuid = ? ORDER BY key", r.ID); err != nil {
		return nil, err
	}
	if out.Data.Tags, err = v.pairs(ctx, "SELECT key, value FROM tags WHERE run_uuid = ? ORDER BY key", r.ID); err != nil {
		return nil, err
	}
	if out.Data.Metrics, err = v.latestMetrics(ctx, r.ID); err != nil {
		return nil, err
	}
	if err := v.inputsAndOutputs(ctx, r.ID, out); err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

// pairs reads keys with values. A value that is NULL is empty.
func (v sqlView) pairs(ctx context.Context, stmt string, args ...any) ([]jsonPair, error) {
	return query(ctx, v.db, func(rows *sql.Rows) (p jsonPair, err error) {
		var value sql.NullString
		err = rows.Scan(&p.Key, &value)
		p.Value = value.String
		return p, err
	}, stmt, args...)
}

func (v sqlView) metricColumns(table string) string {
	return "key, value, timestamp, " + v.or(table, "step", "0") + ", " + v.or(table, "is_nan", "0")
}

// latestMetrics gives the last point of each metric. Files of MLflow before 1.2
// have no table of them.
func (v sqlView) latestMetrics(ctx context.Context, runID string) ([]jsonMetric, error) {
	if v.has("latest_metrics", "key") {
		return query(ctx, v.db, scanMetric, "SELECT "+v.metricColumns("latest_metrics")+" FROM latest_metrics WHERE run_uuid = ? ORDER BY key", runID)
	}
	all, err := query(ctx, v.db, scanMetric, "SELECT "+v.metricColumns("metrics")+" FROM metrics WHERE run_uuid = ? ORDER BY key, "+v.metricOrder(), runID)
	var last []jsonMetric
	for i, m := range all {
		if i == len(all)-1 || all[i+1].Key != m.Key {
			last = append(last, m)
		}
	}
	return last, err
}

// metricOrder is the order of a metric's points.
func (v sqlView) metricOrder() string {
	if v.has("metrics", "step") {
		return "step, timestamp, value"
	}
	return "timestamp, value"
}

func (v sqlView) metricHistory(ctx context.Context, runID, key, token string) (Page[Point], error) {
	return queryPage(ctx, v.db, historyPage, token, func(rows *sql.Rows) (Point, error) {
		m, err := scanMetric(rows)
		return m.point(), err
	}, "SELECT "+v.metricColumns("metrics")+" FROM metrics WHERE run_uuid = ? AND key = ? AND run_uuid IN (SELECT run_uuid FROM runs WHERE "+v.inMine()+") ORDER BY "+v.metricOrder(), runID, key)
}

func scanMetric(rows *sql.Rows) (m jsonMetric, err error) {
	var nan sql.NullBool
	var value sql.NullFloat64
	var timestamp, step sql.NullInt64
	err = rows.Scan(&m.Key, &value, &timestamp, &step, &nan)
	m.Value, m.Timestamp, m.Step = jsonNumber(value.Float64, nan.Bool || !value.Valid), timestamp.Int64, step.Int64
	return m, err
}

// inputsAndOutputs adds a run's datasets and the models that it read and made
// (SqlAlchemyStore._get_run_inputs, _get_model_inputs, _get_model_outputs).
func (v sqlView) inputsAndOutputs(ctx context.Context, runID string, out *jsonRunDoc) error {
	if !v.has("inputs", "destination_type") {
		return nil
	}
	datasets, err := v.datasetInputs(ctx, runID)
	if err != nil {
		return err
	}
	models, err := query(ctx, v.db, func(rows *sql.Rows) (m jsonModelInput, err error) {
		err = rows.Scan(&m.ModelID)
		return m, err
	}, "SELECT destination_id FROM inputs WHERE source_type = 'RUN_INPUT' AND source_id = ? AND destination_type = 'MODEL_INPUT' ORDER BY destination_id", runID)
	if err != nil {
		return err
	}
	out.Inputs = jsonInputs{datasets, models}
	outputs, err := query(ctx, v.db, func(rows *sql.Rows) (o jsonModelOutput, err error) {
		err = rows.Scan(&o.ModelID, &o.Step)
		return o, err
	}, "SELECT destination_id, "+v.or("inputs", "step", "0")+" FROM inputs WHERE source_type = 'RUN_OUTPUT' AND source_id = ? AND destination_type = 'MODEL_OUTPUT'", runID)
	out.setOutputs(outputs)
	return err
}

func (v sqlView) datasetInputs(ctx context.Context, runID string) ([]jsonDatasetInput, error) {
	if !v.has("datasets", "dataset_uuid") {
		return nil, nil
	}
	type row struct {
		input string
		jsonDatasetInput
	}
	rows, err := query(ctx, v.db, func(rows *sql.Rows) (r row, err error) {
		var schema, profile sql.NullString
		d := &r.Dataset
		err = rows.Scan(&r.input, &d.Name, &d.Digest, &d.SourceType, &d.Source, &schema, &profile)
		d.Schema, d.Profile = schema.String, profile.String
		return r, err
	}, `SELECT i.input_uuid, d.name, d.digest, d.dataset_source_type, d.dataset_source, d.dataset_schema, d.dataset_profile
		FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id WHERE i.destination_type = 'RUN' AND i.destination_id = ? ORDER BY d.name, d.digest`, runID)
	out := make([]jsonDatasetInput, len(rows))
	for i, r := range rows {
		out[i] = r.jsonDatasetInput
		if err == nil && v.has("input_tags", "input_uuid") {
			out[i].Tags, err = v.pairs(ctx, "SELECT name, value FROM input_tags WHERE input_uuid = ? ORDER BY name", r.input)
		}
	}
	return out, err
}
