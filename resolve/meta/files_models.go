package meta

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
)

type metaLoggedModel struct {
	ID         string `yaml:"model_id"`
	Experiment string `yaml:"experiment_id"`
	Name       string `yaml:"name"`
	Location   string `yaml:"artifact_location"`
	Source     string `yaml:"source_run_id"`
	Status     int64  `yaml:"status"`
	Created    int64  `yaml:"creation_timestamp"`
	Stage      string `yaml:"lifecycle_stage"`
}

// readLoggedModel reads a logged model of the experiment in a directory.
func (v fileView) readLoggedModel(experimentDir, id string) (*LoggedModel, error) {
	var m metaLoggedModel
	experiment := path.Base(experimentDir)
	switch err := v.readYAML(path.Join(experimentDir, modelsDir, id, metaFile), &m); {
	case err != nil:
		return nil, err
	case m.ID != id || m.Experiment != experiment:
		return nil, errOther
	case m.Stage == "deleted":
		return nil, notFound("logged model", id)
	}
	uri, _ := v.moved(m.Location)
	return &LoggedModel{
		ID: id, Name: m.Name, ExperimentID: experiment, SourceRunID: m.Source,
		ArtifactURI: uri, Status: loggedModelStatus(m.Status), Created: millis(m.Created),
	}, nil
}

func (s *fileStore) LoggedModel(_ context.Context, id string) (*LoggedModel, error) {
	if !ValidLoggedModelID(id) {
		return nil, notFound("logged model", id)
	}
	return askFiles(s, func(v fileView) (*LoggedModel, error) {
		dirs, err := v.experimentDirs()
		if err != nil {
			return nil, err
		}
		for _, d := range dirs {
			m, err := v.readLoggedModel(d, id)
			if !v.passed.unless(path.Join(d, modelsDir, id), err, errors.Is(err, fs.ErrNotExist) || notDir(err)) {
				return m, nil
			}
		}
		return nil, notFound("logged model", id)
	})
}

func (s *fileStore) SearchLoggedModels(_ context.Context, experimentIDs []string, runID, _ string) (Page[LoggedModel], error) {
	return askFiles(s, func(v fileView) (p Page[LoggedModel], err error) {
		for _, id := range experimentIDs {
			e, ok := v.experimentDir(id)
			if !ok {
				continue
			}
			dir := path.Join(e, modelsDir)
			ids, err := v.children(dir, anyDir)
			v.passed.unless(dir, err, false)
			for _, id := range ids {
				m, err := v.readLoggedModel(e, id)
				if !v.passed.unless(path.Join(dir, id), err, errors.Is(err, fs.ErrNotExist)) && (runID == "" || m.SourceRunID == runID) {
					p.Items = append(p.Items, *m)
				}
			}
		}
		slices.SortStableFunc(p.Items, func(a, b LoggedModel) int { return b.Created.Compare(a.Created) })
		return p, nil
	})
}
