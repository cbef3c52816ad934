package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/mlflowfs/mlflowfs"

// TestImportsRunOneWay fails when a package imports one of ours that it may not,
// or when go-fuse is imported elsewhere than in fs/fusefs.
func TestImportsRunOneWay(t *testing.T) {
	t.Parallel()
	may := map[string][]string{
		"cmd/mlflowfs":           {"cache", "cache/disk", "cache/limit", "fs", "fs/fusefs", "resolve", "resolve/answers", "resolve/artifact", "resolve/artifact/azure", "resolve/artifact/gcs", "resolve/artifact/hdfs", "resolve/artifact/s3", "resolve/artifact/sftp", "resolve/meta", "resolve/rest"},
		"fs":                     {"cache", "resolve", "resolve/artifact", "resolve/meta"},
		"fs/fusefs":              {"cache", "fs", "fs/fusefs/sessionfile"},
		"fs/fusefs/sessionfile":  {},
		"resolve":                {"cache", "cache/lru", "resolve/answers", "resolve/artifact", "resolve/meta", "resolve/rest"},
		"resolve/answers":        {"cache", "cache/disk", "cache/lru"},
		"resolve/artifact":       {"cache", "resolve/rest"},
		"resolve/artifact/azure": {"resolve/artifact", "resolve/rest"},
		"resolve/artifact/gcs":   {"resolve/artifact", "resolve/rest"},
		"resolve/artifact/hdfs":  {"cache", "resolve/artifact", "resolve/rest"},
		"resolve/artifact/s3":    {"resolve/artifact", "resolve/ini", "resolve/rest"},
		"resolve/artifact/sftp":  {"cache", "resolve/artifact", "resolve/rest"},
		"resolve/meta":           {"cache", "resolve/answers", "resolve/rest"},
		"resolve/ini":            {},
		"resolve/rest":           {"cache", "resolve/ini"},
		"cache":                  {"cache/disk", "cache/limit", "cache/lru"},
		"cache/disk":             {},
		"cache/limit":            {},
		"cache/lru":              {},
		"test":                   {},
		"test/link":              {},
		"test/cold":              {},
		"test/count":             {},
		"test/anykey":            {"test/draw"},
		"test/dbserver":          {},
		"test/draw":              {},
		"test/fault":             {"test/count"},
		"test/run":               {},

		"fs/storetest":               {"resolve", "resolve/meta"}, // for the tests of fs and fs/fusefs
		"resolve/artifact/cloudtest": {"cache"},                   // for the drivers' tests
	}
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, module+"/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines(out) {
		f := strings.Fields(l)
		pkg := strings.TrimPrefix(f[0], module+"/")
		allowed, ok := may[pkg]
		if !ok {
			t.Errorf("%s is a package that nobody planned", pkg)
		}
		for _, imp := range f[1:] {
			if own, ok := strings.CutPrefix(imp, module+"/"); ok && !slices.Contains(allowed, own) {
				t.Errorf("%s imports %s", pkg, own)
			}
			if strings.Contains(imp, "hanwen/go-fuse") && pkg != "fs/fusefs" && pkg != "test/fault" {
				t.Errorf("%s imports go-fuse", pkg)
			}
			for _, driver := range []string{"gocloud.dev/blob/", "github.com/aws/aws-sdk-go-v2/service/", "github.com/Azure/", "cloud.google.com/", "github.com/pkg/sftp", "golang.org/x/crypto/ssh", "github.com/colinmarc/hdfs"} {
				if strings.HasPrefix(imp, driver) && path.Dir(pkg) != "resolve/artifact" && pkg != "test" {
					t.Errorf("%s links %s, which the drivers below resolve/artifact alone should", pkg, imp)
				}
			}
		}
	}
	// Nor do the tests of the tree know of the kernel.
	grep, _ := exec.Command("grep", "-l", "hanwen/go-fuse", "-r", "../fs", "--include=*.go", "--exclude-dir=fusefs").Output()
	for _, f := range lines(grep) {
		t.Errorf("%s imports go-fuse", f)
	}
}

// testFunctions are the tests of a directory's package, with what stands above
// each.
func testFunctions(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if ok && fn.Recv == nil && fn.Name.Name != "TestMain" && (strings.HasPrefix(fn.Name.Name, "Test") || strings.HasPrefix(fn.Name.Name, "Fuzz")) {
				found[fn.Name.Name] = fn.Doc.Text()
			}
		}
	}
	return found
}

// testDirs are the packages that have tests.
var testDirs = []string{"../cache", "../cache/disk", "../cache/limit", "../cmd/mlflowfs", "../fs", "../fs/fusefs", "../resolve", "../resolve/artifact", "../resolve/artifact/azure", "../resolve/artifact/gcs", "../resolve/artifact/hdfs", "../resolve/artifact/s3", "../resolve/artifact/sftp", "../resolve/meta", "../resolve/rest", ".", "count", "fault", "run"}

// TestEachTestSaysWhatWouldBreak fails when a test does not say in its first line
// when it fails, so that who sees it fail knows what is broken.
func TestEachTestSaysWhatWouldBreak(t *testing.T) {
	t.Parallel()
	n := 0
	for _, dir := range testDirs {
		for name, doc := range testFunctions(t, dir) {
			n++
			if !strings.HasPrefix(doc, name+" fails when") {
				t.Errorf("%s: the comment of %s does not begin with \"%s fails when\": %q", dir, name, name, doc)
			}
		}
	}
	if n < 150 {
		t.Errorf("only %d tests were found", n)
	}
}

var (
	promiseRow = regexp.MustCompile(`(?m)^\| (.+) \| (.+) \|$`)
	namedTest  = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`(?: \\(([a-z0-9/]+)\\))?")
)

// TestEachPromiseHasATest fails when a promise of docs/reliability.md names no
// test, or one that is none. All of them are tests of make test: what a soak has
// beside them is more of the same.
func TestEachPromiseHasATest(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	promises := 0
	for _, row := range promiseRow.FindAllStringSubmatch(string(page), -1) {
		if row[1] == "promise" {
			continue
		}
		promises++
		named := namedTest.FindAllStringSubmatch(row[2], -1)
		if len(named) == 0 {
			t.Errorf("no test is named for: %s", row[1])
		}
		for _, m := range named { // "`TestA` (cache)", or one of this package
			dir := "."
			if m[2] != "" {
				dir = "../" + m[2]
			}
			if _, ok := testFunctions(t, dir)[m[1]]; !ok {
				t.Errorf("%s is no test of %s: %s", m[1], dir, row[1])
			}
		}
	}
	if promises < 25 {
		t.Errorf("only %d promises were found", promises)
	}
}

// TestEachMutantCanBePlanted fails when the code that a fault of test/mutants is
// planted in is no more: nobody would see whether a test finds it.
func TestEachMutantCanBePlanted(t *testing.T) {
	t.Parallel()
	const check = `
from list import MUTANTS
for m in MUTANTS:
    if open("../../" + m["file"]).read().count(m["old"]) != 1:
        print(m["name"], "can't be planted in", m["file"])
`
	c := exec.Command("python3", "-B", "-c", check)
	c.Dir = "mutants"
	if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%s%v", out, err)
	}
}

// TestNothingIsSkipped fails when a test can end without having tested anything.
func TestNothingIsSkipped(t *testing.T) {
	t.Parallel()
	for _, dir := range testDirs {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range skips.FindAll(b, -1) {
				t.Errorf("%s may skip a test: %q", name, m)
			}
		}
	}
}

var skips = regexp.MustCompile(`\bt\.Skip\w*\(|testing\.Short\(\)|Getuid\(\) != 0 \{\n\t+return`)

// TestEachLongTestIsInTheSoak fails when a test that takes longer in a soak is not
// among those that make soak runs, or when one of these is none.
func TestEachLongTestIsInTheSoak(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^LONG = \^Test\(([A-Za-z|]+)\)\$\$$`).FindSubmatch(makefile)
	if m == nil {
		t.Fatal("the Makefile has no LONG")
	}
	listed := strings.Split(string(m[1]), "|")
	var long []string
	for _, dir := range []string{".", "../fs/fusefs"} {
		files, _ := filepath.Glob(filepath.Join(dir, "*_test.go"))
		for _, name := range files {
			for _, f := range strings.Split(readFile(name), "\nfunc Test")[1:] {
				body, _, _ := strings.Cut(f, "\n}\n")
				if asksForTime.MatchString(body) {
					long = append(long, f[:strings.IndexByte(f, '(')])
				}
			}
		}
	}
	slices.Sort(listed)
	slices.Sort(long)
	if !slices.Equal(listed, long) {
		t.Errorf("make soak runs %q, and what takes longer in a soak is %q", listed, long)
	}
}

var asksForTime = regexp.MustCompile(`\b(soak (>|==)|soak\(\)|length\()`)
