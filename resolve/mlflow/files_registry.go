package mlflow

import (
	"cmp"
	"context"
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

func (s *fileStore) readVersion(name, version string) (Version, metaVersion, error) {
	var m metaVersion
	if !valid(name) || !isDigits(version) {
		return Version{}, m, notFound("model version", name+"/"+version)
	}
	err := s.readYAML(path.Join("models", name, "version-"+version, metaFile), &m)
	if err == nil && m.Stage == deletedStage {
		err = notFound("model version", name+"/"+version)
	}
	return Version{
		Name: name, Version: version, Stage: m.Stage, Source: m.Source, Status: m.Status, Created: millis(m.Created),
	}, m, err
}

func (s *fileStore) Version(_ context.Context, name, version string) (*Version, error) {
	v, _, err := s.readVersion(name, version)
	return &v, err
}

func (s *fileStore) DownloadURI(_ context.Context, name, version string) (string, error) {
	_, m, err := s.readVersion(name, version)
	return cmp.Or(m.Location, m.Source), err
}

func (s *fileStore) SearchVersions(_ context.Context, name, _ string) (Page[Version], error) {
	var p Page[Version]
	if !valid(name) {
		return p, notFound("registered model", name)
	}
	dirs, err := s.children(path.Join("models", name), func(e fs.DirEntry) bool {
		return anyDir(e) && strings.HasPrefix(e.Name(), "version-")
	})
	for _, d := range dirs {
		if v, _, err := s.readVersion(name, strings.TrimPrefix(d, "version-")); err == nil {
			p.Items = append(p.Items, v)
		}
	}
	slices.SortFunc(p.Items, func(a, b Version) int { return -CompareVersions(a.Version, b.Version) })
	return p, err
}

// CompareVersions orders version numbers of any length.
func CompareVersions(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

type metaModel struct {
	Created int64 `yaml:"creation_timestamp"`
}

func (s *fileStore) RegisteredModel(ctx context.Context, name string) (*RegisteredModel, error) {
	if !valid(name) {
		return nil, notFound("registered model", name)
	}
	var meta metaModel
	if err := s.readYAML(path.Join("models", name, metaFile), &meta); err != nil {
		return nil, err
	}
	m := &RegisteredModel{Name: name, Created: millis(meta.Created), Aliases: map[string]string{}}
	versions, err := s.SearchVersions(ctx, name, "")
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, v := range versions.Items { // highest first
		if !seen[v.Stage] {
			seen[v.Stage] = true
			m.Latest = append(m.Latest, v)
		}
	}
	aliases := path.Join("models", name, "aliases")
	names, err := s.children(aliases, anyFile)
	for _, a := range names {
		if b, err := s.root.ReadFile(path.Join(aliases, a)); err == nil {
			m.Aliases[a] = strings.TrimSpace(string(b))
		}
	}
	return m, err
}

func (s *fileStore) SearchRegisteredModels(ctx context.Context, _ string) (Page[RegisteredModel], error) {
	var p Page[RegisteredModel]
	names, err := s.children("models", anyDir)
	for _, n := range names {
		if b, err := s.root.ReadFile(path.Join("models", n, "tags", "mlflow.prompt.is_prompt")); err == nil && string(b) == "true" {
			continue // a prompt
		}
		if m, err := s.RegisteredModel(ctx, n); err == nil {
			p.Items = append(p.Items, *m)
		}
	}
	return p, err
}
