package meta

import (
	"context"
	"time"
)

// promptTag is the tag of what MLflow's prompt registry keeps as a registered
// model and its versions (mlflow.prompt.constants).
const promptTag = "mlflow.prompt.is_prompt"

// The tags of a prompt's version that MLflow's client takes for something else; it shows
// the others as tags.
const (
	PromptText   = "mlflow.prompt.text"
	PromptMark   = promptTag
	PromptType   = "_mlflow_prompt_type"
	PromptFormat = "_mlflow_prompt_response_format"
	PromptConfig = "_mlflow_prompt_model_config"
)

// Prompt is a version of a prompt: a registered model's version that has no files,
// and whose text is a tag.
type Prompt struct {
	Name        string
	Version     string  // decimal digits
	Description *string // the commit message
	User        *string
	Created     time.Time
	Updated     time.Time
	Tags        map[string]string // all of them: its text, type, model's configuration and response's format are among them
	Aliases     []string          // that lead to it
}

// size is what the prompt takes in memory, about.
func (p *Prompt) size() int64 {
	n := 1000
	for k, v := range p.Tags {
		n += len(k) + len(v) + 50
	}
	return int64(n)
}

// isPrompt tells whether tags are of a prompt, or a version of one.
func isPrompt(tags map[string]string) bool { return tags[promptTag] == "true" }

// orNone is what a look-up gives that found p, which may be of a model.
func (p *Prompt) orNone(err error) (*Prompt, error) {
	if err == nil && !isPrompt(p.Tags) {
		err = notFound("prompt", p.Name+"/"+p.Version)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Prompts tells of prompts, which a registry keeps among its models, and which its
// other searches leave out.
type Prompts interface {
	// SearchPrompts gives registered models that are prompts.
	SearchPrompts(ctx context.Context, token string) (Page[RegisteredModel], error)
	// Prompt gives a version of a prompt; a model's is fs.ErrNotExist.
	Prompt(ctx context.Context, name, version string) (*Prompt, error)
	// SearchPromptVersions gives the versions of one prompt.
	SearchPromptVersions(ctx context.Context, name, token string) (Page[Version], error)
}
