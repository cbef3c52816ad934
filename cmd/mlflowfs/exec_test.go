package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestExecTakesTheCommandAsItIs fails when {} in an argument is not the mount's root, when
// another argument is changed, or when $MLFLOWFS of an outer exec stays.
func TestExecTakesTheCommandAsItIs(t *testing.T) {
	t.Parallel()
	got := atRoot([]string{"{}/run", "", "{", "}", "a{}b{}", "$MLFLOWFS", "{ }"}, "/r")
	if want := []string{"/r/run", "", "{", "}", "a/rb/r", "$MLFLOWFS", "{ }"}; !slices.Equal(got, want) {
		t.Errorf("%q, and not %q", got, want)
	}
	if got, want := withRoot([]string{"A=1", "MLFLOWFS=/outer", "MLFLOWFS_X=2"}, "/r"), []string{"A=1", "MLFLOWFS_X=2", "MLFLOWFS=/r"}; !slices.Equal(got, want) {
		t.Errorf("%q, and not %q", got, want)
	}
}

// TestExecMountsWhereNobodyLooks fails when the directory of a mount is not below the
// user's directory for it, when one that can't be written to is taken, or when two are the
// same.
func TestExecMountsWhereNobodyLooks(t *testing.T) {
	t.Parallel()
	run, tmp := t.TempDir(), t.TempDir()
	for _, c := range []struct{ runtime, tmp, in string }{{run, tmp, run}, {"", tmp, tmp}, {filepath.Join(run, "none"), tmp, tmp}, {"relative", tmp, tmp}} {
		p := &process{environ: []string{"XDG_RUNTIME_DIR=" + c.runtime, "TMPDIR=" + c.tmp}}
		one, err := privatePoint(p)
		other, err2 := privatePoint(p)
		if err != nil || err2 != nil || filepath.Dir(one) != c.in || one == other {
			t.Errorf("%+v: %s, %s, %v, %v", c, one, other, err, err2)
		}
	}
	if left, _ := os.ReadDir(run); len(left) > 0 {
		t.Error("left behind:", left)
	}
	p := &process{environ: []string{"TMPDIR=" + filepath.Join(tmp, "none")}}
	if _, err := privatePoint(p); err == nil || !strings.Contains(err.Error(), "TMPDIR") {
		t.Error(err)
	}
}
