package artifact

import (
	"bytes"
	"cmp"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// TestUnambiguousAgainstMLflow fails when a path that MLflow's own code reads as
// another one is sent to a server, which could then answer with another file's bytes,
// or when a path that the server reads well is refused.
func TestUnambiguousAgainstMLflow(t *testing.T) {
	t.Parallel()
	paths := []string{
		"1/r/artifacts/a b", "1/100%", "1/100%.txt", "1/%zz", "1/q?x", "1/a;b", "1/x?/f", "1/é", "1/😀", "1/a;;", "1/a?q;", "1/a#b", "1/a%41", "1/a%2fb/c", "1/a\nb", "1/a?", "1/d/a;", "1/x;?q", "1/zero\u200dwidth",
		"1/a\\b", "1/C:x", "1/~", "1/a\x7f", "1/\ue000", "1/a\u0085", "1/.hidden", "1/a..b", "1/ lead", "1/trail ", "1/a&b=c", "1/[x]", "1/a:b", "1/%", "1/%4", "1/%%41", "1/a??", "1/?", "1/;", "1/;/a", "1/a;b;", "1/a;/b;c",
	}
	// And whatever a few of the characters that matter make together.
	seed := seedOf(t)
	r := rand.New(rand.NewPCG(seed, 2))
	alphabet := []string{"a", "4", "1", "%", "?", ";", "/b", "#", " ", "é", ":"}
	for range 3000 {
		p := "1/r"
		for range r.IntN(8) {
			p += alphabet[r.IntN(len(alphabet))]
		}
		paths = append(paths, p)
	}
	pairs := [][2]string{}
	for _, p := range paths {
		why := ""
		if err := unambiguous(p); err != nil {
			why = err.Error()
		}
		pairs = append(pairs, [2]string{p, why})
	}
	in, err := json.Marshal(map[string]any{"meta": []string{}, "paths": pairs})
	if err != nil {
		t.Fatal(err)
	}
	dir := os.Getenv("MLFLOWFS_TESTENV")
	if dir == "" {
		dir = "../../.testenv"
	}
	for _, release := range []string{"mlflow3", "mlflow2"} {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			c := exec.Command(filepath.Join(dir, release, "bin", "python"), "../../test/rules.py")
			c.Stdin = bytes.NewReader(in)
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("seed %d: %v\n%s", seed, err, out)
			}
		})
	}
}

// seedOf is the seed of a test's random numbers: MLFLOWFS_SEED, or 1. A failure
// must name it.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed, err := strconv.ParseUint(cmp.Or(os.Getenv("MLFLOWFS_SEED"), "1"), 10, 64)
	if err != nil {
		t.Fatalf("MLFLOWFS_SEED: %v", err)
	}
	return seed
}
