package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestEachFormOfALocationIsRead fails when some form of an artifact location is
// not read. MLflow 3 lets no client choose those that name a host; MLflow 2 does.
func TestEachFormOfALocationIsRead(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 2.22").server
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
		name := "other " + location[strings.LastIndexByte(location, '/')+1:]
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

// TestRegistryMayBeElsewhere fails when the registry can't be another store than
// the tracking server.
func TestRegistryMayBeElsewhere(t *testing.T) {
	t.Parallel()
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

// TestPathOfAnotherMachineIsServed fails when a path that a tracking server
// names, and that is one of the server's own machine, is not read through the
// server; or when it is not read here as soon as this machine has that directory.
func TestPathOfAnotherMachineIsServed(t *testing.T) {
	t.Parallel()
	needsRoot(t, "it makes a mount namespace")
	elsewhere := t.TempDir()
	s, err := newServerIn([]string{"unshare", "-m", "sh", "-c", aloneInNamespace + `; mount -t tmpfs none "$0" && exec "$@"`, elsewhere}, "mlflow3", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	experiment := newExperiment(t, s.url(), "elsewhere", elsewhere)
	there, none := newRun(t, s.url(), experiment), newRun(t, s.url(), experiment)
	inside := exec.Command("nsenter", "-t", fmt.Sprint(s.cmd.Process.Pid), "-m", "sh", "-c", `mkdir -p "$0/d" && head -c 3000000 /dev/zero >"$0/d/f" && echo here >"$0/g"`, filepath.Join(elsewhere, there, "artifacts"))
	if out, err := inside.CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	m := mountAt(t, s.url(), fast, "--metadata-ttl", "200ms")
	if got, err := read(m.path("runs", there, "d/f")); err != nil || !bytes.Equal(got, make([]byte, 3000000)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	env := append(fast, "MLFLOW_TRACKING_URI="+s.url())
	out, err := command(t, env, "resolve", "runs:/"+there)
	if want := "sends it on: taken"; err != nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), "any range") {
		t.Errorf("%s, %v", out, err)
	}
	dst := t.TempDir()
	if out, err := command(t, env, "download", "--dst", dst, "runs:/"+there); err != nil {
		t.Error(string(out), err)
	}
	if got, err := os.ReadFile(filepath.Join(dst, "g")); string(got) != "here\n" || err != nil {
		t.Error(string(got), err)
	}
	// What is nowhere yet is looked for in both places.
	if out, err := output("ls", m.path("runs", none)); err != nil || len(out) > 0 {
		t.Error(string(out), err)
	}
	local := filepath.Join(elsewhere, none, "artifacts", "f")
	if err := errors.Join(os.MkdirAll(filepath.Dir(local), 0o755), os.WriteFile(local, []byte("local"), 0o644)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the directory that came here is not seen", 5e9, func() bool {
		got, err := read(m.path("runs", none, "f"))
		return err == nil && string(got) == "local"
	})
}

// TestRootMountsWithoutFusermount fails when root needs fusermount3.
func TestRootMountsWithoutFusermount(t *testing.T) {
	t.Parallel()
	needsRoot(t, "it is about root")
	s := shared.get(t, "sqlite 3.17")
	m := mountAt(t, s.uri, []string{"PATH=/nowhere"})
	if got, err := read(m.path("models/echo@champion/MLmodel")); err != nil || len(got) == 0 {
		t.Error(err)
	}
}
