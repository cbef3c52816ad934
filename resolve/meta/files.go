package meta

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"path/filepath"
	"strings"
)

// fileStore is a FileStore directory (mlflow.store.tracking.file_store and
// mlflow.store.model_registry.file_store):
//
//	<experiment_id>/meta.yaml
//	<experiment_id>/<run_id>/{meta.yaml,params/,metrics/,tags/,inputs/,outputs/,artifacts/}
//	<experiment_id>/models/<m-id>/meta.yaml
//	<experiment_id>/datasets/<id>/meta.yaml
//	.trash/<experiment_id>/…, of a deleted experiment
//	models/<name>/{meta.yaml,version-<n>/meta.yaml,aliases/<alias>}
//
// It has no index: a search reads the meta.yaml of everything it looks at, and
// gives all it finds as one page. A part that can't be read is passed over, and
// that is said (see passed). The directory is opened anew for each question, so
// that one that takes its place is seen.
type fileStore struct {
	dir    string // absolute
	passed passed
}

var _ Store = (*fileStore)(nil)

func openFileStore(dir string, log *slog.Logger) (Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	t, err := openTree(abs)
	if err != nil {
		return nil, fmt.Errorf("the tracking URI names the directory %s, which can't be opened: %w", dir, err)
	}
	t.Close()
	return &fileStore{dir: abs, passed: passed{log: log}}, nil
}

const (
	metaFile     = "meta.yaml"
	trashDir     = ".trash"
	modelsDir    = "models"
	artifactsDir = "artifacts"
)

// fileView is the store as it is while one question is answered.
type fileView struct {
	*fileTree
	passed *passed
}

// askFiles answers a question from the directory that has the store's name now.
func askFiles[T any](s *fileStore, question func(fileView) (T, error)) (out T, err error) {
	t, err := openTree(s.dir)
	if err != nil {
		return out, fmt.Errorf("the directory %s can't be opened: %v", s.dir, err) // not fs.ErrNotExist: that would be about what was asked for
	}
	defer t.Close()
	return question(fileView{t, &s.passed})
}

func (s *fileStore) Ping(context.Context) ([]string, error) {
	_, err := askFiles(s, func(fileView) (struct{}, error) { return struct{}{}, nil })
	return nil, err
}

func (s *fileStore) Close() error { return nil }

// Remote is false: the directory is of this machine.
func (s *fileStore) Remote() bool { return false }

// Tell says what of the store can't be read, as far as anybody has looked.
func (s *fileStore) Tell() []Remark { return s.passed.remarks() }

func anyDir(e fs.DirEntry) bool  { return e.IsDir() || e.Type()&fs.ModeSymlink != 0 }
func anyFile(e fs.DirEntry) bool { return !e.IsDir() }

// valid keeps a name that came from outside to one segment.
func valid(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

type metaExperiment struct {
	ID      string `yaml:"experiment_id"`
	Name    string `yaml:"name"`
	Stage   string `yaml:"lifecycle_stage"`
	Created int64  `yaml:"creation_time"`
	Where   string `yaml:"artifact_location"`
}

// errOther is why a part that names another id than its directory's is passed
// over, as MLflow's client passes it over: a copy would be shown twice.
var errOther = errors.New("its meta.yaml is empty, or is of another experiment, run or model")

// experimentDirs are the directories of experiments: those of deleted ones,
// which lie in .trash, are the last.
func (v fileView) experimentDirs() ([]string, error) {
	dirs, err := v.children(".", func(e fs.DirEntry) bool { return anyDir(e) && e.Name() != trashDir && e.Name() != modelsDir })
	if err != nil {
		return nil, err
	}
	trash, err := v.children(trashDir, anyDir)
	if err != nil {
		v.passed.over(trashDir, err)
	}
	for _, d := range trash {
		dirs = append(dirs, path.Join(trashDir, d))
	}
	return dirs, nil
}

// experimentDir is the directory of the experiment with an id; false where there
// is none.
func (v fileView) experimentDir(id string) (string, bool) {
	if !valid(id) || id == trashDir || id == modelsDir {
		return "", false
	}
	for _, dir := range []string{id, path.Join(trashDir, id)} {
		if _, err := v.lstat(dir); err == nil {
			return dir, true
		}
	}
	return "", false
}

// experiments gives every experiment that is not deleted.
func (v fileView) experiments() ([]Experiment, error) {
	dirs, err := v.experimentDirs()
	var out []Experiment
	for _, d := range dirs {
		if path.Dir(d) == trashDir {
			continue
		}
		var m metaExperiment
		meta := path.Join(d, metaFile)
		err := v.readYAML(meta, &m)
		if err == nil && m.ID != d {
			err = errOther
		}
		if !v.passed.unless(meta, err, !isDigits(d) && errors.Is(err, fs.ErrNotExist)) && m.Stage != "deleted" {
			out = append(out, Experiment{ID: d, Name: m.Name, Created: millis(m.Created), Location: v.movedExperiment(d, m.Where)})
		}
	}
	return out, err
}

func (s *fileStore) SearchExperiments(_ context.Context, name, _ string) (Page[Experiment], error) {
	return askFiles(s, func(v fileView) (Page[Experiment], error) {
		all, err := v.experiments()
		if name == "" || err != nil {
			return Page[Experiment]{Items: all}, err
		}
		if all = filter(all, func(e *Experiment) bool { return e.Name == name }); len(all) == 0 {
			err = notFound("experiment", name)
		}
		return Page[Experiment]{Items: all[:min(1, len(all))]}, err
	})
}
