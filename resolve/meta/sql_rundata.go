package meta

import (
	"context"
	"database/sql"
	"encoding/json"
)

// runsOf reads of several runs at once: as many statements as of one.
type runsOf struct {
	sqlView
	in  string // an IN list of their ids
	ids []any
}

// fillJSON gives runs the JSON that a tracking server on this database answers to
// runs/get.
func (v sqlView) fillJSON(ctx context.Context, runs []Run) error {
	ids := make([]string, len(runs))
	for i := range runs {
		ids[i] = runs[i].ID
	}
	docs := make(map[string]*jsonRunDoc, len(runs))
	for i := range runs {
		docs[runs[i].ID] = jsonRun(&runs[i], "", "")
	}
	o := runsOf{sqlView: v}
	o.in, o.ids = textPlaceholders(ids)
	for _, fill := range []func(context.Context, map[string]*jsonRunDoc) error{o.infos, o.params, o.tags, o.metrics, o.datasets, o.models} {
		if err := fill(ctx, docs); err != nil {
			return err
		}
	}
	for i := range runs {
		var err error
		if runs[i].JSON, err = json.Marshal(docs[runs[i].ID]); err != nil {
			return err
		}
	}
	return nil
}

// owned is a row that is of a run, or of a trace or a model.
type owned[T any] struct {
	run string // the id of what it is of
	row T
}

// ofRun reads the id of a run, or of what else the row is of, and behind it what scan does.
func ofRun[T any](scan func(rows *sql.Rows, before ...any) (T, error)) func(*sql.Rows) (owned[T], error) {
	return func(rows *sql.Rows) (o owned[T], err error) {
		o.row, err = scan(rows, &o.run)
		return o, err
	}
}

// each reads the rows of a statement about the runs, and gives each to its run's
// document.
func each[T any](ctx context.Context, o runsOf, docs map[string]*jsonRunDoc, scan func(*sql.Rows) (owned[T], error), take func(*jsonRunDoc, T), stmt string) error {
	rows, err := query(ctx, o.db, scan, stmt, o.ids...)
	for _, r := range rows {
		if d := docs[r.run]; d != nil {
			take(d, r.row)
		}
	}
	return err
}

func (o runsOf) infos(ctx context.Context, docs map[string]*jsonRunDoc) error {
	type info struct{ user, stage sql.NullString }
	return each(ctx, o, docs, func(rows *sql.Rows) (i owned[info], err error) {
		err = rows.Scan(&i.run, &i.row.user, &i.row.stage)
		return i, err
	}, func(d *jsonRunDoc, i info) { d.Info.UserID, d.Info.LifecycleStage = i.user.String, i.stage.String },
		"SELECT run_uuid, user_id, lifecycle_stage FROM runs WHERE run_uuid IN ("+o.in+")")
}

func (o runsOf) params(ctx context.Context, docs map[string]*jsonRunDoc) error {
	return each(ctx, o, docs, ofRun(scanPair), func(d *jsonRunDoc, p jsonPair) { d.Data.Params = append(d.Data.Params, p) },
		`SELECT run_uuid, "key", value FROM params WHERE run_uuid IN (`+o.in+`) ORDER BY "key"`)
}

func (o runsOf) tags(ctx context.Context, docs map[string]*jsonRunDoc) error {
	return each(ctx, o, docs, ofRun(scanPair), func(d *jsonRunDoc, p jsonPair) { d.Data.Tags = append(d.Data.Tags, p) },
		`SELECT run_uuid, "key", value FROM tags WHERE run_uuid IN (`+o.in+`) ORDER BY "key"`)
}

// metrics gives the last point of each metric. Those of MLflow before 1.2 have no
// table of them.
func (o runsOf) metrics(ctx context.Context, docs map[string]*jsonRunDoc) error {
	table, order := "latest_metrics", `"key"`
	if !o.has(table, "key") {
		table, order = "metrics", `"key", `+o.metricOrder()
	}
	return each(ctx, o, docs, ofRun(scanMetric), func(d *jsonRunDoc, m jsonMetric) {
		if all := d.Data.Metrics; len(all) > 0 && all[len(all)-1].Key == m.Key {
			all[len(all)-1] = m
			return
		}
		d.Data.Metrics = append(d.Data.Metrics, m)
	}, "SELECT run_uuid, "+o.metricColumns(table)+" FROM "+table+" WHERE run_uuid IN ("+o.in+") ORDER BY "+order)
}

// models gives the models that runs read and made
// (SqlAlchemyStore._get_model_inputs, _get_model_outputs).
func (o runsOf) models(ctx context.Context, docs map[string]*jsonRunDoc) error {
	if !o.has("inputs", "destination_type") {
		return nil
	}
	err := each(ctx, o, docs, func(rows *sql.Rows) (m owned[jsonModelInput], err error) {
		err = rows.Scan(&m.run, &m.row.ModelID)
		return m, err
	}, func(d *jsonRunDoc, m jsonModelInput) { d.Inputs.Models = append(d.Inputs.Models, m) },
		"SELECT source_id, destination_id FROM inputs WHERE source_type = 'RUN_INPUT' AND source_id IN ("+o.in+") AND destination_type = 'MODEL_INPUT' ORDER BY destination_id")
	if err != nil {
		return err
	}
	return each(ctx, o, docs, func(rows *sql.Rows) (m owned[jsonModelOutput], err error) {
		err = rows.Scan(&m.run, &m.row.ModelID, &m.row.Step)
		return m, err
	}, func(d *jsonRunDoc, m jsonModelOutput) {
		if d.Outputs == nil {
			d.Outputs = &jsonOutputs{}
		}
		d.Outputs.ModelOutputs = append(d.Outputs.ModelOutputs, m)
	},
		"SELECT source_id, destination_id, "+o.or("inputs", "step", "0")+" FROM inputs WHERE source_type = 'RUN_OUTPUT' AND source_id IN ("+o.in+") AND destination_type = 'MODEL_OUTPUT'")
}

// datasets gives the runs' datasets (SqlAlchemyStore._get_run_inputs).
func (o runsOf) datasets(ctx context.Context, docs map[string]*jsonRunDoc) error {
	if !o.has("inputs", "destination_type") || !o.has("datasets", "dataset_uuid") {
		return nil
	}
	tags := map[string][]jsonPair{} // of inputs
	if o.has("input_tags", "input_uuid") {
		all, err := query(ctx, o.db, ofRun(scanPair), "SELECT input_uuid, name, value FROM input_tags WHERE input_uuid IN (SELECT input_uuid FROM inputs WHERE destination_type = 'RUN' AND destination_id IN ("+o.in+")) ORDER BY name", o.ids...)
		if err != nil {
			return err
		}
		for _, t := range all {
			tags[t.run] = append(tags[t.run], t.row)
		}
	}
	return each(ctx, o, docs, func(rows *sql.Rows) (r owned[jsonDatasetInput], err error) {
		var input string
		var schema, profile sql.NullString
		d := &r.row.Dataset
		err = rows.Scan(&r.run, &input, &d.Name, &d.Digest, &d.SourceType, &d.Source, &schema, &profile)
		d.Schema, d.Profile, r.row.Tags = schema.String, profile.String, tags[input]
		return r, err
	}, func(d *jsonRunDoc, in jsonDatasetInput) { d.Inputs.Datasets = append(d.Inputs.Datasets, in) },
		`SELECT i.destination_id, i.input_uuid, d.name, d.digest, d.dataset_source_type, d.dataset_source, d.dataset_schema, d.dataset_profile
		FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id WHERE i.destination_type = 'RUN' AND i.destination_id IN (`+o.in+`) ORDER BY d.name, d.digest`)
}
