package mlflow

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	_ "modernc.org/sqlite" // the driver "sqlite", without cgo
)

// sqliteStore is a database that MLflow keeps in one sqlite file
// (mlflow.store.dbmodels). It is opened read-only; each question is one short
// statement whose rows are read to the end at once, so that no lock outlives
// it and a writing MLflow is never held up.
type sqliteStore struct {
	db        *sql.DB
	workspace string
	columns   map[string]map[string]bool // table to its columns
}

var _ Store = (*sqliteStore)(nil)

func openSQLite(path, workspace string) (Store, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("the tracking URI names the sqlite file %s, which can't be opened: %w", path, err)
	}
	if st.IsDir() {
		return nil, fmt.Errorf("the tracking URI names the sqlite file %s, which is a directory", path)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	// A writer holds its lock for milliseconds: wait for it rather than fail.
	dsn := (&url.URL{Scheme: "file", Path: abs, RawQuery: "mode=ro&_pragma=busy_timeout(10000)&_pragma=query_only(1)"}).String()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(4)
	s := &sqliteStore{db: db, workspace: workspace, columns: map[string]map[string]bool{}}
	if s.workspace == "" {
		s.workspace = "default"
	}
	if err := s.readSchema(context.Background()); err != nil {
		db.Close()
		return nil, fmt.Errorf("the sqlite file %s can't be read: %w", path, err)
	}
	if !s.has("runs", "run_uuid") {
		db.Close()
		return nil, fmt.Errorf("the sqlite file %s holds no MLflow tables", path)
	}
	return s, nil
}

// readSchema learns what tables and columns there are: they grew over
// MLflow's versions.
func (s *sqliteStore) readSchema(ctx context.Context) error {
	rows, err := query(ctx, s.db, func(r *sql.Rows) (c [2]string, err error) {
		return c, r.Scan(&c[0], &c[1])
	}, `SELECT m.name, p.name FROM sqlite_master m, pragma_table_info(m.name) p WHERE m.type = 'table'`)
	for _, c := range rows {
		if s.columns[c[0]] == nil {
			s.columns[c[0]] = map[string]bool{}
		}
		s.columns[c[0]][c[1]] = true
	}
	return err
}

func (s *sqliteStore) has(table, column string) bool { return s.columns[table][column] }

// or gives column where table has it, else the SQL literal instead.
func (s *sqliteStore) or(table, column, instead string) string {
	if s.has(table, column) {
		return column
	}
	return instead
}

// mine is the condition that a row of table is of this workspace.
func (s *sqliteStore) mine(table string) string { return s.mineAs(table, table) }

func (s *sqliteStore) mineAs(table, alias string) string {
	if s.has(table, "workspace") {
		return alias + ".workspace = '" + strings.ReplaceAll(s.workspace, "'", "''") + "'"
	}
	return "1"
}

// query reads all rows of a statement.
func query[T any](ctx context.Context, db *sql.DB, scan func(*sql.Rows) (T, error), stmt string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, stmt, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// queryPage reads one page of a statement that ends in its ORDER BY.
func queryPage[T any](ctx context.Context, db *sql.DB, size int, token string, scan func(*sql.Rows) (T, error), stmt string, args ...any) (Page[T], error) {
	offset := tokenOffset(token)
	items, err := query(ctx, db, scan, fmt.Sprintf("%s LIMIT %d OFFSET %d", stmt, size+1, offset), args...)
	p := Page[T]{Items: items}
	if len(items) > size {
		p.Items, p.Next = items[:size], offsetToken(offset+size)
	}
	return p, err
}

// one reads the one row of a statement.
func one[T any](ctx context.Context, db *sql.DB, kind, name string, scan func(*sql.Rows) (T, error), stmt string, args ...any) (*T, error) {
	rows, err := query(ctx, db, scan, stmt, args...)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, notFound(kind, name)
	}
	return &rows[0], nil
}

func (s *sqliteStore) Ping(ctx context.Context) error { return s.db.PingContext(ctx) }
func (s *sqliteStore) Close() error                   { return s.db.Close() }

func (s *sqliteStore) runColumns() string {
	return "run_uuid, " + s.or("runs", "name", "''") + ", CAST(experiment_id AS TEXT), artifact_uri, status, start_time, end_time"
}

func scanRun(rows *sql.Rows) (r Run, err error) {
	var name, experiment, uri, status sql.NullString
	var start, end sql.NullInt64
	err = rows.Scan(&r.ID, &name, &experiment, &uri, &status, &start, &end)
	r.Name, r.ExperimentID, r.ArtifactURI, r.Status = name.String, experiment.String, uri.String, status.String
	r.Start, r.End = millis(start.Int64), millis(end.Int64)
	return r, err
}

func (s *sqliteStore) Run(ctx context.Context, id string) (*Run, error) {
	r, err := one(ctx, s.db, "run", id, scanRun, "SELECT "+s.runColumns()+" FROM runs WHERE run_uuid = ?", id)
	if err != nil {
		return nil, err
	}
	r.JSON, err = s.runJSON(ctx, r)
	return r, err
}

// runJSON builds what a tracking server on this database answers to runs/get.
func (s *sqliteStore) runJSON(ctx context.Context, r *Run) ([]byte, error) {
	type info struct{ user, stage sql.NullString }
	i, err := one(ctx, s.db, "run", r.ID, func(rows *sql.Rows) (i info, err error) {
		return i, rows.Scan(&i.user, &i.stage)
	}, "SELECT user_id, lifecycle_stage FROM runs WHERE run_uuid = ?", r.ID)
	if err != nil {
		return nil, err
	}
	out := jsonRun(r, i.user.String, i.stage.String)
	pairs := func(table string) ([]jsonPair, error) {
		return query(ctx, s.db, func(rows *sql.Rows) (p jsonPair, err error) {
			return p, rows.Scan(&p.Key, &p.Value)
		}, "SELECT key, value FROM "+table+" WHERE run_uuid = ? ORDER BY key", r.ID)
	}
	if out.Data.Params, err = pairs("params"); err != nil {
		return nil, err
	}
	if out.Data.Tags, err = pairs("tags"); err != nil {
		return nil, err
	}
	if s.has("latest_metrics", "key") {
		out.Data.Metrics, err = query(ctx, s.db, scanMetric, "SELECT key, value, timestamp, step, is_nan FROM latest_metrics WHERE run_uuid = ? ORDER BY key", r.ID)
		if err != nil {
			return nil, err
		}
	}
	if s.has("inputs", "destination_type") && s.has("inputs", "step") {
		outputs, err := query(ctx, s.db, func(rows *sql.Rows) (o jsonModelOutput, err error) {
			return o, rows.Scan(&o.ModelID, &o.Step)
		}, "SELECT destination_id, step FROM inputs WHERE source_type = 'RUN_OUTPUT' AND source_id = ? AND destination_type = 'MODEL_OUTPUT'", r.ID)
		if err != nil {
			return nil, err
		}
		out.setOutputs(outputs)
	}
	return json.Marshal(out)
}

func (s *sqliteStore) SearchRuns(ctx context.Context, experimentIDs []string, token string) (Page[Run], error) {
	if len(experimentIDs) == 0 {
		return Page[Run]{}, nil
	}
	in, args := placeholders(experimentIDs)
	return queryPage(ctx, s.db, runsPage, token, scanRun,
		"SELECT "+s.runColumns()+" FROM runs WHERE lifecycle_stage = 'active' AND experiment_id IN ("+in+") ORDER BY start_time IS NULL, start_time DESC, run_uuid", args...)
}

func (s *sqliteStore) SearchRunData(ctx context.Context, experimentIDs []string, token string) (Page[Run], error) {
	p, err := s.SearchRuns(ctx, experimentIDs, token)
	for i := range p.Items {
		if err == nil {
			p.Items[i].JSON, err = s.runJSON(ctx, &p.Items[i])
		}
	}
	return p, err
}

func (s *sqliteStore) MetricHistory(ctx context.Context, runID, key, token string) (Page[Point], error) {
	return queryPage(ctx, s.db, historyPage, token, func(rows *sql.Rows) (Point, error) {
		m, err := scanMetric(rows)
		return m.point(), err
	}, "SELECT key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step, timestamp, value", runID, key)
}

func scanMetric(rows *sql.Rows) (m jsonMetric, err error) {
	var nan sql.NullBool
	var v float64
	err = rows.Scan(&m.Key, &v, &m.Timestamp, &m.Step, &nan)
	m.Value = jsonNumber(v, nan.Bool)
	return m, err
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

func (s *sqliteStore) experimentColumns() string {
	return "CAST(experiment_id AS TEXT), name, " + s.or("experiments", "creation_time", "0")
}

func scanExperiment(rows *sql.Rows) (e Experiment, err error) {
	var created sql.NullInt64
	err = rows.Scan(&e.ID, &e.Name, &created)
	e.Created = millis(created.Int64)
	return e, err
}

func (s *sqliteStore) SearchExperiments(ctx context.Context, token string) (Page[Experiment], error) {
	return queryPage(ctx, s.db, experimentsPage, token, scanExperiment,
		"SELECT "+s.experimentColumns()+" FROM experiments WHERE lifecycle_stage = 'active' AND "+s.mine("experiments")+" ORDER BY experiment_id DESC")
}

func (s *sqliteStore) ExperimentByName(ctx context.Context, name string) (*Experiment, error) {
	return one(ctx, s.db, "experiment", name, scanExperiment,
		"SELECT "+s.experimentColumns()+" FROM experiments WHERE lifecycle_stage = 'active' AND "+s.mine("experiments")+" AND name = ?", name)
}

const loggedModelColumns = "model_id, name, CAST(experiment_id AS TEXT), source_run_id, artifact_location, status, creation_timestamp_ms"

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

func (s *sqliteStore) LoggedModel(ctx context.Context, id string) (*LoggedModel, error) {
	if !s.has("logged_models", "model_id") {
		return nil, notFound("logged model", id)
	}
	return one(ctx, s.db, "logged model", id, scanLoggedModel,
		"SELECT "+loggedModelColumns+" FROM logged_models WHERE model_id = ? AND lifecycle_stage <> 'deleted'", id)
}

func (s *sqliteStore) SearchLoggedModels(ctx context.Context, experimentIDs []string, runID, token string) (Page[LoggedModel], error) {
	if len(experimentIDs) == 0 || !s.has("logged_models", "model_id") {
		return Page[LoggedModel]{}, nil
	}
	in, args := placeholders(experimentIDs)
	where := "lifecycle_stage <> 'deleted' AND experiment_id IN (" + in + ")"
	if runID != "" {
		where += " AND source_run_id = ?"
		args = append(args, runID)
	}
	return queryPage(ctx, s.db, modelsPage, token, scanLoggedModel,
		"SELECT "+loggedModelColumns+" FROM logged_models WHERE "+where+" ORDER BY creation_timestamp_ms DESC, model_id", args...)
}

func scanVersion(rows *sql.Rows) (v Version, err error) {
	var stage, source, status sql.NullString
	var created sql.NullInt64
	err = rows.Scan(&v.Name, &v.Version, &stage, &source, &status, &created)
	v.Stage, v.Source, v.Status, v.Created = stage.String, source.String, status.String, millis(created.Int64)
	return v, err
}

func (s *sqliteStore) versions(where string) string {
	return "SELECT name, CAST(version AS TEXT), current_stage, source, status, creation_time FROM model_versions WHERE current_stage <> 'Deleted_Internal' AND " +
		s.mine("model_versions") + " AND " + where
}

func (s *sqliteStore) RegisteredModel(ctx context.Context, name string) (*RegisteredModel, error) {
	m, err := one(ctx, s.db, "registered model", name, scanModel,
		"SELECT name, creation_time FROM registered_models WHERE "+s.mine("registered_models")+" AND name = ?", name)
	if err != nil {
		return nil, err
	}
	return m, s.fillModel(ctx, m)
}

func scanModel(rows *sql.Rows) (m RegisteredModel, err error) {
	var created sql.NullInt64
	err = rows.Scan(&m.Name, &created)
	m.Created = millis(created.Int64)
	return m, err
}

// fillModel adds the latest version of each stage, and the aliases.
func (s *sqliteStore) fillModel(ctx context.Context, m *RegisteredModel) (err error) {
	m.Latest, err = query(ctx, s.db, scanVersion, s.versions(
		"name = ?1 AND version = (SELECT MAX(l.version) FROM model_versions l WHERE l.name = ?1 AND l.current_stage = model_versions.current_stage AND "+s.mineAs("model_versions", "l")+")"), m.Name)
	if err != nil {
		return err
	}
	m.Aliases = map[string]string{}
	if !s.has("registered_model_aliases", "alias") {
		return nil
	}
	aliases, err := query(ctx, s.db, func(rows *sql.Rows) (a [2]string, err error) {
		return a, rows.Scan(&a[0], &a[1])
	}, "SELECT alias, CAST(version AS TEXT) FROM registered_model_aliases WHERE "+s.mine("registered_model_aliases")+" AND name = ?", m.Name)
	for _, a := range aliases {
		m.Aliases[a[0]] = a[1]
	}
	return err
}

func (s *sqliteStore) SearchRegisteredModels(ctx context.Context, token string) (Page[RegisteredModel], error) {
	prompts := "1"
	if s.has("registered_model_tags", "key") {
		// Prompts are registered models with a tag; MLflow's search leaves them out.
		prompts = "NOT EXISTS (SELECT 1 FROM registered_model_tags t WHERE t.name = registered_models.name AND t.key = 'mlflow.prompt.is_prompt' AND t.value = 'true')"
	}
	p, err := queryPage(ctx, s.db, modelsPage, token, scanModel,
		"SELECT name, creation_time FROM registered_models WHERE "+s.mine("registered_models")+" AND "+prompts+" ORDER BY name")
	for i := range p.Items {
		if err == nil {
			err = s.fillModel(ctx, &p.Items[i])
		}
	}
	return p, err
}

func (s *sqliteStore) Version(ctx context.Context, name, version string) (*Version, error) {
	n, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		return nil, notFound("model version", name+"/"+version)
	}
	return one(ctx, s.db, "model version", name+"/"+version, scanVersion, s.versions("name = ? AND version = ?"), name, n)
}

func (s *sqliteStore) SearchVersions(ctx context.Context, name, token string) (Page[Version], error) {
	return queryPage(ctx, s.db, versionsPage, token, scanVersion, s.versions("name = ?")+" ORDER BY version DESC", name)
}

func (s *sqliteStore) DownloadURI(ctx context.Context, name, version string) (string, error) {
	n, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		return "", notFound("model version", name+"/"+version)
	}
	u, err := one(ctx, s.db, "model version", name+"/"+version, func(rows *sql.Rows) (u string, err error) {
		var location, source sql.NullString
		err = rows.Scan(&location, &source)
		if u = location.String; u == "" {
			u = source.String
		}
		return u, err
	}, "SELECT "+s.or("model_versions", "storage_location", "NULL")+", source FROM model_versions WHERE "+s.mine("model_versions")+" AND name = ? AND version = ?", name, n)
	if err != nil {
		return "", err
	}
	return *u, nil
}
