package meta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// The prompts of a Databricks workspace are in its Unity Catalog, beside its models
// (unity_catalog_prompt_service.proto). They are found by their names alone: a search has to
// name the one schema that it is of.

// unityPrompt is a prompt, or a version of one, which has a number and a template.
type unityPrompt struct {
	Name        string    `json:"name"`
	Version     string    `json:"version"`
	Created     time.Time `json:"creation_timestamp"`
	Description string    `json:"description"`
	Template    string    `json:"template"` // JSON: a text, or the messages of a chat
	Aliases     []struct{ Alias, Version string }
	Tags        []Pair `json:"tags"`
}

// version is it as MLflow's client takes it (proto_to_mlflow_prompt).
func (p *unityPrompt) version() (*Prompt, error) {
	out := &Prompt{Name: p.Name, Version: p.Version, Description: &p.Description, Created: p.Created, Tags: map[string]string{}}
	for _, t := range p.Tags {
		if !strings.HasPrefix(t.Key, "_mlflow") || t.Key == PromptFormat || t.Key == PromptConfig {
			out.Tags[t.Key] = t.Value
		}
	}
	for _, a := range p.Aliases {
		out.Aliases = append(out.Aliases, a.Alias)
	}
	var text string
	switch {
	case json.Unmarshal([]byte(p.Template), &text) == nil:
		out.Tags[PromptText] = text
	case json.Valid([]byte(p.Template)):
		out.Tags[PromptText], out.Tags[PromptType] = p.Template, "chat"
	default:
		return nil, fmt.Errorf("the template of the prompt %s version %s is no JSON of MLflow's", p.Name, p.Version)
	}
	return out, nil
}

// promptAt is the path of a prompt, of whose name nothing but a catalog's prompt has.
func (r *databricksUnity) promptAt(name string) (string, error) {
	_, err := unityName(name)
	return r.below + "prompts/" + url.PathEscape(name), err
}

// prompt gives a prompt by its name.
func (r *databricksUnity) prompt(ctx context.Context, name string) (*RegisteredModel, error) {
	at, err := r.promptAt(name)
	if err != nil {
		return nil, err
	}
	var out unityPrompt
	if err := r.lookUp(ctx, at, nil, &out); err != nil {
		return nil, unityDenied(r.c, err, nil)
	}
	m := &RegisteredModel{Name: out.Name, Created: out.Created, Aliases: map[string]string{}, Stageless: true, Prompt: true}
	for _, a := range out.Aliases {
		m.Aliases[a.Alias] = a.Version
	}
	return m, has(nil, "prompt", name, out.Name)
}

func (r *databricksUnity) Prompt(ctx context.Context, name, version string) (*Prompt, error) {
	at, err := r.promptAt(name)
	if err != nil {
		return nil, err
	}
	var out unityPrompt
	if err := r.lookUp(ctx, at+"/versions/"+url.PathEscape(version), nil, &out); err != nil {
		return nil, unityDenied(r.c, err, nil)
	}
	if err := has(nil, "prompt", name+" "+version, out.Version); err != nil {
		return nil, err
	}
	return out.version()
}

func (r *databricksUnity) SearchPromptVersions(ctx context.Context, name, token string) (p Page[Version], err error) {
	at, err := r.promptAt(name)
	if err != nil {
		return p, err
	}
	var out struct {
		Versions []unityPrompt `json:"prompt_versions"`
		Next     string        `json:"next_page_token"`
	}
	body := map[string]any{"name": name, "max_results": modelsPage}
	if token != "" {
		body["page_token"] = token
	}
	err = r.c.API(ctx, at+"/versions/search", nil, body, &out)
	p = page(out.Versions, out.Next, func(v *unityPrompt) Version {
		return Version{Name: v.Name, Version: v.Version, Created: v.Created, Prompt: true}
	})
	p.Items = filter(p.Items, func(v *Version) bool { return v.Name == name })
	return p, unityDenied(r.c, err, nil)
}

// orPrompt is the prompt of a name of which there is no model: the catalog has one list of
// names for both. A workspace that refuses to tell of prompts has none.
func (r *databricksUnity) orPrompt(ctx context.Context, name string, err error) (*RegisteredModel, error) {
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	p, perr := r.prompt(ctx, name)
	if perr != nil && rest.IsAnswer(perr) {
		return nil, fmt.Errorf("%w; nor is it a prompt: %v", err, perr)
	}
	return p, perr
}
