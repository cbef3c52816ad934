// Command run is `go test` for people: it prints a line for each package, of what
// failed the output and the one command that runs it again, with its seed, and at
// the end the slowest tests.
//
//	go run ./test/run [-report FILE] [-slowest N] [-again N] -- ARGUMENTS OF go test
//
// With -again up to N tests that failed are run once more, each alone: one that passes
// then is told to be unsteady, as what it waits for came too late on a busy machine. A
// panic, a race that was detected, or a test that did not end fails the run in any case.
// With -report it writes what a soak found: each test's time and result, and
// the lines of its log that begin with "figure: ".
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const module = "github.com/mlflowfs/mlflowfs"

// event is a line of `go test -json` (go doc test2json).
type event struct {
	Time                                      time.Time
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64 // seconds
}

// id is a test, or, with no name, a package.
type id struct{ pkg, test string }

// result is what became of one.
type result struct {
	id
	action string // the last: pass, fail, skip
	took   time.Duration
	output strings.Builder
}

// run is what is known so far.
type run struct {
	out     io.Writer
	args    []string // of go test
	results map[id]*result
	build   strings.Builder // what the compiler said
	begun   time.Time

	interrupted atomic.Bool
}

func main() {
	report := flag.String("report", "", "write what was found to this file, as Markdown")
	slowest := flag.Int("slowest", 10, "how many of the slowest tests to name")
	again := flag.Int("again", 0, "how many tests that failed to run once more, alone")
	flag.Parse()
	r := &run{out: os.Stdout, args: flag.Args(), results: map[id]*result{}, begun: time.Now()}
	code, err := r.test()
	if err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(1)
	}
	r.tellSlowest(*slowest)
	if code != 0 && r.unsteady(*again) {
		code = 0
	}
	if *report != "" {
		if err := os.WriteFile(*report, []byte(r.report()), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "run:", err)
			os.Exit(1)
		}
		fmt.Fprintln(r.out, "the report is in", *report)
	}
	os.Exit(code)
}

// test runs go test and tells of each package that ends.
func (r *run) test() (code int, err error) {
	c := exec.Command("go", append([]string{"test", "-json"}, r.args...)...)
	c.Stderr = os.Stderr
	// Its tests end what they started when they are told to.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	out, err := c.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := c.Start(); err != nil {
		return 1, err
	}
	go func() {
		for s := range signals {
			r.interrupted.Store(true)
			c.Process.Signal(s)
		}
	}()
	for lines := bufio.NewReader(out); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var e event
		if json.Unmarshal(line, &e) != nil {
			r.out.Write(line)
			continue
		}
		r.take(e)
	}
	c.Wait()
	return c.ProcessState.ExitCode(), nil
}

func (r *run) take(e event) {
	if e.Action == "build-output" {
		r.build.WriteString(e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	k := id{e.Package, e.Test}
	if r.results[k] == nil {
		r.results[k] = &result{id: k}
	}
	x := r.results[k]
	switch e.Action {
	case "output":
		x.output.WriteString(e.Output)
	case "pass", "fail", "skip":
		// What runs beside others is not in the time that go test gives its parent.
		x.action, x.took = e.Action, max(x.took, time.Duration(e.Elapsed*float64(time.Second)))
		if parent := r.results[id{e.Package, path.Dir(e.Test)}]; parent != nil {
			parent.took = max(parent.took, x.took)
		}
		if e.Test == "" {
			r.tellPackage(x)
		} else if e.Action == "fail" { // at once; its output comes with its package's
			fmt.Fprintf(r.out, "fail %s %s\n", short(e.Package), e.Test)
		}
	}
}

func (r *run) tellPackage(p *result) {
	fmt.Fprintf(r.out, "%-4s %-34s %7.1f s\n", p.action, short(p.pkg), p.took.Seconds())
	if p.action != "fail" {
		return
	}
	failed := r.failed(p.pkg)
	for _, x := range failed {
		fmt.Fprintf(r.out, "\n--- %s %s\n%s\nrun it again:\n    %s\n\n", short(x.pkg), x.test, indent(x.output.String()), r.again(x))
	}
	if len(failed) == 0 { // it did not come so far, or fell
		fmt.Fprintf(r.out, "%s%s\n", r.build.String(), p.output.String())
		for _, x := range r.of(p.pkg) {
			if x.action == "" && x.test != "" {
				fmt.Fprintf(r.out, "--- %s %s did not end\n%s\nrun it again:\n    %s\n\n", short(x.pkg), x.test, indent(x.output.String()), r.again(x))
			}
		}
	} else if s := p.output.String(); strings.Contains(s, "FAIL: ") || strings.Contains(s, "panic") {
		fmt.Fprintln(r.out, s)
	}
}

// failed are the tests of a package that failed, and not only because one below
// them did.
func (r *run) failed(pkg string) []*result {
	all := r.of(pkg)
	return slices.DeleteFunc(all, func(x *result) bool {
		return x.test == "" || x.action != "fail" || slices.ContainsFunc(all, func(y *result) bool {
			return y.action == "fail" && strings.HasPrefix(y.test, x.test+"/")
		})
	})
}

// of are the tests of a package, and itself, in order.
func (r *run) of(pkg string) []*result {
	all := slices.Collect(maps.Values(r.results))
	all = slices.DeleteFunc(all, func(x *result) bool { return x.pkg != pkg })
	slices.SortFunc(all, func(a, b *result) int { return cmp.Compare(a.test, b.test) })
	return slices.Clip(all)
}

// seeded is what a test says of its seed when it fails (seedOf).
var seeded = regexp.MustCompile(`it ran with seed (\d+)`)

// again is the command that runs a test once more as it ran.
func (r *run) again(x *result) string {
	var words []string
	if m := seeded.FindStringSubmatch(x.output.String()); m != nil {
		words = append(words, "MLFLOWFS_SEED="+m[1])
	}
	if v := os.Getenv("MLFLOWFS_SOAK"); v != "" {
		words = append(words, "MLFLOWFS_SOAK="+v)
	}
	words = append(words, "go", "test", "-count=1")
	if slices.Contains(r.args, "-race") {
		words = append(words, "-race")
	}
	parts := strings.Split(x.test, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(append(words, "-run", "'"+strings.ReplaceAll(strings.Join(parts, "/"), "'", `'\''`)+"'", "."+strings.TrimPrefix(x.pkg, module)), " ")
}

// wrong is what a test says that no busy machine makes it say.
var wrong = regexp.MustCompile(`(?m)^\s*(panic:|fatal error:|WARNING: DATA RACE|FAIL: )|race detected|unexpected goroutines`)

// unsteady runs what failed once more, up to most tests, and tells whether nothing else
// is wrong than that they failed before.
func (r *run) unsteady(most int) bool {
	var failed []id
	broken := r.interrupted.Load()
	for _, x := range r.results {
		switch {
		case x.action == "", wrong.MatchString(x.output.String()): // it did not end, or says why
			broken = true
		case x.test == "" && x.action == "fail":
			of := r.failed(x.pkg)
			broken = broken || len(of) == 0
			for _, y := range of {
				top, _, _ := strings.Cut(y.test, "/")
				failed = append(failed, id{y.pkg, top})
			}
		}
	}
	slices.SortFunc(failed, func(a, b id) int { return cmp.Or(cmp.Compare(a.pkg, b.pkg), cmp.Compare(a.test, b.test)) })
	failed = slices.Compact(failed)
	broken = broken || len(failed) == 0 || len(failed) > most
	for _, k := range failed {
		fmt.Fprintf(r.out, "\nfailed: %s %s", short(k.pkg), k.test)
		if broken {
			fmt.Fprint(r.out, r.complaint(k))
			continue // one is enough
		}
		if out, passed := r.alone(r.results[k]); passed {
			fmt.Fprint(r.out, "; it is unsteady, and passed alone")
		} else {
			fmt.Fprintf(r.out, ", and again:\n%s", indent(out))
			broken = true
		}
	}
	fmt.Fprintln(r.out)
	if broken {
		fmt.Fprintln(r.out, "on", machine())
	}
	return !broken
}

// complaint is the first that a test, or one below it, said of why it failed: what is
// known of it where the end of a log is all that is left.
func (r *run) complaint(k id) string {
	for _, x := range r.failed(k.pkg) {
		if top, _, _ := strings.Cut(x.test, "/"); top == k.test {
			if m := complains.FindString(x.output.String()); m != "" {
				return "\n" + indent(strings.TrimSpace(m[:min(len(m), 500)]))
			}
		}
	}
	return ""
}

var complains = regexp.MustCompile(`(?m)^ *\S+\.go:\d+: .*(\n +.*)?`)

// machine is what tests may have lacked.
func machine() string {
	dir, s := os.TempDir(), ""
	var st syscall.Statfs_t
	if syscall.Statfs(dir, &st) == nil {
		s = fmt.Sprintf("; %d of %d GiB are free in %s", st.Bavail*uint64(st.Bsize)>>30, st.Blocks*uint64(st.Bsize)>>30, dir)
	}
	mem, _ := os.ReadFile("/proc/meminfo")
	if m := regexp.MustCompile(`MemAvailable: +(\d+)`).FindSubmatch(mem); m != nil {
		s += fmt.Sprintf("; %s KiB of memory", m[1])
	}
	return fmt.Sprintf("%d cores%s", runtime.NumCPU(), s)
}

// alone runs one test as it ran, with nothing beside it.
func (r *run) alone(x *result) (out string, passed bool) {
	flags := slices.DeleteFunc(slices.Clone(r.args), func(a string) bool { return strings.HasPrefix(a, ".") })
	c := exec.Command("go", slices.Concat([]string{"test"}, flags, []string{"-run", "^" + x.test + "$", "." + strings.TrimPrefix(x.pkg, module)})...)
	c.Env = os.Environ()
	if m := seeded.FindStringSubmatch(x.output.String()); m != nil {
		c.Env = append(c.Env, "MLFLOWFS_SEED="+m[1])
	}
	said, err := c.CombinedOutput()
	return string(said), err == nil && !strings.Contains(string(said), "no tests to run") && !r.interrupted.Load()
}

func (r *run) tellSlowest(n int) {
	all := slices.Collect(maps.Values(r.results))
	all = slices.DeleteFunc(all, func(x *result) bool { return x.test == "" || strings.Contains(x.test, "/") })
	slices.SortFunc(all, func(a, b *result) int { return cmp.Compare(b.took, a.took) })
	passed := 0
	for _, x := range all {
		if x.action == "pass" {
			passed++
		}
	}
	fmt.Fprintf(r.out, "\n%d of %d tests passed, in %s. The slowest:\n", passed, len(all), time.Since(r.begun).Round(time.Second))
	for _, x := range all[:min(n, len(all))] {
		fmt.Fprintf(r.out, "%8.1f s  %s %s\n", x.took.Seconds(), short(x.pkg), x.test)
	}
}

func short(pkg string) string { return strings.TrimPrefix(strings.TrimPrefix(pkg, module), "/") }

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ")
}

var figure = regexp.MustCompile(`(?m)^\s*(?:\S+\.go:\d+: )?figure: (.*)$`)

// report is what was found, for a file that is kept.
func (r *run) report() string {
	say := func(name string, args ...string) string {
		out, _ := exec.Command(name, args...).Output()
		return strings.TrimSpace(string(out))
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Soak of %s", r.begun.Format("2006-01-02"))
	line("")
	line("commit %s; %d cores, Linux %s, %s; %s of tests, asked for as SOAK=%s, seed %s.",
		say("git", "rev-parse", "--short", "HEAD"), runtime.NumCPU(), say("uname", "-r"), runtime.Version(),
		time.Since(r.begun).Round(time.Second), os.Getenv("MLFLOWFS_SOAK"), os.Getenv("MLFLOWFS_SEED"))
	line("")
	line("| test | took | result | figures |\n|---|---|---|---|")
	all := slices.Collect(maps.Values(r.results))
	slices.SortFunc(all, func(a, b *result) int { return cmp.Or(cmp.Compare(a.pkg, b.pkg), cmp.Compare(a.test, b.test)) })
	for _, x := range all {
		var figures []string
		for _, m := range figure.FindAllStringSubmatch(x.output.String(), -1) {
			figures = append(figures, strings.ReplaceAll(m[1], "|", "/"))
		}
		if x.test != "" && (!strings.Contains(x.test, "/") || len(figures) > 0 || x.action != "pass") {
			line("| %s %s | %.0f s | %s | %s |", short(x.pkg), strings.ReplaceAll(x.test, "|", "/"), x.took.Seconds(), cmp.Or(x.action, "did not end"), strings.Join(figures, "<br>"))
		}
	}
	for _, x := range all {
		if x.action == "fail" && x.test != "" {
			line("\n## %s\n\n```\n%s\n```\n\nrun it again: `%s`", x.test, strings.TrimRight(x.output.String(), "\n"), r.again(x))
		}
	}
	return b.String()
}
