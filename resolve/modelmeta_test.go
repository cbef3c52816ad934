package resolve

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMetaAgainstMLflow fails when registered_model_meta is not, byte for byte, what
// MLflow's own code writes for the same name and version.
func TestMetaAgainstMLflow(t *testing.T) {
	t.Parallel()
	names := []string{
		"", "echo", "with@sign and space", "a#b", "a # b", "it's", `say "x"`, "true", "No", "null", "~", "1", "1.5", "-3", "0x1f", "1e3", "1.5e+3", "1_000", "12:30:45", ".inf", ".nan",
		"2026-11-24", "2026-11-24 10:00:00", "=", "<<", "- a", "? a", "a - b", "*x", "&x", "!x", "%x", "@x", "`x", "|x", ">x", "{a}", "[a]", "a, b", " lead", "trail ", "tab\there",
		"é", "😀", "日本語 モデル", "line\nbreak", "back\\slash", "bell\a", "nel\u0085", "nbsp\u00a0", "sep\u2028x", "bom\ufeff", strings.Repeat("word ", 30) + "end", strings.Repeat("x", 300), "on", "y", "off", "0o7", "017", "1.", ".5", "---", "...", "--- x", "a---", "?", "-",
	}
	given := map[string]any{"paths": [][2]string{}}
	var meta [][3]string
	for _, n := range names {
		version := "1"
		if n == "" {
			version = ""
		}
		meta = append(meta, [3]string{n, version, metaOf(n, version)})
	}
	given["meta"] = meta
	heldAgainst(t, given)
}

// heldAgainst runs test/rules.py with both MLflow releases.
func heldAgainst(t *testing.T, given any) {
	t.Helper()
	dir := os.Getenv("MLFLOWFS_TESTENV")
	if dir == "" {
		dir = "../.testenv"
	}
	in, err := json.Marshal(given)
	if err != nil {
		t.Fatal(err)
	}
	for _, release := range []string{"mlflow3", "mlflow2"} {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			c := exec.Command(filepath.Join(dir, release, "bin", "python"), "../test/rules.py")
			c.Stdin = bytes.NewReader(in)
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
