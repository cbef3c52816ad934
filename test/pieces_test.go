package test

import (
	"encoding/json"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCodeIsInSmallPieces fails when something of the cache, of resolve or of the
// commands is too large to be read at a glance: a function of more than 60 lines, a file
// of more than 400, also one of tests but for the cache's, or in the cache a struct with
// more than 12 fields, which is more than one thing.
func TestCodeIsInSmallPieces(t *testing.T) {
	t.Parallel()
	const mostLines, mostOfAFile, mostFields = 60, 400, 12
	for dir, fields := range map[string]int{"../cache": mostFields, "../resolve": 1000, "../cmd": 1000} {
		found := 0
		err := filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
			isTest := strings.HasSuffix(name, "_test.go")
			if err != nil || e.IsDir() || !strings.HasSuffix(name, ".go") || isTest && dir == "../cache" {
				return err
			}
			found++
			set := token.NewFileSet()
			f, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			if n := set.File(f.FileStart).LineCount() - 1; n > mostOfAFile { // the last line is empty
				t.Errorf("%s has %d lines", name, n)
			}
			if isTest {
				return nil
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch x := n.(type) {
				case *ast.FuncDecl:
					if n := set.Position(x.End()).Line - set.Position(x.Pos()).Line + 1; n > mostLines {
						t.Errorf("%s: %s has %d lines", name, x.Name.Name, n)
					}
				case *ast.TypeSpec:
					if s, ok := x.Type.(*ast.StructType); ok && s.Fields.NumFields() > fields {
						t.Errorf("%s: %s has %d fields", name, x.Name.Name, s.Fields.NumFields())
					}
				}
				return true
			})
			return nil
		})
		if err != nil || found < 10 {
			t.Errorf("%s: %d files, %v", dir, found, err)
		}
	}
}

// TestNobodyLooksAtWhichStoreItIs fails when code outside a store's own package asks of
// which type it is: it would have to be changed with each new store, and a decorator
// around one would be taken for another.
func TestNobodyLooksAtWhichStoreItIs(t *testing.T) {
	t.Parallel()
	packages, exports := listPackages(t)
	found := 0
	for _, p := range packages {
		set := token.NewFileSet()
		var files []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(set, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		conf := types.Config{Importer: importer.ForCompiler(set, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })}
		info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
		if _, err := conf.Check(p.ImportPath, set, files, info); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				x, ok := n.(*ast.TypeAssertExpr)
				if !ok {
					return true
				}
				found++
				name, ok := info.Types[x.X].Type.(*types.Named)
				if ok && name.Obj().Pkg() != nil && name.Obj().Pkg().Path() != p.ImportPath && slices.Contains(storeTypes, name.Obj().Pkg().Path()+"."+name.Obj().Name()) {
					t.Errorf("%s: a %s is asked for its type", set.Position(x.Pos()), name)
				}
				return true
			})
		}
	}
	if found < 5 {
		t.Errorf("only %d type assertions were found", found)
	}
}

// storeTypes are the interfaces behind which stores are.
var storeTypes = []string{
	module + "/resolve/artifact.Store",
	module + "/resolve/meta.Store", module + "/resolve/meta.Tracking", module + "/resolve/meta.Registry",
}

// goPackage is what go list tells of a package.
type goPackage struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	DepOnly                 bool
}

// listPackages are our packages that may have a store, and the file of each package's
// types, by its path.
func listPackages(t *testing.T) (ours []goPackage, exports map[string]string) {
	t.Helper()
	out, err := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,DepOnly", module+"/cmd/...", module+"/fs/...", module+"/resolve/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	exports = map[string]string{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p goPackage
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		if exports[p.ImportPath] = p.Export; !p.DepOnly {
			ours = append(ours, p)
		}
	}
	return ours, exports
}
