package meta

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

func (s *sqlStore) Trace(ctx context.Context, id string) (*Trace, error) {
	return ask(ctx, s, func(ctx context.Context, v sqlView) (*Trace, error) { return v.trace(ctx, id) })
}

func (s *sqlStore) SearchTraces(ctx context.Context, experimentID, token string) (Page[Trace], error) {
	return ask(ctx, s, func(ctx context.Context, v sqlView) (Page[Trace], error) {
		return v.searchTraces(ctx, experimentID, token)
	})
}

// The columns of a trace that hold what its metadata held before them, and the keys in
// what they hold (mlflow.store.tracking.utils.trace_analytics).
var (
	tokenColumns = []string{"input_tokens", "output_tokens", "total_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation_input_tokens_above_1hr"}
	costColumns  = []string{"input_cost", "output_cost", "total_cost"}
)

const (
	traceSession = "mlflow.trace.session"
	tokenUsage   = "mlflow.trace.tokenUsage"
	traceCost    = "mlflow.trace.cost"
)

// traceColumns are what scanTrace reads.
func (v sqlView) traceColumns() string {
	columns := []string{"t.request_id", "t.experiment_id", "t.timestamp_ms", "t.execution_time_ms", "t.status"}
	for _, c := range append(append([]string{"client_request_id", "request_preview", "response_preview", "trace_name", "session_id"}, tokenColumns...), costColumns...) {
		if v.has("trace_info", c) {
			columns = append(columns, "t."+c)
		} else {
			columns = append(columns, "NULL")
		}
	}
	return strings.Join(columns, ", ")
}

func scanTrace(rows *sql.Rows) (j jsonTrace, err error) {
	var experiment, status string
	var at int64
	var duration sql.NullInt64
	var client, request, response, name, session sql.NullString
	tokens, costs := make([]sql.NullInt64, len(tokenColumns)), make([]sql.NullFloat64, len(costColumns))
	to := []any{&j.ID, &experiment, &at, &duration, &status, &client, &request, &response, &name, &session}
	for i := range tokens {
		to = append(to, &tokens[i])
	}
	for i := range costs {
		to = append(to, &costs[i])
	}
	if err = rows.Scan(to...); err != nil {
		return j, err
	}
	j.setExperiment(experiment)
	j.Time = protoTime(at)
	if duration.Valid {
		j.Duration = &duration.Int64
	}
	j.State, j.Client, j.Request, j.Response = stateOf(status), textOrNil(client), textOrNil(request), textOrNil(response)
	j.Tags, j.Metadata = map[string]string{}, map[string]string{}
	putIf(j.Tags, traceName, name)
	putIf(j.Metadata, traceSession, session)
	putIf(j.Metadata, tokenUsage, pythonObject(tokenColumns, func(i int) (string, bool) {
		return strconv.FormatInt(tokens[i].Int64, 10), tokens[i].Valid
	}))
	putIf(j.Metadata, traceCost, pythonObject(costColumns, func(i int) (string, bool) {
		return pythonFloat(costs[i].Float64), costs[i].Valid
	}))
	return j, nil
}

// putIf puts a value that there is.
func putIf(m map[string]string, key string, value sql.NullString) {
	if value.Valid {
		m[key] = value.String
	}
}

// pythonObject is what json.dumps makes of a dict of those values that there are.
func pythonObject(keys []string, value func(int) (string, bool)) sql.NullString {
	var items []string
	for i, k := range keys {
		if v, ok := value(i); ok {
			items = append(items, `"`+k+`": `+v)
		}
	}
	return sql.NullString{String: "{" + strings.Join(items, ", ") + "}", Valid: len(items) > 0}
}

// pythonFloat writes a number as Python's repr does.
func pythonFloat(f float64) string {
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

func (v sqlView) trace(ctx context.Context, id string) (*Trace, error) {
	if !v.has("trace_info", "request_id") || !ValidTraceID(id) {
		return nil, notFound("trace", id)
	}
	j, err := one(ctx, v.db, "trace", id, scanTrace, "SELECT "+v.traceColumns()+" FROM trace_info t WHERE t.request_id = ? AND "+v.inMineOf("t"), id)
	if err != nil {
		return nil, err
	}
	p, err := v.fillTraces(ctx, []jsonTrace{*j}, "")
	if err != nil {
		return nil, err
	}
	return &p.Items[0], nil
}

// inMineOf is the condition that a row of a table by the name alias is of an experiment
// of this workspace.
func (v sqlView) inMineOf(alias string) string {
	if !v.has("experiments", "workspace") {
		return v.mine("experiments", "")
	}
	return alias + ".experiment_id IN (SELECT e.experiment_id FROM experiments e WHERE " + v.mine("experiments", "e") + ")"
}

func (v sqlView) searchTraces(ctx context.Context, experimentID, token string) (Page[Trace], error) {
	if !v.has("trace_info", "request_id") {
		return Page[Trace]{}, nil
	}
	after, args := afterTrace(token)
	found, err := queryPage(ctx, v.db, tracesPage, "", scanTrace, "SELECT "+v.traceColumns()+" FROM trace_info t WHERE t.experiment_id IN ("+numbers([]string{experimentID})+") AND "+v.inMineOf("t")+after+
		" ORDER BY t.timestamp_ms DESC, t.request_id DESC", args...)
	if err != nil || len(found.Items) == 0 {
		return Page[Trace]{}, err
	}
	next := ""
	if last := found.Items[len(found.Items)-1]; found.Next != "" {
		next = last.Time + " " + last.ID
	}
	return v.fillTraces(ctx, found.Items, next)
}

// afterTrace is the condition of the page of a token, which names a trace: one that is
// begun meanwhile moves none to another page.
func afterTrace(token string) (condition string, args []any) {
	at, id, ok := strings.Cut(token, " ")
	t, err := time.Parse(time.RFC3339Nano, at)
	if !ok || err != nil {
		return "", nil
	}
	ms := t.UnixMilli()
	return " AND (t.timestamp_ms < ? OR t.timestamp_ms = ? AND t.request_id < ?)", []any{ms, ms, id}
}

// fillTraces adds tags, metadata and assessments, by as many statements as for one.
func (v sqlView) fillTraces(ctx context.Context, found []jsonTrace, next string) (Page[Trace], error) {
	ids, at := make([]string, len(found)), map[string]*jsonTrace{}
	for i := range found {
		ids[i] = found[i].ID
		at[found[i].ID] = &found[i]
	}
	in, args := textPlaceholders(ids)
	fill := func(table string, into func(*jsonTrace) map[string]string, column map[string]bool) error {
		if !v.has(table, "request_id") {
			return nil
		}
		rows, err := query(ctx, v.db, ofRun(scanPair), `SELECT p.request_id, p."key", p.value FROM `+table+" p WHERE p.request_id IN ("+in+")", args...)
		for _, r := range rows {
			if j := at[r.run]; j != nil && !column[r.row.Key] {
				into(j)[r.row.Key] = r.row.Value
			}
		}
		return err
	}
	inColumns := map[string]bool{traceName: v.has("trace_info", "trace_name")}
	for _, key := range []string{traceSession, tokenUsage, traceCost} {
		inColumns[key] = v.has("trace_info", "session_id")
	}
	err := errors.Join(
		fill("trace_tags", func(j *jsonTrace) map[string]string { return j.Tags }, inColumns),
		fill("trace_request_metadata", func(j *jsonTrace) map[string]string { return j.Metadata }, inColumns),
		v.assessments(ctx, in, args, at))
	if err != nil {
		return Page[Trace]{}, err
	}
	return tracesOf(found, next, (*jsonTrace).trace)
}
