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

func scanVersion(rows *sql.Rows) (v Version, err error) {
	var stage, source, status sql.NullString
	var created sql.NullInt64
	err = rows.Scan(&v.Name, &v.Version, &stage, &source, &status, &created, &v.Prompt)
	v.Stage, v.Source, v.Status, v.Created = stage.String, source.String, status.String, millis(created.Int64)
	return v, err
}

// versions begins a statement.
func (v sqlView) versions(where string) string {
	return "SELECT name, version, current_stage, source, " + v.or("model_versions", "status", "'READY'") + ", creation_time, CASE WHEN " + v.isPrompt("model_versions") +
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
	return m, v.fillModel(ctx, m)
}

func scanModel(rows *sql.Rows) (m RegisteredModel, err error) {
	var created sql.NullInt64
	err = rows.Scan(&m.Name, &created, &m.Prompt)
	m.Created = millis(created.Int64)
	return m, err
}

// fillModel adds the latest version of each stage, and the aliases.
func (v sqlView) fillModel(ctx context.Context, m *RegisteredModel) (err error) {
	m.Latest, err = query(ctx, v.db, scanVersion, v.versions(
		"name = ? AND version = (SELECT MAX(l.version) FROM model_versions l WHERE l.name = model_versions.name AND l.current_stage = model_versions.current_stage AND "+v.mine("model_versions", "l")+")"), m.Name)
	if err != nil {
		return err
	}
	m.Aliases = map[string]string{}
	if !v.has("registered_model_aliases", "alias") {
		return nil
	}
	aliases, err := query(ctx, v.db, func(rows *sql.Rows) (jsonPair, error) { return scanPair(rows) }, "SELECT alias, version FROM registered_model_aliases WHERE "+
		v.mine("registered_model_aliases", "registered_model_aliases")+" AND name = ?", m.Name)
	for _, a := range aliases {
		m.Aliases[a.Key] = a.Value
	}
	return err
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
	for i := range p.Items {
		if err == nil {
			err = v.fillModel(ctx, &p.Items[i])
		}
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
