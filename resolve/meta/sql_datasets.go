package meta

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"strconv"
	"strings"
)

func (s *sqlStore) SearchDatasets(ctx context.Context, token string) (Page[Dataset], error) {
	return ask(ctx, s, func(ctx context.Context, v sqlView) (Page[Dataset], error) { return v.searchDatasets(ctx, token) })
}

func (s *sqlStore) DatasetRecords(ctx context.Context, id, token string) (Page[string], error) {
	return ask(ctx, s, func(ctx context.Context, v sqlView) (Page[string], error) { return v.datasetRecords(ctx, id, token) })
}

func (v sqlView) searchDatasets(ctx context.Context, token string) (Page[Dataset], error) {
	if !v.has("evaluation_datasets", "dataset_id") {
		return Page[Dataset]{}, nil
	}
	return queryPage(ctx, v.db, datasetsPage, token, func(rows *sql.Rows) (d Dataset, err error) {
		var created, updated sql.NullInt64
		err = rows.Scan(&d.ID, &d.Name, &created, &updated)
		d.Created, d.Updated = millis(created.Int64), millis(updated.Int64)
		return d, err
	}, "SELECT d.dataset_id, d.name, d.created_time, d.last_update_time FROM evaluation_datasets d WHERE "+v.mine("evaluation_datasets", "d")+" ORDER BY d.created_time, d.dataset_id")
}

// record is a row of records with its place among the others.
type record struct {
	created int64
	id      string
	text    string
}

// jsonRecord is a record in the shape of DatasetRecord.to_dict. What is JSON in the
// database is taken as it is: Python's has NaN.
type jsonRecord struct{ fields []string }

func (j *jsonRecord) text(key string, value sql.NullString) {
	if value.Valid {
		b, _ := marshal(value.String) // can't fail: it is a text
		j.raw(key, string(b))
	}
}

func (j *jsonRecord) raw(key, value string) {
	if value != "" && value != "null" {
		j.fields = append(j.fields, strconv.Quote(key)+": "+value)
	}
}

func (j *jsonRecord) String() string { return "{" + strings.Join(j.fields, ", ") + "}" }

// scanRecord makes what SqlEvaluationDatasetRecord.to_mlflow_entity makes of a row.
func scanRecord(rows *sql.Rows) (r record, err error) {
	var dataset, inputs string
	var outputs, expectations, tags, source, sourceID, createdBy, updatedBy sql.NullString
	var updated sql.NullInt64
	if err = rows.Scan(&r.id, &dataset, &r.created, &updated, &inputs, &outputs, &expectations, &tags, &source, &sourceID, &createdBy, &updatedBy); err != nil {
		return r, err
	}
	var from struct {
		Type string `json:"source_type"`
		Data struct {
			Trace string `json:"trace_id"`
			ID    string `json:"source_id"`
		} `json:"source_data"`
	}
	if source.Valid && json.Unmarshal([]byte(source.String), &from) == nil {
		id := from.Data.ID
		if from.Type == "TRACE" {
			id = from.Data.Trace
		}
		id = cmp.Or(sourceID.String, id)
		sourceID = sql.NullString{String: id, Valid: id != ""}
	}
	var j jsonRecord
	j.text("dataset_record_id", sql.NullString{String: r.id, Valid: true})
	j.text("dataset_id", sql.NullString{String: dataset, Valid: true})
	j.raw("inputs", inputs)
	j.raw("created_time", strconv.FormatInt(r.created, 10))
	j.raw("last_update_time", strconv.FormatInt(updated.Int64, 10))
	j.raw("outputs", unwrapped(outputs.String))
	j.raw("expectations", expectations.String)
	if j.raw("tags", tags.String); !tags.Valid || tags.String == "null" {
		j.raw("tags", "{}")
	}
	j.raw("source", source.String)
	j.text("source_id", sourceID)
	j.text("source_type", sql.NullString{String: from.Type, Valid: from.Type != ""})
	j.text("created_by", createdBy)
	j.text("last_updated_by", updatedBy)
	r.text = strings.NewReplacer("\n", " ", "\r", " ").Replace(j.String())
	return r, nil
}

// unwrapped is what MLflow wrapped to keep it, an object of one key
// (DATASET_RECORD_WRAPPED_OUTPUT_KEY); empty where it is none.
func unwrapped(outputs string) string {
	rest, ok := strings.CutPrefix(strings.TrimSpace(outputs), `{"mlflow_wrapped":`)
	if !ok {
		return ""
	}
	return strings.TrimSpace(strings.TrimSuffix(rest, "}"))
}

// datasetRecords gives records in MLflow's order (_load_dataset_records). The token names
// the last of the page before.
func (v sqlView) datasetRecords(ctx context.Context, id, token string) (Page[string], error) {
	if !v.has("evaluation_dataset_records", "dataset_id") {
		return Page[string]{}, notFound("dataset", id)
	}
	args, after := []any{id}, ""
	if at, last, ok := strings.Cut(token, " "); ok {
		created, err := strconv.ParseInt(at, 10, 64)
		if err != nil {
			return Page[string]{}, err
		}
		after = " AND (r.created_time > ? OR r.created_time = ? AND r.dataset_record_id > ?)"
		args = append(args, created, created, last)
	}
	found, err := queryPage(ctx, v.db, recordsPage, "", scanRecord, "SELECT r.dataset_record_id, r.dataset_id, r.created_time, r.last_update_time, r.inputs, "+
		v.or("evaluation_dataset_records", "outputs", "NULL")+", r.expectations, r.tags, r.source, r.source_id, r.created_by, r.last_updated_by FROM evaluation_dataset_records r"+
		" WHERE r.dataset_id IN (SELECT d.dataset_id FROM evaluation_datasets d WHERE d.dataset_id = ? AND "+v.mine("evaluation_datasets", "d")+")"+after+
		" ORDER BY r.created_time, r.dataset_record_id", args...)
	var p Page[string]
	for _, r := range found.Items {
		p.Items = append(p.Items, r.text)
	}
	if found.Next != "" {
		last := found.Items[len(found.Items)-1]
		p.Next = strconv.FormatInt(last.created, 10) + " " + last.id
	}
	return p, err
}
