package test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/mlflowfs/mlflowfs"

// Imports run one way: each package may import those named here, of ours, and
// go-fuse is imported by fs alone.
func TestImportsRunOneWay(t *testing.T) {
	may := map[string][]string{
		"cmd/mlflowfs":     {"cache", "fs", "resolve", "resolve/artifact", "resolve/mlflow"},
		"fs":               {"cache", "resolve", "resolve/artifact", "resolve/mlflow"},
		"resolve":          {"cache", "resolve/artifact", "resolve/mlflow"},
		"resolve/artifact": {"cache", "resolve/mlflow"},
		"resolve/mlflow":   {"cache"},
		"cache":            {},
		"test":             {},
		"test/link":        {},
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
			if strings.Contains(imp, "hanwen/go-fuse") && pkg != "fs" {
				t.Errorf("%s imports go-fuse", pkg)
			}
			for _, driver := range []string{"gocloud.dev/blob/", "github.com/aws/aws-sdk-go-v2/service/", "github.com/Azure/", "cloud.google.com/"} {
				if strings.HasPrefix(imp, driver) && pkg != "cmd/mlflowfs" && pkg != "test" {
					t.Errorf("%s links %s, which cmd/mlflowfs alone should", pkg, imp)
				}
			}
		}
	}
	// Within fs, go-fuse stays in fuse_*.go.
	grep, _ := exec.Command("grep", "-l", "hanwen/go-fuse", "-r", "../fs", "--include=*.go").Output()
	for _, f := range lines(grep) {
		if !strings.HasPrefix(f, "../fs/fuse_") {
			t.Errorf("%s imports go-fuse", f)
		}
	}
}
