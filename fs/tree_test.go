package fs

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	iofs "io/fs"
	"log/slog"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/fs/storetest"
	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sample is a store with a little of everything, and its tree.
func sample(t *testing.T) (*Node, storetest.Store) {
	t.Helper()
	s := storetest.New(t)
	return treeOf(t, s), s
}

func treeOf(t *testing.T, s storetest.Store) *Node {
	t.Helper()
	root, err := New(Options{Resolver: s.Resolver(0), Cache: cache.New(cache.Options{}), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// TestTreeIsAFileSystem fails when a program that walks, lists, stats or reads the
// tree gets answers that contradict each other (testing/fstest), or when a name
// that must be there is missing.
func TestTreeIsAFileSystem(t *testing.T) {
	t.Parallel()
	root, _ := sample(t)
	tables, err := iofs.Glob(asFS{root}, "experiments/*/runs.csv")
	for _, name := range tables { // whose sizes are known when they are whole
		_, rerr := iofs.ReadFile(asFS{root}, name)
		err = errors.Join(err, rerr)
	}
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	if err := fstest.TestFS(asFS{root},
		"runs/"+storetest.RunID(1)+"/a/b/c.txt",
		"runs/"+storetest.RunID(1)+"/names/sp ace #?%41+é😀",
		"runs/"+storetest.RunID(1)+"/net/registered_model_meta",
		"runs/"+storetest.RunID(2),
		"models/at@sign/10/MLmodel", "models/at@sign@3", "models/at@sign/latest", "models/at@sign/Production", "models/at@sign/Archived",
		"models/"+storetest.ModelID+"/registered_model_meta",
		"experiments/Default/same-00000001/run.json", "experiments/Default/same-00000002/artifacts", "experiments/Default/%2E%2E",
		"experiments/a%2Fb", "experiments/%2E%2E", "experiments/100%252F sure", "experiments/"+strings.Repeat("é", 126)+"-4",
	); err != nil {
		t.Error(err)
	}
}

// TestTreeMeansWhatMLflowMeans fails when a path of the tree leads to other bytes,
// another link, another time or another model version than MLflow means by it, or
// when something is there that MLflow does not have.
func TestTreeMeansWhatMLflowMeans(t *testing.T) {
	t.Parallel()
	root, _ := sample(t)
	f := asFS{root}
	for name, want := range map[string]string{
		"runs/" + storetest.RunID(1) + "/a/b/c.txt":                 "deep",
		"runs/" + storetest.RunID(1) + "/empty":                     "",
		"runs/" + storetest.RunID(1) + "/net/registered_model_meta": "model_name: null\nmodel_version: null\n",
		"models/at@sign@3/registered_model_meta":                    "model_name: at@sign\nmodel_version: '2'\n",
		"models/at@sign/LATEST/registered_model_meta":               "model_name: at@sign\nmodel_version: '10'\n",
		"models/at@sign/pRODUCTION/registered_model_meta":           "model_name: at@sign\nmodel_version: '1'\n",
		"models/at@sign/none/registered_model_meta":                 "model_name: at@sign\nmodel_version: '2'\n",
		"models/" + storetest.ModelID + "/MLmodel":                  "flavors: {}\n",
		"experiments/Default/same-00000001/artifacts/.dot":          "y",
	} {
		b, err := iofs.ReadFile(f, name)
		if err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	for _, name := range []string{
		"runs/" + storetest.RunID(9), "runs/.git", "runs/" + storetest.RunID(1) + "/nothing", "runs/" + storetest.RunID(1) + "/registered_model_meta",
		"models/at@sign/4", "models/at@sign/01", "models/at@sign/Staging", "models/at@sign@none", "models/none", "models/m-" + strings.Repeat("0", 32),
		"experiments/Default/deleted", "experiments/Default/same", "experiments/a", "experiments/none", "none",
	} {
		if _, err := iofs.Stat(f, name); !errors.Is(err, iofs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	links := map[string]string{"models/at@sign@3": "at@sign/2", "models/at@sign/latest": "10", "experiments/Default/same-00000002/artifacts": "../../../runs/" + storetest.RunID(2)}
	for name, want := range links {
		if got, err := f.ReadLink(name); got != want || err != nil {
			t.Errorf("%s leads to %q, %v", name, got, err)
		}
	}
	mtimes := map[string]int64{
		"runs/" + storetest.RunID(1) + "/a/b/c.txt": 2_000_000, "runs/" + storetest.RunID(1) + "/net/MLmodel": 2_000_000, "runs/" + storetest.RunID(2): 3_000_000,
		"models/" + storetest.ModelID + "/MLmodel": 1_500_000, "models/at@sign/1/MLmodel": 1_700_000, "models/at@sign": 1_600_000,
	}
	for name, want := range mtimes {
		if st, err := f.Lstat(name); err != nil || st.ModTime().UnixMilli() != want {
			t.Errorf("%s is of %v, %v", name, st.ModTime(), err)
		}
	}
	runs, err := iofs.ReadDir(f, "runs")
	if err != nil || len(runs) != 3 {
		t.Errorf("%d runs are listed, %v", len(runs), err)
	}
	if _, err := iofs.Stat(f, "runs/"+storetest.RunID(4)); err != nil {
		t.Errorf("a deleted run does not open by its id: %v", err)
	}
	var doc struct {
		Info struct {
			RunID string `json:"run_id"`
		}
	}
	b, _ := iofs.ReadFile(f, "experiments/Default/same-00000001/run.json")
	if err := json.Unmarshal(b, &doc); err != nil || doc.Info.RunID != storetest.RunID(1) {
		t.Errorf("run.json: %s, %v", b, err)
	}
	if byID, err := iofs.ReadFile(f, "experiments/Default/"+storetest.RunID(1)+"/run.json"); err != nil || string(byID) != string(b) {
		t.Errorf("run.json by the run's id: %s, %v", byID, err)
	}
}

// TestDirectoriesThatLast fails when the server is asked again whether a model or a prompt is
// still a directory, whenever somebody asks anew for what lies in it; or when it is not asked
// of what may be another thing by then.
func TestDirectoriesThatLast(t *testing.T) {
	t.Parallel()
	root, _ := sample(t)
	for name, want := range map[string]bool{
		".": true, AboutDir: true, "models": true, "prompts": true,
		"runs": false, "experiments": false, "datasets": false, "models/at@sign": false, "runs/" + storetest.RunID(1): false,
	} {
		n, err := asFS{root}.walk(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, got := n.Dir.(Lasting); got != want {
			t.Errorf("what is in %s lasts: %v, want %v", name, got, want)
		}
	}
}

// TestRunsAreListedNewestFirst fails when `ls -U runs` does not begin with the
// newest run.
func TestRunsAreListedNewestFirst(t *testing.T) {
	t.Parallel()
	root, _ := sample(t)
	d, _ := root.Dir.Lookup(context.Background(), "runs")
	l, err := d.Dir.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		e, err := l.Next(context.Background())
		if err != nil {
			break
		}
		got = append(got, e.Name)
	}
	if d := cmp.Diff([]string{storetest.RunID(2), storetest.RunID(3), storetest.RunID(1)}, got); d != "" {
		t.Error(d)
	}
}

// TestRunsAreListedOnceWhilePagesShift fails when a listing shows a run twice, or
// leaves an old one out, because a run that began meanwhile moved the others from
// one page of the server's answers to the next, or when the listing never ends
// because the server gives the same page again.
func TestRunsAreListedOnceWhilePagesShift(t *testing.T) {
	t.Parallel()
	at := func(id string, s int64) meta.Run { return meta.Run{ID: id, Start: time.Unix(s, 0)} }
	answers := map[string]meta.Page[meta.Run]{
		"":  {Items: []meta.Run{at("d", 9), at("c", 5), at("b", 5)}, Next: "1"},
		"1": {Items: []meta.Run{at("c", 5), at("b", 5), at("a", 5), at("z", 1)}, Next: "2"},
		"2": {Items: []meta.Run{at("new", 8), at("../x", 0), at("y", 0)}, Next: "2"},
	}
	p := &pages[meta.Run]{
		search: func(_ context.Context, token string) (meta.Page[meta.Run], error) { return answers[token], nil },
		entry:  (&tree{r: resolve.New(resolve.Options{}), log: slog.New(slog.DiscardHandler)}).runEntry(),
	}
	var got []string
	for {
		e, err := p.Next(context.Background())
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Name)
	}
	if d := cmp.Diff([]string{"d", "c", "b", "a", "z", "y"}, got); d != "" {
		t.Error(d)
	}
}

// TestRunNamesAreUnique fails when two runs of an experiment have the same name in
// its directory, or one has a name that no file can have.
func TestRunNamesAreUnique(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 200)
	runs := []meta.Run{
		{ID: "11111111aaaa", Name: "twice"}, {ID: "22222222bbbb", Name: "twice"}, {ID: "11111111cccc", Name: "twice"},
		{ID: "33333333dddd", Name: "twice-22222222"}, {ID: "44444444eeee", Name: ""}, {ID: "55555555ffff", Name: "a/b"}, {ID: "66666666ffff", Name: long},
	}
	want := []string{"twice-11111111", "twice-22222222bbbb", "twice-11111111cccc", "twice-22222222", "44444444eeee", "a%2Fb", long[:246] + "-66666666"}
	if d := cmp.Diff(want, runNames(runs)); d != "" {
		t.Error(d)
	}
}

// FuzzEscapeIsReversible fails when the file name of some experiment, model or run
// does not lead back to it, is no valid file name, or is too long after it was cut.
func FuzzEscapeIsReversible(f *testing.F) {
	for _, s := range []string{"", ".", "..", "%", "%2F", "a/b", "100%", "%%2F", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e := Escape(s)
		if Unescape(e) != s || e == "" || e == "." || e == ".." || strings.ContainsAny(e, "/\x00") {
			t.Errorf("%q became %q and then %q", s, e, Unescape(e))
		}
		if short := shorten(e, "-12345678"); len(short) > MaxName || !strings.HasSuffix(short, "-12345678") {
			t.Errorf("%q was cut to %q", e, short)
		}
	})
}

// TestHostileNamesAreNotShown fails when a store's numbers, ids or aliases that
// can't be names are shown, or when one leads a link out of its directory.
func TestHostileNamesAreNotShown(t *testing.T) {
	t.Parallel()
	_, s := sample(t)
	s.Write("models/evil/meta.yaml", "name: evil\n")
	s.Write("models/evil/version-007/meta.yaml", "version: 7\ncurrent_stage: ../../x\nstatus: READY\n")
	s.Write("models/evil/version-..x/meta.yaml", "version: 8\n")
	s.Write("models/evil/aliases/up", "../../../etc")
	s.Write("models/evil/aliases/ok", "7")
	s.Write("0/"+"..hidden/meta.yaml", "status: 3\nlifecycle_stage: active\n")
	s.Write("0/models/"+storetest.ModelID[:33]+"0/meta.yaml", "model_id: "+storetest.ModelID[:33]+"0\nexperiment_id: '0'\nname: ../../up\nsource_run_id: "+storetest.RunID(1)+"\nartifact_location: /etc\nstatus: 2\n")
	f := asFS{treeOf(t, s)}
	var names []string
	for _, dir := range []string{"models", "models/evil", "runs", "runs/" + storetest.RunID(1)} {
		list, err := iofs.ReadDir(f, dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			names = append(names, e.Name())
			if to, err := f.ReadLink(dir + "/" + e.Name()); err == nil && strings.Contains(to, "..") {
				t.Errorf("%s/%s leads to %s", dir, e.Name(), to)
			}
		}
	}
	for _, n := range names {
		if strings.Contains(n, "..") || n == "007" || n == "evil@up" {
			t.Errorf("%q is shown", n)
		}
	}
	for _, n := range []string{"models/evil@up", "models/evil/007", "models/evil/latest", "runs/..hidden"} {
		if _, err := f.Lstat(n); !errors.Is(err, iofs.ErrNotExist) {
			t.Errorf("%s: %v", n, err)
		}
	}
}

// TestShrunkLocalFileIsStale fails when a local file that was replaced by a shorter
// one reads as if it ended early, instead of failing with ESTALE until the next
// look-up.
func TestShrunkLocalFileIsStale(t *testing.T) {
	t.Parallel()
	root, s := sample(t)
	f := asFS{root}
	name := "runs/" + storetest.RunID(1) + "/a/b/c.txt"
	n, err := f.walk(name)
	if err != nil {
		t.Fatal(err)
	}
	s.Write("0/"+storetest.RunID(1)+"/artifacts/a/b/c.txt", "de")
	if _, err := n.File.Open(context.Background()); !errors.Is(err, cache.ErrChanged) {
		t.Error(err)
	}
	if b, err := iofs.ReadFile(f, name); string(b) != "de" || err != nil {
		t.Errorf("the next look-up gives %q, %v", b, err)
	}
}
