package test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMountShowsWhatTheClientBrings fails when what the mount shows for runs:/ or
// some form of models:/ is not what download_artifacts brings.
func TestMountShowsWhatTheClientBrings(t *testing.T) {
	t.Parallel()
	for _, kind := range storeKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := shared.get(t, kind)
			m := mountAt(t, s.uri, nil)
			out := s.release.python(t, []string{"MLFLOW_TRACKING_URI=" + s.uri}, "", "compare.py", m.dir, s.file, t.TempDir())
			var pairs [][3]string
			if err := json.Unmarshal([]byte(out[strings.Index(out, "[["):]), &pairs); err != nil {
				t.Fatal(err, out)
			}
			if len(pairs) < 20 {
				t.Fatalf("only %d comparisons", len(pairs))
			}
			for _, p := range pairs {
				// download_artifacts(run_id=…) leaves the run's logged models out.
				args := []string{"-r", p[1], p[2]}
				if strings.HasPrefix(p[0], "run_id=") && s.V3 {
					args = append([]string{"--exclude=model", "--exclude=model2"}, args...)
				}
				// Without a server the client writes the version behind an alias as a
				// number, and the same version by any other name as a string.
				if strings.Contains(p[0], "@") && s.server == nil && !strings.HasSuffix(p[1], "MLmodel") && !strings.HasSuffix(p[1], ".pkl") {
					args = append([]string{"--exclude=registered_model_meta"}, args...)
					ours, err1 := read(p[1] + "/registered_model_meta")
					theirs, err2 := read(p[2] + "/registered_model_meta")
					if err1 != nil || err2 != nil || strings.ReplaceAll(string(ours), "'", "") != strings.ReplaceAll(string(theirs), "'", "") {
						t.Errorf("%s: registered_model_meta is %q, and the client's %q (%v, %v)", p[0], ours, theirs, err1, err2)
					}
				}
				if out, err := output("diff", args...); err != nil {
					t.Errorf("%s: %v\n%s", p[0], err, tail(string(out)))
				}
			}
		})
	}
}

// TestOrdinaryProgramsLoadFromTheMount fails when ordinary programs load other
// things through the mount than mlflow.artifacts does, or a pyfunc model from the
// mount does not predict.
func TestOrdinaryProgramsLoadFromTheMount(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"server 3.17", "sqlite 2.22"} { // a server's and a local one, with either client
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := shared.get(t, kind)
			m := mountAt(t, s.uri, nil)
			out := s.release.python(t, []string{"MLFLOW_TRACKING_URI=" + s.uri}, "", "load.py", m.dir, s.file)
			if !strings.HasSuffix(strings.TrimSpace(out), "ok") {
				t.Error(out)
			}
		})
	}
}

// TestBytesAreThoseThatWereLogged fails when the bytes are not those that were
// logged, or not under the names under which they were logged. A client that
// uploads to a server cuts some names itself.
func TestBytesAreThoseThatWereLogged(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"server 3.17", "server 2.22", "sqlite 3.17"} { // all local stores are read in one way
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := shared.get(t, kind)
			m := mountAt(t, s.uri, nil)
			if len(s.Logged) < 15 {
				t.Errorf("only %d names", len(s.Logged))
			}
			for name, want := range s.Logged {
				if got, err := read(m.path("runs", s.Wide, name)); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %q, %v", name, got, err)
				}
			}
			for _, name := range []string{"h#ash.txt", "q?mark.txt"} {
				shown := name
				if s.server != nil {
					shown = name[:1]
				}
				if got, err := read(m.path("runs", s.Mangled, "names", shown)); string(got) != "this is "+name {
					t.Errorf("%s: %q, %v", name, got, err)
				}
			}
		})
	}
}

// TestNamesNeverGiveAnotherFilesBytes fails when of names that no client uploads,
// as they lie on a server's own disk, the mount does not read all that the server
// lets anybody read, or gives another file's bytes, and not an error, for what
// the server would misread.
func TestNamesNeverGiveAnotherFilesBytes(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"server 3.17", "server 2.22"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := shared.get(t, kind)
			dir := filepath.Join(s.server.artifacts(), experimentOf(t, s), s.Empty, "artifacts", "planted")
			good := []string{"q?x", "100%", "%zz", " lead", "trail ", "C:x", "a;b", "plus+", "it's", "tab-less", "Ünïcode", strings.Repeat("n", 255)}
			bad := []string{"h#x", "a%41b", "x%25y", "new\nline", "ends?", "ends;"}
			decoys := []string{"aAb", "x%y", "ends"} // what the server would give instead
			for _, n := range append(append(good, bad...), decoys...) {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, n), []byte("wrong: "+n), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			m := mountAt(t, s.uri, nil)
			at := m.path("runs", s.Empty, "planted")
			listed, err := os.ReadDir(at)
			if want := len(good) + len(bad) + len(decoys); err != nil || len(listed) != want {
				t.Errorf("%d of %d names are listed, %v", len(listed), want, err)
			}
			for _, n := range good {
				if got, err := read(filepath.Join(at, n)); err != nil || string(got) != "wrong: "+n {
					t.Errorf("%q: %q, %v", n, got, err)
				}
			}
			for _, n := range bad {
				if got, err := read(filepath.Join(at, n)); err == nil || len(got) > 0 || !strings.Contains(err.Error(), "Input/output error") {
					t.Errorf("%q: %q, %v", n, got, err)
				}
			}
			waitFor(t, "the log does not say why", long, func() bool {
				return strings.Contains(m.log.String(), "the tracking server can't be asked for")
			})
		})
	}
}

// experimentOf is the id of the experiment of the seeded runs.
func experimentOf(t *testing.T, s *seeded) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.server.artifacts(), "*", s.Wide))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	return filepath.Base(filepath.Dir(found[0]))
}
