package meta

import (
	"cmp"
	"context"
	"database/sql"
	"strconv"
	"strings"
)

// runColumns are what scanRun reads. A name that is only in a tag is the run's,
// too (SqlRun.to_mlflow_entity).
func (v sqlView) runColumns() string {
	tagged := "(SELECT t.value FROM tags t WHERE t.run_uuid = runs.run_uuid AND t.\"key\" = 'mlflow.runName')"
	return "run_uuid, COALESCE(NULLIF(" + v.or("runs", "name", "NULL") + ", ''), " + tagged + "), experiment_id, artifact_uri, status, start_time, end_time"
}

func scanRun(rows *sql.Rows) (r placedRun, err error) {
	var name, experiment, uri, status sql.NullString
	var end sql.NullInt64
	err = rows.Scan(&r.ID, &name, &experiment, &uri, &status, &r.start, &end)
	r.Name, r.ExperimentID, r.ArtifactURI, r.Status = name.String, experiment.String, uri.String, status.String
	r.Start, r.End = millis(r.start.Int64), millis(end.Int64)
	return r, err
}

func (v sqlView) run(ctx context.Context, id string) (*Run, error) {
	r, err := one(ctx, v.db, "run", id, scanRun, "SELECT "+v.runColumns()+" FROM runs WHERE run_uuid = ? AND "+v.inMine(), id)
	if err != nil {
		return nil, err
	}
	runs := []Run{r.Run}
	err = v.fillJSON(ctx, runs)
	return &runs[0], err
}

// How many runs are read at a time, without their JSON and with it: each page looks at all
// of them. The first page is for who wants no more, as ls | head does: it fills what two
// getdents(2) ask for, 178 names with their attributes and 585 alone (32 KiB each), or has
// the columns of a table ([runsPage]).
const (
	sqlRunsPage  = 10_000
	sqlNamesPage = 880
	sqlJSONPage  = 1000
)

func pageSize(which RunQuery, token string) int {
	switch {
	case which.JSON && token == "":
		return runsPage
	case which.JSON:
		return sqlJSONPage
	case token == "":
		return sqlNamesPage
	}
	return sqlRunsPage
}

func (v sqlView) searchRuns(ctx context.Context, which RunQuery, token string) (Page[Run], error) {
	experiments, err := v.own(ctx, which.Experiments)
	if err != nil || len(experiments) == 0 {
		return Page[Run]{}, err
	}
	size := pageSize(which, token)
	if which.JSON && v.db.most > 0 { // fillJSON asks for each by its id
		size = min(size, v.db.most)
	}
	after, args := afterRun(token)
	found, err := query(ctx, v.db, scanRun, v.runsPage(experiments, after, size+1), args...)
	var p Page[Run]
	if len(found) > size {
		found = found[:size]
		p.Next = found[size-1].token()
	}
	for i := range found {
		p.Items = append(p.Items, found[i].Run)
	}
	if err == nil && len(p.Items) > 0 && which.JSON {
		err = v.fillJSON(ctx, p.Items)
	}
	return p, err
}

// runsPage is the statement of a page of the runs of experiments. MLflow has no index of
// start_time, so that a database looks at all runs and sorts them: in the inner statement,
// which therefore has nothing but what they are sorted by, and compares no more than it
// must. sqlite takes the order of a CROSS JOIN for the order in which it reads; PostgreSQL
// would read all of the table a second time, and hash it.
func (v sqlView) runsPage(experiments []string, after string, size int) string {
	order, join := " ORDER BY start_time DESC"+v.db.nullsLast+", run_uuid", "CROSS JOIN runs WHERE runs.run_uuid = of_page.id"
	if v.db.lateral {
		join = "CROSS JOIN LATERAL (SELECT * FROM runs WHERE runs.run_uuid = of_page.id LIMIT 1) runs"
	}
	return "SELECT " + v.runColumns() + " FROM (SELECT run_uuid AS id FROM runs WHERE lifecycle_stage = 'active' AND experiment_id IN (" + numbers(experiments) + ")" + after +
		order + v.db.page(0, size) + ") of_page " + join + order
}

// own gives those of the experiments that are of this workspace. It is asked apart: a
// condition on each run that looks up its experiment costs a third of a page.
func (v sqlView) own(ctx context.Context, ids []string) ([]string, error) {
	mine := v.mine("experiments", "e")
	switch {
	case len(ids) == 0 || mine == never:
		return nil, nil
	case mine == always:
		return ids, nil
	}
	return query(ctx, v.db, scanOneText, "SELECT e.experiment_id FROM experiments e WHERE e.experiment_id IN ("+numbers(ids)+") AND "+mine)
}

// placedRun is a run, and where it stands among others.
type placedRun struct {
	Run
	start sql.NullInt64
}

// token is that of the page behind the run. It names the run, and not how many there
// were: one that is begun meanwhile moves none to another page.
func (r placedRun) token() string {
	if !r.start.Valid {
		return "null " + r.ID
	}
	return strconv.FormatInt(r.start.Int64, 10) + " " + r.ID
}

// afterRun is the condition of the page of a token.
func afterRun(token string) (condition string, args []any) {
	start, id, ok := strings.Cut(token, " ")
	switch s, err := strconv.ParseInt(start, 10, 64); {
	case !ok:
		return "", nil
	case err != nil:
		return " AND start_time IS NULL AND run_uuid > ?", []any{id}
	default:
		return " AND (start_time IS NULL OR start_time < ? OR start_time = ? AND run_uuid > ?)", []any{s, s, id}
	}
}

// numbers gives an IN list of experiments. Their ids are numbers in a database and text
// everywhere else: what is no number is none's.
func numbers(ids []string) string {
	var in []string
	for _, id := range ids {
		if n, err := strconv.ParseInt(id, 10, 64); err == nil {
			in = append(in, strconv.FormatInt(n, 10))
		}
	}
	return cmp.Or(strings.Join(in, ","), "NULL")
}

// textPlaceholders gives an IN list of texts.
func textPlaceholders(texts []string) (string, []any) {
	args := make([]any, len(texts))
	for i, t := range texts {
		args[i] = t
	}
	return marks(args), args
}

// marks are the ? of an IN list.
func marks(args []any) string { return strings.TrimSuffix(strings.Repeat("?,", len(args)), ",") }

// scanPair reads a key with its value, and what stands before them. A value that is NULL
// is empty.
func scanPair(rows *sql.Rows, before ...any) (p jsonPair, err error) {
	var value sql.NullString
	err = rows.Scan(append(before, &p.Key, &value)...)
	p.Value = value.String
	return p, err
}

func (v sqlView) metricColumns(table string) string {
	return `"key", value, "timestamp", ` + v.or(table, "step", "0") + ", " + v.or(table, "is_nan", "0")
}

// metricOrder is the order of a metric's points.
func (v sqlView) metricOrder() string {
	nan := ""
	if v.has("metrics", "is_nan") { // a NaN is kept as 0
		nan = ", is_nan"
	}
	if v.has("metrics", "step") {
		return `step, "timestamp", value` + nan
	}
	return `"timestamp", value` + nan
}

func (v sqlView) metricHistory(ctx context.Context, runID, key, token string) (Page[Point], error) {
	return queryPage(ctx, v.db, historyPage, token, func(rows *sql.Rows) (Point, error) {
		m, err := scanMetric(rows)
		return m.point(), err
	}, "SELECT "+v.metricColumns("metrics")+` FROM metrics WHERE run_uuid = ? AND "key" = ? AND run_uuid IN (SELECT run_uuid FROM runs WHERE `+v.inMine()+") ORDER BY "+v.metricOrder(), runID, key)
}

// scanMetric reads metricColumns, and what stands before them.
func scanMetric(rows *sql.Rows, before ...any) (m jsonMetric, err error) {
	var nan sql.NullBool
	var value sql.NullFloat64
	var timestamp, step sql.NullInt64
	err = rows.Scan(append(before, &m.Key, &value, &timestamp, &step, &nan)...)
	m.Value, m.Timestamp, m.Step = jsonNumber(value.Float64, nan.Bool || !value.Valid), timestamp.Int64, step.Int64
	return m, err
}
