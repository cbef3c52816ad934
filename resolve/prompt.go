package resolve

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// The files of a version of a prompt. Of the first two it has one, by its type.
const (
	promptTemplate = "template.txt"  // the text, and no more
	promptMessages = "messages.json" // the messages of a chat
	promptCard     = "prompt.json"   // all of it
)

// Prompt gives a version of a prompt.
func (r *Resolver) Prompt(ctx context.Context, name, number string) (*meta.Prompt, error) {
	return r.registry.Prompt(ctx, name, number)
}

// SearchPrompts gives a page of the registry's prompts; none where they are left out.
func (r *Resolver) SearchPrompts(ctx context.Context, token string) (meta.Page[meta.RegisteredModel], error) {
	p, err := r.registry.SearchPrompts(ctx, token)
	if r.LeavesOut(Prompts, "", err) {
		return meta.Page[meta.RegisteredModel]{}, nil
	}
	return p, err
}

// PromptDir is prompts:/<name>/<version>.
func (r *Resolver) PromptDir(ctx context.Context, name, number string) (Dir, error) {
	p, err := r.Prompt(ctx, name, number)
	if err != nil {
		return Dir{}, err
	}
	d := Dir{Mtime: p.Created}
	text := p.Tags[meta.PromptText]
	if messages, ok := indented(text); ok && p.Tags[meta.PromptType] == "chat" {
		d.add(promptMessages, messages, p.Created)
	} else {
		d.add(promptTemplate, text, p.Created)
	}
	card, err := promptJSON(p)
	d.add(promptCard, card, p.Updated)
	return d, err
}

// add puts a file whose content is known into the directory.
func (o *Dir) add(name, content string, mtime time.Time) {
	o.Texts = append(o.Texts, Item{Name: name, Content: content, Size: int64(len(content)), Mtime: mtime})
	slices.SortFunc(o.Texts, func(a, b Item) int { return strings.Compare(a.Name, b.Name) })
}

// promptJSON is a version of a prompt by the names of the arguments that MLflow's
// PromptVersion is made from: PromptVersion(**json.load(file)) is the client's own. A
// tag that holds no JSON where MLflow has some stays among the tags, as it is.
func promptJSON(p *meta.Prompt) (string, error) {
	card := struct {
		Name        string            `json:"name"`
		Version     json.Number       `json:"version"`
		Template    any               `json:"template"`
		Description *string           `json:"commit_message"`
		Created     int64             `json:"creation_timestamp"` // ms since 1970
		Tags        map[string]string `json:"tags"`
		Aliases     []string          `json:"aliases"`
		Updated     *int64            `json:"last_updated_timestamp"`
		User        *string           `json:"user_id"`
		Format      json.RawMessage   `json:"response_format"`
		Config      json.RawMessage   `json:"model_config"`
	}{
		Name: p.Name, Version: json.Number(cmp.Or(p.Version, "0")), Template: p.Tags[meta.PromptText], Description: p.Description,
		Created: millisOf(p.Created), Tags: map[string]string{}, Aliases: p.Aliases, User: p.User,
	}
	if !p.Updated.IsZero() {
		updated := millisOf(p.Updated)
		card.Updated = &updated
	}
	if card.Aliases == nil {
		card.Aliases = []string{}
	}
	for key, value := range p.Tags {
		raw := json.RawMessage(value)
		switch valid := json.Valid(raw); {
		case key == meta.PromptMark || key == meta.PromptType:
		case key == meta.PromptText:
			if valid && p.Tags[meta.PromptType] == "chat" {
				card.Template = raw
			}
		case key == meta.PromptFormat && valid:
			card.Format = raw
		case key == meta.PromptConfig && valid:
			card.Config = raw
		default:
			card.Tags[key] = value
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(card)
	return b.String(), err
}

// indented is JSON as people read it; false where text is none.
func indented(text string) (string, bool) {
	var b bytes.Buffer
	if json.Indent(&b, []byte(text), "", "  ") != nil {
		return "", false
	}
	b.WriteByte('\n')
	return b.String(), true
}

func millisOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
