package meta

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
)

type metaVersion struct {
	Version  int64  `yaml:"version"`
	Stage    string `yaml:"current_stage"`
	Source   string `yaml:"source"`
	Location string `yaml:"storage_location"`
	Status   string `yaml:"status"`
	Created  int64  `yaml:"creation_timestamp"`
}

const deletedStage = "Deleted_Internal"

func (v fileView) readVersion(name, version string) (*Version, *metaVersion, error) {
	var m metaVersion
	if !valid(name) || !isDigits(version) {
		return nil, nil, notFound("model version", name+"/"+version)
	}
	err := v.readYAML(path.Join(modelsDir, name, "version-"+version, metaFile), &m)
	if err == nil && m.Stage == deletedStage {
		err = notFound("model version", name+"/"+version)
	}
	return &Version{
		Name: name, Version: version, Stage: m.Stage, Source: m.Source, Status: m.Status, Created: millis(m.Created), Prompt: v.isPrompt(name),
	}, &m, err
}

// isPrompt tells whether a registered model is a prompt.
func (v fileView) isPrompt(name string) bool {
	b, err := v.readFile(path.Join(modelsDir, name, "tags", promptTag))
	return err == nil && string(b) == "true"
}

func (s *fileStore) Version(_ context.Context, name, version string) (*Version, error) {
	return askFiles(s, func(v fileView) (*Version, error) {
		out, m, err := v.readVersion(name, version)
		if err == nil {
			out.URI, _ = v.moved(cmp.Or(m.Location, m.Source))
		}
		return out, err
	})
}

// versions gives the versions of a registered model, the highest first.
func (v fileView) versions(name string) (out []Version, err error) {
	if !valid(name) {
		return nil, notFound("registered model", name)
	}
	dir := path.Join(modelsDir, name)
	dirs, err := v.children(dir, func(e fs.DirEntry) bool {
		return anyDir(e) && strings.HasPrefix(e.Name(), "version-")
	})
	for _, d := range dirs {
		one, _, err := v.readVersion(name, strings.TrimPrefix(d, "version-"))
		if !v.passed.unless(path.Join(dir, d), err, errors.Is(err, fs.ErrNotExist)) {
			out = append(out, *one)
		}
	}
	slices.SortFunc(out, func(a, b Version) int { return -CompareVersions(a.Version, b.Version) })
	return out, err
}

func (s *fileStore) SearchVersions(_ context.Context, name, _ string) (Page[Version], error) {
	return askFiles(s, func(v fileView) (Page[Version], error) {
		all, err := v.versions(name)
		return Page[Version]{Items: all}, err
	})
}

// CompareVersions orders version numbers of any length.
func CompareVersions(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

type metaModel struct {
	Created int64 `yaml:"creation_timestamp"`
}

func (v fileView) registeredModel(name string) (*RegisteredModel, error) {
	if !valid(name) {
		return nil, notFound("registered model", name)
	}
	var meta metaModel
	if err := v.readYAML(path.Join(modelsDir, name, metaFile), &meta); err != nil {
		return nil, err
	}
	m := &RegisteredModel{Name: name, Created: millis(meta.Created), Prompt: v.isPrompt(name)}
	versions, err := v.versions(name)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, v := range versions { // highest first
		if !seen[v.Stage] {
			seen[v.Stage] = true
			m.Latest = append(m.Latest, v)
		}
	}
	m.Aliases = v.aliases(name)
	return m, nil
}

func (s *fileStore) RegisteredModel(_ context.Context, name string) (*RegisteredModel, error) {
	return askFiles(s, func(v fileView) (*RegisteredModel, error) { return v.registeredModel(name) })
}

func (s *fileStore) SearchRegisteredModels(context.Context, string) (Page[RegisteredModel], error) {
	return s.registered(false)
}

// registered gives the registered models that are prompts, or those that are none.
func (s *fileStore) registered(prompts bool) (Page[RegisteredModel], error) {
	return askFiles(s, func(v fileView) (p Page[RegisteredModel], err error) {
		names, err := v.children(modelsDir, anyDir)
		for _, n := range names {
			if v.isPrompt(n) != prompts {
				continue
			}
			m, err := v.registeredModel(n)
			if !v.passed.unless(path.Join(modelsDir, n), err, false) {
				p.Items = append(p.Items, *m)
			}
		}
		return p, err
	})
}
