package meta

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
)

func (s *fileStore) SearchPrompts(context.Context, string) (Page[RegisteredModel], error) {
	return s.registered(true)
}

func (s *fileStore) SearchPromptVersions(ctx context.Context, name, token string) (Page[Version], error) {
	return s.SearchVersions(ctx, name, token)
}

type metaPrompt struct {
	Stage       string  `yaml:"current_stage"`
	Description *string `yaml:"description"`
	User        *string `yaml:"user_id"`
	Created     int64   `yaml:"creation_timestamp"`
	Updated     int64   `yaml:"last_updated_timestamp"`
}

func (s *fileStore) Prompt(_ context.Context, name, version string) (*Prompt, error) {
	if !valid(name) || !isDigits(version) {
		return nil, notFound("prompt", name+"/"+version)
	}
	return askFiles(s, func(v fileView) (*Prompt, error) {
		dir := path.Join(modelsDir, name, "version-"+version)
		var m metaPrompt
		err := v.readYAML(path.Join(dir, metaFile), &m)
		if errors.Is(err, fs.ErrNotExist) || m.Stage == deletedStage {
			err = notFound("prompt", name+"/"+version)
		}
		if err != nil {
			return nil, err
		}
		p := &Prompt{
			Name: name, Version: version, Description: m.Description, User: m.User,
			Created: millis(m.Created), Updated: millis(m.Updated), Tags: map[string]string{},
		}
		for _, tag := range v.pairs(path.Join(dir, "tags")) {
			p.Tags[tag.Key] = tag.Value
		}
		for alias, of := range v.aliases(name) {
			if of == version {
				p.Aliases = append(p.Aliases, alias)
			}
		}
		slices.Sort(p.Aliases)
		return p.orNone(nil)
	})
}

// aliases are those of a registered model, with their versions.
func (v fileView) aliases(name string) map[string]string {
	out := map[string]string{}
	dir := path.Join(modelsDir, name, "aliases")
	names, err := v.children(dir, anyFile)
	v.passed.unless(dir, err, false)
	for _, a := range names {
		part := path.Join(dir, a)
		b, err := v.readFile(part)
		if !v.passed.unless(part, err, false) {
			out[a] = strings.TrimSpace(string(b))
		}
	}
	return out
}
