package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFailureNamesTheCommandThatRunsItAgain fails when of a failed test the output, or
// the command that runs it once more with its seed, is not told.
func TestFailureNamesTheCommandThatRunsItAgain(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := &run{out: &out, args: []string{"-race", "./test"}, results: map[id]*result{}}
	const pkg = module + "/test"
	for _, e := range []event{
		{Action: "output", Package: pkg, Test: "TestA/a_b_(1)", Output: "    a_test.go:1: two versions\n    a_test.go:2: it ran with seed 7\n"},
		{Action: "fail", Package: pkg, Test: "TestA/a_b_(1)", Elapsed: 1},
		{Action: "fail", Package: pkg, Test: "TestA", Elapsed: 1},
		{Action: "pass", Package: pkg, Test: "TestB", Elapsed: 2},
		{Action: "fail", Package: pkg, Elapsed: 3},
	} {
		r.take(e)
	}
	want := `MLFLOWFS_SEED=7 go test -count=1 -race -run '^TestA$/^a_b_\(1\)$' ./test`
	if !strings.Contains(out.String(), want) || !strings.Contains(out.String(), "two versions") || strings.Count(out.String(), "run it again") != 1 {
		t.Errorf("no %s in\n%s", want, &out)
	}
}

// TestUnsteadyIsRunAgain fails when a test that fails twice, or a package that is wrong
// otherwise, passes for unsteady; or when one that passes alone fails the run.
func TestUnsteadyIsRunAgain(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module " + module + "\n", "x_test.go": `package x

import (
	"os"
	"testing"
)

func first(name string) bool {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		f.Close()
	}
	return err == nil
}

func TestUnsteady(t *testing.T) {
	if first("seen") {
		t.Error("once")
	}
}

func TestBroken(t *testing.T) {
	switch os.Getenv("BROKEN") {
	case "test":
		t.Error("always")
	case "panic":
		if first("panicked") {
			panic("once")
		}
	case "end":
		os.Exit(3)
	}
	t.Run("below", func(t *testing.T) {
		if os.Getenv("BROKEN") == "below" {
			t.Error("always")
		}
	})
}

func TestMain(m *testing.M) {
	code := m.Run()
	if os.Getenv("BROKEN") == "rest" {
		println("FAIL: left behind")
		code = 1
	}
	os.Exit(code)
}
`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for broken, want := range map[string]bool{"": true, "test": false, "below": false, "panic": false, "end": false, "rest": false} {
		t.Setenv("BROKEN", broken)
		os.Remove("seen")
		var out bytes.Buffer
		r := &run{out: &out, args: []string{"-count=1", "."}, results: map[id]*result{}}
		if code, err := r.test(); code == 0 || err != nil {
			t.Fatal(code, err)
		}
		if got := r.unsteady(2); got != want || !strings.Contains(out.String(), "once") {
			t.Errorf("broken %q: %v\n%s", broken, got, &out)
		}
		out.Reset()
		if r.unsteady(0) || broken == "test" && !strings.Contains(out.String(), "failed:  TestUnsteady\n    x_test.go:18: once") {
			t.Errorf("broken %q: none was to be run again, and each says why it failed:\n%s", broken, &out)
		}
	}
}

// TestReportHasTheFigures fails when a soak's report leaves out what a test measured,
// or that it did not end.
func TestReportHasTheFigures(t *testing.T) {
	t.Parallel()
	r := &run{results: map[id]*result{}}
	r.take(event{Action: "output", Package: module + "/test", Test: "TestA", Output: "    a_test.go:12: figure: 900 reads | 3 errors\n"})
	r.take(event{Action: "run", Package: module + "/test", Test: "TestB"})
	got := r.report()
	for _, want := range []string{"| test TestA | 0 s | did not end | 900 reads / 3 errors |", "| test TestB | 0 s | did not end |"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
