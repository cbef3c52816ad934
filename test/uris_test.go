package test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// difference is a row of the table of docs/uris.md: what mlflowfs takes in another
// way than MLflow's client, on purpose.
type difference struct {
	row    string // the row's first cell
	met    func(uri string, s *seed) bool
	always string // a URI that shows it; {name} is a run's id
	v2     bool   // MLflow 2's client differs, too
}

var differences = []difference{
	{"`#` or `?` in a path", func(u string, _ *seed) bool { return strings.ContainsAny(u, "#?") }, "runs:/{wide}/doc/text.txt#x", true},
	{"`%` and two digits in a path", func(u string, _ *seed) bool { return strings.Contains(u, "%2") }, "runs:/{wide}/doc%2Ftext.txt", true},
	{"`runs:/<run_id>`, `runs:/<run_id>/`", func(u string, s *seed) bool { return strings.Count(strings.Trim(u, "/"), "/") == 1 && isRuns(u) }, "runs:/{empty}", true},
	{"a path that is not there, or a file, with a last slash", func(u string, _ *seed) bool { return strings.HasSuffix(u, "/") }, "runs:/{wide}/none/", true},
	{"a path that is not there", func(u string, _ *seed) bool {
		return strings.Contains(u, "none") || strings.Contains(u, ".txt/x") || strings.HasSuffix(u, "@champion/1")
	}, "runs:/{wide}/doc/none", true},
	{"a path below `models:/m-<id>`", func(u string, _ *seed) bool { return strings.HasPrefix(u, "models:/m-") }, "", false},
	{"`models:/<name>/<version>` of a name with an `@`", func(u string, _ *seed) bool { return strings.HasPrefix(u, "models:/with@sign and space/") }, "models:/with@sign and space/1/MLmodel", true},
	{"what a run and its logged model of one name have both", func(u string, s *seed) bool { return strings.HasPrefix(u, "runs:/"+s.Second+"/model") }, "", false},
	{"`runs://<host>/…`", func(u string, _ *seed) bool { return strings.HasPrefix(u, "runs://host") }, "runs://host/{wide}/doc", true},
	{"`models:/<name>@latest`, with MLflow 2", func(u string, s *seed) bool { return !s.V3 && strings.Contains(strings.ToLower(u), "@latest") }, "", true},
	{"`.` and `..` in a path", func(u string, _ *seed) bool { return strings.Contains(u, "/.") }, "", true},
}

func isRuns(u string) bool { return strings.HasPrefix(u, "runs:/") }

// uriAnswer is what a URI was found to mean.
type uriAnswer struct {
	Download struct {
		Error, Returned string
		Tree            map[string]string
	}
	List struct {
		Error string
		List  [][3]any
	}
}

// TestURIsMeanWhatTheClientMeans fails when a URI that MLflow's client takes is
// refused, or one that it refuses is taken; when a download lies elsewhere below its
// destination, a listing has other paths, or the mount other bytes; but for what the
// table in docs/uris.md tells.
func TestURIsMeanWhatTheClientMeans(t *testing.T) {
	t.Parallel()
	page := readFile("../docs/uris.md")
	for _, d := range differences {
		if !strings.Contains(page, "| "+d.row+" |") {
			t.Errorf("docs/uris.md has no row %q", d.row)
		}
	}
	for _, kind := range []string{"server 3.17", "server 2.22"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := shared.get(t, kind)
			m := mountAt(t, s.uri, nil)
			rng := rand.New(rand.NewPCG(seedOf(t), 17))
			rounds, seen := 0, map[string]bool{}
			for end := time.Now().Add(length(0, 0.1)); rounds == 0 || time.Now().Before(end); rounds++ {
				uris := someURIs(rng, s, 16)
				if rounds == 0 {
					uris = append(everyForm(s), uris...)
				}
				holdURIs(t, s, m, uris, seen)
			}
			for _, d := range differences {
				if d.always != "" && (s.V3 || d.v2) && !seen[d.row] {
					t.Errorf("docs/uris.md tells of a difference that is none: %s", d.row)
				}
			}
			figure(t, "%s: %d rounds of URIs", kind, rounds)
		})
	}
}

// everyForm is a URI of each form, and those that show a difference.
func everyForm(s *seeded) (uris []string) {
	for _, d := range differences {
		if d.always != "" {
			uris = append(uris, strings.NewReplacer("{wide}", s.Wide, "{empty}", s.Empty).Replace(d.always))
		}
	}
	for _, u := range []string{"echo/latest", "echo/LaTeSt", "echo@latest", "echo@LATEST", "echo@champion/1", "echo@3/MLmodel", "echo/production/MLmodel", "echo/1/", "echo/none", "echo@none", "none/1", "a:b/1", "echo", "echo@", "@champion", "/echo//1", "echo/1//MLmodel", "echo/1/MLmodel/", " sp ace.d'or/1", "with@sign and space@best/MLmodel", ""} {
		uris = append(uris, "models:/"+u)
	}
	second, wide := "runs:/"+s.Second+"/", "runs:/"+s.Wide+"/"
	return append(uris, second+"model2", second+"model2/", second+"model2/MLmodel", second+"model", wide+"model/MLmodel", wide+"model", wide+"model/",
		wide+"doc/", wide+"doc", wide+"doc//text.txt", "runs:/"+s.Wide+"//doc/text.txt", wide+"deep/0/1/2", "runs:///"+s.Wide+"/doc", "runs:/", "runs:/../x/y")
}

// someURIs are n URIs by chance.
func someURIs(rng *rand.Rand, s *seeded, n int) (uris []string) {
	one := func(of ...string) string { return of[rng.IntN(len(of))] }
	model := func() string {
		bases := []string{"echo/1", "echo/2", "echo/77", "echo/LATEST", "echo/Staging", "echo/none", "echo@champion", "echo@Latest", "echo@none", "none/1", " sp ace.d'or@best", "with@sign and space@best"}
		return "models:/" + one(append(bases, s.Models...)...) + one("", "", "/MLmodel", "/none", "/python_model.pkl")
	}
	run := func() string {
		if rng.IntN(2) == 0 {
			return "runs:/" + s.Second + "/" + one("model2", "model2/MLmodel", "model/MLmodel", "model", "none", "model/extra")
		}
		return "runs:/" + s.Wide + "/" + one("doc", "doc/text.txt", "doc/dict.json", "deep", "deep/0/1", "model", "model/MLmodel", "names/sp ace.txt", "names/é.txt", "names/plus+.txt", "names/.dot", "empty", "none", "doc/text.txt/x")
	}
	place := func() string {
		root := one("mlflow-artifacts:/", "file://"+s.server.artifacts()+"/", s.server.artifacts()+"/")
		return root + s.experiment() + "/" + s.Wide + "/artifacts/" + one("doc", "doc/text.txt", "deep/0", "none", "names/sp ace.txt", "names/é.txt")
	}
	for range n {
		u := []func() string{model, run, place}[rng.IntN(3)]()
		switch rng.IntN(8) {
		case 0, 1:
			u += "/"
		case 2:
			if i := strings.LastIndexByte(u, '/'); i > 8 && strings.HasPrefix(u, "runs:") {
				u = u[:i] + "/" + u[i:]
			}
		case 3:
			u += one("#x", "?x=1")
		}
		uris = append(uris, u)
	}
	return uris
}

// experiment is the id of the experiment of the run wide.
func (s *seeded) experiment() string {
	dirs, _ := filepath.Glob(filepath.Join(s.server.artifacts(), "*", s.Wide))
	if len(dirs) == 0 {
		return "no-experiment"
	}
	return filepath.Base(filepath.Dir(dirs[0]))
}

// holdURIs asks MLflow's client, mlflowfs and the mount for the same, and notes in
// seen which rows of the table they differ by.
func holdURIs(t *testing.T, s *seeded, m *mount, uris []string, seen map[string]bool) {
	t.Helper()
	slices.Sort(uris)
	uris = slices.Compact(uris)
	in, err := json.Marshal(uris)
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"MLFLOW_TRACKING_URI=" + s.uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES=0"}
	out := s.release.python(t, env, string(in), "uris.py", t.TempDir())
	var answers []uriAnswer
	if err := json.Unmarshal([]byte(out[strings.LastIndexByte(out, '\n')+1:]), &answers); err != nil || len(answers) != len(uris) {
		t.Fatal(err, tail(out))
	}
	for i, uri := range uris {
		differs := hold(t, env, uri, answers[i])
		if differs == "" {
			differs = holdMount(m, uri, answers[i])
		}
		if differs == "" {
			continue
		}
		at := slices.IndexFunc(differences, func(d difference) bool { return d.met(uri, s.seed) })
		if at < 0 {
			t.Errorf("%s: %s", uri, differs)
			continue
		}
		seen[differences[at].row] = true
	}
}

// hold says how mlflowfs download and ls differ from the client's answer.
func hold(t *testing.T, env []string, uri string, want uriAnswer) string {
	t.Helper()
	dst := t.TempDir()
	out, err := command(t, env, "download", "--quiet", "--dst", dst, uri)
	switch {
	case (err != nil) != (want.Download.Error != ""):
		return fmt.Sprintf("download: %v; the client: %q, %v", err, want.Download.Error, want.Download.Tree)
	case err == nil:
		returned, rerr := filepath.Rel(dst, strings.TrimSuffix(string(out), "\n"))
		if rerr != nil || returned != want.Download.Returned {
			return fmt.Sprintf("download gives %q, the client %q", returned, want.Download.Returned)
		}
		if d := cmp.Diff(want.Download.Tree, treeOf(t, dst)); d != "" {
			return "download (-client +mlflowfs): " + d
		}
	}
	out, err = command(t, env, "ls", "--json", uri)
	if (err != nil) != (want.List.Error != "") {
		return fmt.Sprintf("ls: %v; the client: %q, %v", err, want.List.Error, want.List.List)
	}
	if err != nil {
		return ""
	}
	var infos []struct {
		Path string  `json:"path"`
		Dir  bool    `json:"is_dir"`
		Size float64 `json:"file_size"`
	}
	if err := json.Unmarshal(out, &infos); err != nil {
		t.Fatal(err)
	}
	list := [][3]any{}
	for _, f := range infos {
		list = append(list, [3]any{f.Path, f.Dir, f.Size})
	}
	slices.SortFunc(list, func(a, b [3]any) int { return strings.Compare(a[0].(string), b[0].(string)) })
	if d := cmp.Diff(want.List.List, list); d != "" {
		return "ls (-client +mlflowfs): " + d
	}
	return ""
}

// holdMount says how the mount differs from the client's download, where it has a
// path of that URI.
func holdMount(m *mount, uri string, want uriAnswer) string {
	at := ""
	if rest, ok := strings.CutPrefix(uri, "runs:/"); ok {
		at = m.path("runs", strings.Trim(rest, "/"))
	} else if rest, ok := strings.CutPrefix(uri, "models:/"); ok && !strings.HasPrefix(rest, "/") {
		at = m.path("models", strings.TrimRight(rest, "/"))
	}
	if at == "" || want.Download.Error != "" {
		return ""
	}
	for name, digest := range want.Download.Tree {
		rel, err := filepath.Rel(want.Download.Returned, name)
		if digest == "" || err != nil || strings.HasPrefix(rel, "..") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(at, rel))
		if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(uri, "/") {
			continue // what is in a logged model's directory stands below its name
		}
		if got := sha256.Sum256(b); err != nil || hex.EncodeToString(got[:]) != digest {
			return fmt.Sprintf("the mount's %s: %v, %d bytes that are not the client's", filepath.Join(at, rel), err, len(b))
		}
	}
	return ""
}

// treeOf is what uris.py's tree gives.
func treeOf(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, p)
		switch {
		case err != nil || rel == ".":
			return err
		case e.IsDir():
			out[rel] = ""
			return nil
		}
		b, err := os.ReadFile(p)
		sum := sha256.Sum256(b)
		out[rel] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
