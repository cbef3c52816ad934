package meta

import (
	"context"
	"database/sql"
)

func (s *sqlStore) SearchPrompts(ctx context.Context, token string) (Page[RegisteredModel], error) {
	return ask(ctx, s, func(ctx context.Context, v sqlView) (Page[RegisteredModel], error) {
		return v.searchPrompts(ctx, token)
	})
}

func (s *sqlStore) Prompt(ctx context.Context, name, version string) (*Prompt, error) {
	return ask(ctx, s, func(ctx context.Context, v sqlView) (*Prompt, error) { return v.prompt(ctx, name, version) })
}

func (s *sqlStore) SearchPromptVersions(ctx context.Context, name, token string) (Page[Version], error) {
	return s.SearchVersions(ctx, name, token)
}

func (v sqlView) searchPrompts(ctx context.Context, token string) (Page[RegisteredModel], error) {
	if !v.has("registered_model_tags", "key") {
		return Page[RegisteredModel]{}, nil
	}
	return v.searchModels(ctx, token, v.isPrompt("registered_models"))
}

func (v sqlView) prompt(ctx context.Context, name, version string) (*Prompt, error) {
	n, ok := v.number(version)
	if !ok || !v.has("model_version_tags", "key") {
		return nil, notFound("prompt", name+"/"+version)
	}
	p, err := one(ctx, v.db, "prompt", name+"/"+version, scanPrompt,
		"SELECT model_versions.description, "+v.or("model_versions", "user_id", "NULL")+", model_versions.creation_time, model_versions.last_updated_time FROM model_versions"+
			" WHERE model_versions.current_stage <> '"+deletedStage+"' AND "+v.mine("model_versions", "model_versions")+
			" AND model_versions.name = ? AND model_versions.version = ?", name, n)
	if err != nil {
		return nil, err
	}
	p.Name, p.Version, p.Tags = name, version, map[string]string{}
	tags, err := query(ctx, v.db, func(rows *sql.Rows) (jsonPair, error) { return scanPair(rows) },
		`SELECT t."key", t.value FROM model_version_tags t WHERE `+v.mine("model_version_tags", "t")+" AND t.name = ? AND t.version = ?", name, n)
	for _, t := range tags {
		p.Tags[t.Key] = t.Value
	}
	if err == nil && v.has("registered_model_aliases", "alias") {
		p.Aliases, err = query(ctx, v.db, scanOneText, "SELECT a.alias FROM registered_model_aliases a WHERE "+
			v.mine("registered_model_aliases", "a")+" AND a.name = ? AND a.version = ? ORDER BY a.alias", name, n)
	}
	return p.orNone(err)
}

func scanPrompt(rows *sql.Rows) (p Prompt, err error) {
	var description, user sql.NullString
	var created, updated sql.NullInt64
	err = rows.Scan(&description, &user, &created, &updated)
	p.Description, p.User = textOrNil(description), textOrNil(user)
	p.Created, p.Updated = millis(created.Int64), millis(updated.Int64)
	return p, err
}

func textOrNil(s sql.NullString) *string {
	if !s.Valid {
		return nil
	}
	return &s.String
}

func scanOneText(rows *sql.Rows) (s string, err error) {
	err = rows.Scan(&s)
	return s, err
}
