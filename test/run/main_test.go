package main

import (
	"bytes"
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
