package meta

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
)

// hasRegistry tells whether the database has a model registry; those of MLflow
// before 1.4 have none.
func (v sqlView) hasRegistry() bool { return v.has("model_versions", "name") }

// isPrompt is the condition that the model of a row of table is a prompt.
func (v sqlView) isPrompt(table string) string {
	if !v.has("registered_model_tags", "key") {
		return never
	}
	return "EXISTS (SELECT 1 FROM registered_model_tags t WHERE " + v.mine("registered_model_tags", "t") +
		" AND t.name = " + table + `.name AND t."key" = '` + promptTag + "' AND t.value = 'true')"
}

func scanVersion(rows *sql.Rows) (Version, error) { return scanVersionAfter(rows) }

// scanVersionAfter reads a version, and what stands before it.
func scanVersionAfter(rows *sql.Rows, before ...any) (v Version, err error) {
	var stage, source, status sql.NullString
	var created sql.NullInt64
	err = rows.Scan(append(before, &v.Name, &v.Version, &stage, &source, &status, &created, &v.Prompt)...)
	v.Stage, v.Source, v.Status, v.Created = stage.String, source.String, status.String, millis(created.Int64)
	return v, err
}

// versions begins a statement.
func (v sqlView) versions(where string) string { return "SELECT " + v.versionsWhere(where) }

// versionsWhere is versions behind its SELECT.
func (v sqlView) versionsWhere(where string) string {
	return "name, version, current_stage, source, " + v.or("model_versions", "status", "'READY'") + ", creation_time, CASE WHEN " + v.isPrompt("model_versions") +
		" THEN 1 ELSE 0 END FROM model_versions WHERE current_stage <> '" + deletedStage + "' AND " + v.mine("model_versions", "model_versions") + " AND " + where
}

// models begins a statement.
func (v sqlView) models(where string) string {
	return "SELECT name, creation_time, CASE WHEN " + v.isPrompt("registered_models") + " THEN 1 ELSE 0 END FROM registered_models WHERE " + v.mine("registered_models", "registered_models") + " AND " + where
}

func (v sqlView) registeredModel(ctx context.Context, name string) (*RegisteredModel, error) {
	if !v.hasRegistry() {
		return nil, notFound("registered model", name)
	}
	m, err := one(ctx, v.db, "registered model", name, scanModel, v.models("name = ?"), name)
	if err != nil {
		return nil, err
	}
	models := []RegisteredModel{*m}
	err = v.fillModels(ctx, models)
	return &models[0], err
}

func scanModel(rows *sql.Rows) (m RegisteredModel, err error) {
	var created sql.NullInt64
	err = rows.Scan(&m.Name, &created, &m.Prompt)
	m.Created = millis(created.Int64)
	return m, err
}

// fillModels adds the latest version of each stage, and the aliases: by as many statements
// for all models as for one.
func (v sqlView) fillModels(ctx context.Context, models []RegisteredModel) error {
	names, at := make([]string, len(models)), make(map[string]*RegisteredModel, len(models))
	for i := range models {
		m := &models[i]
		m.Aliases = map[string]string{}
		names[i], at[m.Name] = m.Name, m
	}
	in, args := textPlaceholders(names)
	latest, err := query(ctx, v.db, ofRun(scanVersionAfter), "SELECT "+v.modelOf("model_versions")+", "+v.versionsWhere(
		"name IN ("+in+") AND version = (SELECT MAX(l.version) FROM model_versions l WHERE l.name = model_versions.name AND l.current_stage = model_versions.current_stage AND "+v.mine("model_versions", "l")+")"), args...)
	if err != nil {
		return err
	}
	for _, l := range latest {
		if m := at[l.run]; m != nil {
			m.Latest = append(m.Latest, l.row)
		}
	}
	if !v.has("registered_model_aliases", "alias") {
		return nil
	}
	aliases, err := query(ctx, v.db, ofRun(scanPair), "SELECT "+v.modelOf("registered_model_aliases")+", alias, version FROM registered_model_aliases WHERE "+
		v.mine("registered_model_aliases", "registered_model_aliases")+" AND name IN ("+in+")", args...)
	for _, a := range aliases {
		if m := at[a.run]; m != nil {
			m.Aliases[a.row.Key] = a.row.Value
		}
	}
	return err
}

// modelOf is the name of the registered model that a row of table is of, as the model has
// it: where case does not matter to the database, the row may have it in another.
func (v sqlView) modelOf(table string) string {
	return "(SELECT m.name FROM registered_models m WHERE m.name = " + table + ".name AND " + v.mine("registered_models", "m") + ")"
}

// searchRegisteredModels leaves prompts out, as MLflow's search does.
func (v sqlView) searchRegisteredModels(ctx context.Context, token string) (Page[RegisteredModel], error) {
	return v.searchModels(ctx, token, "NOT "+v.isPrompt("registered_models"))
}

// searchModels gives the registered models of which a condition is true.
func (v sqlView) searchModels(ctx context.Context, token, where string) (Page[RegisteredModel], error) {
	if !v.hasRegistry() {
		return Page[RegisteredModel]{}, nil
	}
	p, err := queryPage(ctx, v.db, modelsPage, token, scanModel, v.models(where)+" ORDER BY name")
	if err == nil && len(p.Items) > 0 {
		err = v.fillModels(ctx, p.Items)
	}
	return p, err
}

// number is a version's number; false where there can be no such version.
func (v sqlView) number(version string) (int64, bool) {
	n, err := strconv.ParseInt(version, 10, 64)
	return n, err == nil && v.hasRegistry()
}

func (v sqlView) version(ctx context.Context, name, version string) (*Version, error) {
	n, ok := v.number(version)
	if !ok {
		return nil, notFound("model version", name+"/"+version)
	}
	out, err := one(ctx, v.db, "model version", name+"/"+version, scanVersion, v.versions("name = ? AND version = ?"), name, n)
	if err == nil {
		out.URI, err = v.downloadURI(ctx, name, n)
	}
	return out, err
}

func (v sqlView) searchVersions(ctx context.Context, name, token string) (Page[Version], error) {
	if !v.hasRegistry() {
		return Page[Version]{}, nil
	}
	return queryPage(ctx, v.db, versionsPage, token, scanVersion, v.versions("name = ?")+" ORDER BY version DESC", name)
}

func (v sqlView) downloadURI(ctx context.Context, name string, number int64) (string, error) {
	u, err := one(ctx, v.db, "model version", fmt.Sprint(name, "/", number), func(rows *sql.Rows) (u string, err error) {
		var location, source sql.NullString
		err = rows.Scan(&location, &source)
		if u = location.String; u == "" {
			u = source.String
		}
		return u, err
	}, "SELECT "+v.or("model_versions", "storage_location", "NULL")+", source FROM model_versions WHERE "+v.mine("model_versions", "model_versions")+" AND name = ? AND version = ?", name, number)
	if err != nil {
		return "", err
	}
	return *u, nil
}
