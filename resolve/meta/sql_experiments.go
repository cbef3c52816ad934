package meta

import (
	"context"
	"database/sql"
)

func (v sqlView) experimentColumns() string {
	return "experiment_id, name, " + v.or("experiments", "creation_time", "0") + ", " + v.or("experiments", "artifact_location", "''")
}

// activeExperiments begins a statement.
func (v sqlView) activeExperiments() string {
	return "SELECT " + v.experimentColumns() + " FROM experiments WHERE lifecycle_stage = 'active' AND " + v.mine("experiments", "experiments")
}

func scanExperiment(rows *sql.Rows) (e Experiment, err error) {
	var created sql.NullInt64
	var location sql.NullString
	err = rows.Scan(&e.ID, &e.Name, &created, &location)
	e.Created, e.Location = millis(created.Int64), location.String
	return e, err
}

func (v sqlView) searchExperiments(ctx context.Context, token string) (Page[Experiment], error) {
	return queryPage(ctx, v.db, experimentsPage, token, scanExperiment, v.activeExperiments()+" ORDER BY experiment_id DESC")
}

func (v sqlView) newestExperiments(ctx context.Context, n int) (Page[Experiment], error) {
	e, err := query(ctx, v.db, scanExperiment, v.activeExperiments()+" ORDER BY experiment_id DESC"+v.db.page(0, n))
	return Page[Experiment]{Items: e}, err
}

func (v sqlView) experimentByName(ctx context.Context, name string) (*Experiment, error) {
	return one(ctx, v.db, "experiment", name, scanExperiment, v.activeExperiments()+" AND name = ?", name)
}

const loggedModelColumns = "model_id, name, experiment_id, source_run_id, artifact_location, status, creation_timestamp_ms"

func scanLoggedModel(rows *sql.Rows) (m LoggedModel, err error) {
	var run sql.NullString
	var status, created int64
	err = rows.Scan(&m.ID, &m.Name, &m.ExperimentID, &run, &m.ArtifactURI, &status, &created)
	m.SourceRunID, m.Status, m.Created = run.String, loggedModelStatus(status), millis(created)
	return m, err
}

// loggedModelStatus names a number of LoggedModelStatus (service.proto).
func loggedModelStatus(n int64) string {
	switch n {
	case 1:
		return "LOGGED_MODEL_PENDING"
	case 2:
		return "LOGGED_MODEL_READY"
	case 3:
		return "LOGGED_MODEL_UPLOAD_FAILED"
	}
	return "LOGGED_MODEL_STATUS_UNSPECIFIED"
}

// loggedModels begins a statement.
func (v sqlView) loggedModels() string {
	return "SELECT " + loggedModelColumns + " FROM logged_models WHERE lifecycle_stage <> 'deleted' AND " + v.inMine()
}

func (v sqlView) loggedModel(ctx context.Context, id string) (*LoggedModel, error) {
	if !v.has("logged_models", "model_id") {
		return nil, notFound("logged model", id)
	}
	return one(ctx, v.db, "logged model", id, scanLoggedModel, v.loggedModels()+" AND model_id = ?", id)
}

func (v sqlView) searchLoggedModels(ctx context.Context, experimentIDs []string, runID, token string) (Page[LoggedModel], error) {
	if len(experimentIDs) == 0 || !v.has("logged_models", "model_id") {
		return Page[LoggedModel]{}, nil
	}
	var args []any
	where := " AND experiment_id IN (" + numbers(experimentIDs) + ")"
	if runID != "" {
		where += " AND source_run_id = ?"
		args = append(args, runID)
	}
	return queryPage(ctx, v.db, modelsPage, token, scanLoggedModel, v.loggedModels()+where+" ORDER BY creation_timestamp_ms DESC, model_id", args...)
}
