package test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every form of an artifact location that this mount reads. MLflow 3 lets no
// client choose those that name a host; MLflow 2 does.
func TestArtifactLocations(t *testing.T) {
	s := startServer(t, "mlflow2", nil)
	local := t.TempDir()
	m := mountAt(t, s.url(), nil)
	host := strings.TrimPrefix(s.url(), "http://")
	for location, dir := range map[string]string{
		"mlflow-artifacts:/plain":                  filepath.Join(s.artifacts(), "plain"),
		"mlflow-artifacts://" + host + "/hosted":   filepath.Join(s.artifacts(), "hosted"),
		s.url() + artifactsAPI + "/web":            filepath.Join(s.artifacts(), "web"),
		filepath.Join(local, "path with space"):    filepath.Join(local, "path with space"),
		"file://" + filepath.Join(local, "as-uri"): filepath.Join(local, "as-uri"),
	} {
		name := location[strings.LastIndexByte(location, '/')+1:]
		id := newRun(t, s.url(), newExperiment(t, s.url(), name, location))
		file := filepath.Join(dir, id, "artifacts", "d", "f.txt")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(location), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := read(m.path("runs", id, "d", "f.txt")); string(got) != location || err != nil {
			t.Errorf("%s: %q, %v", location, got, err)
		}
	}
}

// The registry may be another store than the tracking server.
func TestRegistryElsewhere(t *testing.T) {
	tracking, registry := shared.get(t, "server 2.22"), shared.get(t, "sqlite 3.17")
	m := mountAt(t, tracking.uri, nil, "--registry-uri", registry.uri)
	if _, err := read(m.path("runs", tracking.Wide, "doc", "text.txt")); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]string{"models/with@sign and space@best": "with@sign and space/1", "models/echo@champion": "echo/1"} {
		if to, err := output("readlink", m.path(path)); err != nil || strings.TrimSpace(string(to)) != want {
			t.Errorf("%s leads to %s, %v", path, to, err)
		}
	}
	// Only the registry's MLflow 3 store gives an MLmodel with a model_id.
	if got, err := read(m.path("models/echo@champion/MLmodel")); err != nil || !bytes.Contains(got, []byte("model_id: m-")) {
		t.Error(string(got), err)
	}
}

// Root needs no fusermount3.
func TestRootMountsWithoutFusermount(t *testing.T) {
	if os.Getuid() != 0 {
		return // only root can
	}
	s := shared.get(t, "sqlite 3.17")
	m := mountAt(t, s.uri, []string{"PATH=/nowhere"})
	if got, err := read(m.path("models/echo@champion/MLmodel")); err != nil || len(got) == 0 {
		t.Error(err)
	}
}
