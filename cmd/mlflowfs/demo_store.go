package main

import (
	"bytes"
	"crypto/rand"
	"database/sql"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// demoSchema is the tables of MLflow 3.
//
//go:embed demo_schema.sql
var demoSchema string

// demoStore is an MLflow store in the making: what `mlflow server
// --backend-store-uri sqlite:///…` would have written.
type demoStore struct {
	dir string
	tx  *sql.Tx
	now time.Time
	err error // the first that happened; what follows it does nothing
}

// makeDemoStore writes a store into dir: two experiments, three runs, and a
// registered model with two versions, two aliases and a stage.
func makeDemoStore(dir string, now time.Time) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// The database gets its name when all is there, so that a demo that was
	// interrupted is begun anew.
	tmp := filepath.Join(dir, "mlflow.db.new")
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", tmp)
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.Exec(demoSchema); err != nil {
		return err
	}
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() // after Commit it does nothing
	s := &demoStore{dir: dir, tx: tx, now: now}
	s.fill()
	if s.err != nil {
		return s.err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, "mlflow.db"))
}

func (s *demoStore) fill() {
	s.experiment(0, "Default")
	s.experiment(1, "churn")
	s.experiment(2, "vision")

	baseline := s.run(1, "baseline", 48*time.Hour, map[string]string{"C": "1.0", "penalty": "l2"}, map[string]float64{"auc": 0.871, "loss": 0.412})
	s.file(baseline, "report.txt", []byte("Logistic regression, 12 features.\nAUC 0.871 on the held-out month.\n"))
	s.json(baseline, "metrics.json", map[string]any{"auc": 0.871, "loss": 0.412})
	s.image(baseline, "plots/roc.png", 0.8)
	m1 := s.model(baseline, 48*time.Hour, "one")

	tuned := s.run(1, "tuned", 3*time.Hour, map[string]string{"C": "0.3", "penalty": "l1"}, map[string]float64{"auc": 0.902, "loss": 0.355})
	s.file(tuned, "report.txt", []byte("Logistic regression, 31 features.\nAUC 0.902 on the held-out month.\n"))
	s.json(tuned, "metrics.json", map[string]any{"auc": 0.902, "loss": 0.355})
	s.image(tuned, "plots/roc.png", 1.4)
	m2 := s.model(tuned, 3*time.Hour, "two")

	augment := s.run(2, "augment", 30*time.Minute, map[string]string{"flip": "true"}, map[string]float64{"accuracy": 0.934})
	s.image(augment, "samples/0.png", 0.5)
	s.image(augment, "samples/1.png", 2.5)
	s.json(augment, "classes.json", []string{"cat", "dog", "ferret"})

	s.exec(`INSERT INTO registered_models (name, creation_time, last_updated_time, workspace) VALUES ('churn', ?, ?, 'default')`, s.ago(48*time.Hour), s.ago(3*time.Hour))
	s.version(1, m1, 48*time.Hour, "Production")
	s.version(2, m2, 3*time.Hour, "None")
	for alias, version := range map[string]int{"champion": 2, "previous": 1} {
		s.exec(`INSERT INTO registered_model_aliases (alias, version, name, workspace) VALUES (?, ?, 'churn', 'default')`, alias, version)
	}
}

func (s *demoStore) exec(stmt string, args ...any) {
	if s.err == nil {
		_, s.err = s.tx.Exec(stmt, args...)
	}
}

// ago is a time in MLflow's milliseconds.
func (s *demoStore) ago(d time.Duration) int64 { return s.now.Add(-d).UnixMilli() }

func (s *demoStore) experiment(id int, name string) {
	s.exec(`INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time, workspace) VALUES (?, ?, ?, 'active', ?, ?, 'default')`,
		id, name, filepath.Join(s.dir, "artifacts", fmt.Sprint(id)), s.ago(72*time.Hour), s.ago(72*time.Hour))
}

// demoRun is a run, or a logged model, and the directory of its artifacts.
type demoRun struct {
	id, dir    string
	experiment int
}

func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand
	return hex.EncodeToString(b[:])
}

func (s *demoStore) run(experiment int, name string, ago time.Duration, params map[string]string, metrics map[string]float64) demoRun {
	r := demoRun{id: newID(), experiment: experiment}
	r.dir = filepath.Join(s.dir, "artifacts", fmt.Sprint(experiment), r.id, "artifacts")
	s.exec(`INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time, source_version, lifecycle_stage, artifact_uri, experiment_id)
		VALUES (?, ?, 'UNKNOWN', '', '', 'demo', 'FINISHED', ?, ?, '', 'active', ?, ?)`,
		r.id, name, s.ago(ago), s.ago(ago-10*time.Minute), r.dir, experiment)
	s.exec(`INSERT INTO tags (key, value, run_uuid) VALUES ('mlflow.runName', ?, ?), ('mlflow.user', 'demo', ?)`, name, r.id, r.id)
	for k, v := range params {
		s.exec(`INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)`, k, v, r.id)
	}
	for k, v := range metrics {
		s.exec(`INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, 0, 0)`, k, v, s.ago(ago), r.id)
		s.exec(`INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, 0, 0, ?)`, k, v, s.ago(ago), r.id)
	}
	return r
}

func (s *demoStore) file(r demoRun, name string, content []byte) {
	if s.err != nil {
		return
	}
	p := filepath.Join(r.dir, filepath.FromSlash(name))
	if s.err = os.MkdirAll(filepath.Dir(p), 0o755); s.err == nil {
		s.err = os.WriteFile(p, content, 0o644)
	}
}

func (s *demoStore) json(r demoRun, name string, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if s.err == nil {
		s.err = err
	}
	s.file(r, name, append(b, '\n'))
}

// image draws a curve that bends by power.
func (s *demoStore) image(r demoRun, name string, power float64) {
	const side = 96
	img := image.NewRGBA(image.Rect(0, 0, side, side))
	for x := range side {
		top := int(side * (1 - math.Pow(float64(x)/side, 1/(1+power))))
		for y := range side {
			c := color.RGBA{0xf4, 0xf6, 0xfa, 0xff}
			if y >= top {
				c = color.RGBA{0x01, 0x94, uint8(0xe2 - y), 0xff}
			}
			img.Set(x, y, c)
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); s.err == nil {
		s.err = err
	}
	s.file(r, name, b.Bytes())
}

// model logs a model of the run: a pyfunc model from code, which adds one
// column to what it is given.
func (s *demoStore) model(r demoRun, ago time.Duration, label string) demoRun {
	m := demoRun{id: "m-" + newID(), experiment: r.experiment}
	m.dir = filepath.Join(s.dir, "artifacts", fmt.Sprint(r.experiment), "models", m.id, "artifacts")
	s.exec(`INSERT INTO logged_models (model_id, experiment_id, name, artifact_location, creation_timestamp_ms, last_updated_timestamp_ms, status, lifecycle_stage, model_type, source_run_id)
		VALUES (?, ?, 'model', ?, ?, ?, 2, 'active', '', ?)`, m.id, r.experiment, m.dir, s.ago(ago), s.ago(ago), r.id)
	s.exec(`INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id, step) VALUES (?, 'RUN_OUTPUT', ?, 'MODEL_OUTPUT', ?, 0)`, newID(), r.id, m.id)
	s.file(m, "MLmodel", fmt.Appendf(nil, `artifact_path: %s
flavors:
  python_function:
    code: null
    loader_module: mlflow.pyfunc.loaders.code_model
    model_code_path: model.py
    streamable: false
mlflow_version: 3.17.2
model_id: %s
model_uuid: %s
run_id: %s
utc_time_created: '%s'
`, m.dir, m.id, m.id, r.id, s.now.Add(-ago).UTC().Format("2006-01-02 15:04:05.000000")))
	s.file(m, "model.py", fmt.Appendf(nil, `import mlflow
from mlflow.pyfunc import PythonModel


class Labelled(PythonModel):
    def predict(self, context, model_input, params=None):
        return ["%s"] * len(model_input)


mlflow.models.set_model(Labelled())
`, label))
	s.file(m, "requirements.txt", []byte("mlflow\n"))
	return m
}

func (s *demoStore) version(n int, m demoRun, ago time.Duration, stage string) {
	s.exec(`INSERT INTO model_versions (name, version, creation_time, last_updated_time, current_stage, source, run_id, status, storage_location, workspace)
		VALUES ('churn', ?, ?, ?, ?, ?, '', 'READY', ?, 'default')`, n, s.ago(ago), s.ago(ago), stage, "models:/"+m.id, m.dir)
}
