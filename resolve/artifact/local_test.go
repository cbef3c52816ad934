package artifact

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestDirectoryOfAnotherMachineIsSaid fails when artifacts whose path is of another
// machine, or of a store that was moved, are shown as none without a word, when that
// is said at each listing, or when it is said of a run that has none yet.
func TestDirectoryOfAnotherMachineIsSaid(t *testing.T) {
	t.Parallel()
	here := t.TempDir()
	for dir, word := range map[string]string{
		"/nowhere/ann/mlruns/1/r/artifacts":              "not on this machine",
		"/C:/Users/ann/mlruns/1/r/artifacts":             "Windows",
		filepath.Join(here, "gone/mlruns/1/r/artifacts"): "there is no " + filepath.Join(here, "gone"),
		filepath.Join(here, "mlruns/1/r/artifacts"):      "", // MLflow makes all of it with the first artifact
		here: "",
	} {
		var log bytes.Buffer
		l, err := NewLocal(dir, logTo(&log))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := l.List(context.Background(), ""); dir != here && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", dir, err)
			}
		}
		lines := 0
		if word != "" {
			lines = 1
		}
		if why := l.elsewhere(); (why == "") != (word == "") || !strings.Contains(why, word) || strings.Count(log.String(), "\n") != lines {
			t.Errorf("%s: %q, and in the log\n%s", dir, why, &log)
		}
	}
}
