package meta

import (
	"context"
	"net/url"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// promptFilter is the condition of a search for prompts, which leaves them out
// otherwise (mlflow.prompt.registry_utils.add_prompt_filter_string).
const promptFilter = "tag.`" + promptTag + "` = 'true'"

func (s *restStore) SearchPrompts(ctx context.Context, token string) (Page[RegisteredModel], error) {
	var out struct {
		Models []restModel `json:"registered_models"`
		Next   string      `json:"next_page_token"`
	}
	err := s.c.API(ctx, "registered-models/search", search(modelsPage, token, promptFilter), nil, &out)
	p := page(out.Models, out.Next, s.modelOf)
	p.Items = filter(p.Items, func(m *RegisteredModel) bool { return m.Prompt })
	return p, err
}

func (s *restStore) SearchPromptVersions(ctx context.Context, name, token string) (Page[Version], error) {
	return s.searchVersions(ctx, name, token, promptFilter)
}

// restPrompt is a prompt's version. What is missing is what MLflow's client takes it
// for (ModelVersion.from_proto).
type restPrompt struct {
	Name        string   `json:"name"`
	Version     string   `json:"version"`
	Created     rest.Int `json:"creation_timestamp"`
	Updated     rest.Int `json:"last_updated_timestamp"`
	User        string   `json:"user_id"`
	Description *string  `json:"description"`
	Tags        []Pair   `json:"tags"`
	Aliases     []string `json:"aliases"`
}

func (s *restStore) Prompt(ctx context.Context, name, version string) (*Prompt, error) {
	var out struct {
		Version restPrompt `json:"model_version"`
	}
	v := &out.Version
	if err := s.lookUp(ctx, "model-versions/get", url.Values{"name": {name}, "version": {version}}, &out); err != nil {
		return nil, err
	}
	p := &Prompt{
		Name: v.Name, Version: v.Version, Description: v.Description, User: &v.User,
		Created: millis(int64(v.Created)), Updated: millis(int64(v.Updated)), Tags: mapOfPairs(v.Tags), Aliases: v.Aliases,
	}
	return p.orNone(has(nil, "version", name+" "+version, v.Version))
}

func mapOfPairs(pairs []Pair) map[string]string {
	out := make(map[string]string, len(pairs))
	for _, p := range pairs {
		out[p.Key] = p.Value
	}
	return out
}
