package fs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// storeDir is a FileStore in the making.
type storeDir struct {
	t   *testing.T
	dir string
}

func (s storeDir) write(name, content string) {
	s.t.Helper()
	p := filepath.Join(s.dir, filepath.FromSlash(name))
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644)); err != nil {
		s.t.Fatal(err)
	}
}

func (s storeDir) experiment(id, name string) {
	b, _ := json.Marshal(name)
	s.write(id+"/meta.yaml", fmt.Sprintf("experiment_id: '%s'\nname: %s\nlifecycle_stage: active\ncreation_time: 1000\n", id, b))
}

// run gives the run's directory of artifacts.
func (s storeDir) run(experiment, id, name string, start, end int64, status int, stage string) string {
	b, _ := json.Marshal(name)
	dir := filepath.Join(s.dir, experiment, id, "artifacts")
	s.write(experiment+"/"+id+"/meta.yaml", fmt.Sprintf("run_id: %s\nexperiment_id: '%s'\nrun_name: %s\nstart_time: %d\nend_time: %d\nstatus: %d\nlifecycle_stage: %s\nartifact_uri: %s\n",
		id, experiment, b, start, end, status, stage, dir))
	return dir
}

func runID(n int) string { return fmt.Sprintf("%08x%024x", n, n) }

const modelID = "m-0123456789abcdef0123456789abcdef"

// sample is a store with a little of everything.
func sample(t *testing.T) (*Node, storeDir) {
	t.Helper()
	s := storeDir{t, t.TempDir()}
	s.experiment("0", "Default")
	s.experiment("1", "a/b")
	s.experiment("2", "..")
	s.experiment("3", "100%2F sure")
	s.experiment("4", strings.Repeat("é", 200))
	r1 := s.run("0", runID(1), "same", 1_000_000, 2_000_000, 3, "active")
	s.run("0", runID(2), "same", 3_000_000, 0, 1, "active")
	s.run("0", runID(3), "..", 2_000_000, 2_500_000, 4, "active")
	s.run("0", runID(4), "deleted", 2_000_000, 2_500_000, 3, "deleted")
	for name, content := range map[string]string{"empty": "", "a/b/c.txt": "deep", "names/sp ace #?%41+é😀": "x", ".dot": "y"} {
		s.write(strings.TrimPrefix(r1, s.dir+"/")+"/"+name, content)
	}
	s.write("0/models/"+modelID+"/meta.yaml", fmt.Sprintf("model_id: %s\nexperiment_id: '0'\nname: net\nsource_run_id: %s\nartifact_location: %s/0/models/%s/artifacts\nstatus: 2\ncreation_timestamp: 1500000\n", modelID, runID(1), s.dir, modelID))
	s.write("0/models/"+modelID+"/artifacts/MLmodel", "flavors: {}\n")
	s.write("models/at@sign/meta.yaml", "name: at@sign\ncreation_timestamp: 1600000\n")
	s.write("models/at@sign/aliases/3", "2")
	for v, stage := range map[int]string{1: "Production", 2: "None", 10: "Archived"} {
		s.write(fmt.Sprintf("models/at@sign/version-%d/meta.yaml", v), fmt.Sprintf("name: at@sign\nversion: %d\ncurrent_stage: %s\nsource: models:/%s\nstorage_location: %s/0/models/%s/artifacts\nstatus: READY\ncreation_timestamp: 1700000\n", v, stage, modelID, s.dir, modelID))
	}
	return s.tree(), s
}

func (s storeDir) tree() *Node { return s.treeFor(0) }

// treeFor is a tree whose answers are believed for ttl; 0: as usual.
func (s storeDir) treeFor(ttl time.Duration) *Node {
	s.t.Helper()
	log := slog.New(slog.DiscardHandler)
	st, _, err := meta.Open(s.dir, func(string) string { return "" }, log)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { st.Close() })
	root, err := New(Options{Resolver: resolve.New(resolve.Options{Tracking: st, Log: log, TTL: ttl}), Cache: cache.New(cache.Options{}), Log: log, Scope: "of the test"})
	if err != nil {
		s.t.Fatal(err)
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
		"runs/"+runID(1)+"/a/b/c.txt",
		"runs/"+runID(1)+"/names/sp ace #?%41+é😀",
		"runs/"+runID(1)+"/net/registered_model_meta",
		"runs/"+runID(2),
		"models/at@sign/10/MLmodel", "models/at@sign@3", "models/at@sign/latest", "models/at@sign/Production", "models/at@sign/Archived",
		"models/"+modelID+"/registered_model_meta",
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
		"runs/" + runID(1) + "/a/b/c.txt":                  "deep",
		"runs/" + runID(1) + "/empty":                      "",
		"runs/" + runID(1) + "/net/registered_model_meta":  "model_name: null\nmodel_version: null\n",
		"models/at@sign@3/registered_model_meta":           "model_name: at@sign\nmodel_version: '2'\n",
		"models/at@sign/LATEST/registered_model_meta":      "model_name: at@sign\nmodel_version: '10'\n",
		"models/at@sign/pRODUCTION/registered_model_meta":  "model_name: at@sign\nmodel_version: '1'\n",
		"models/at@sign/none/registered_model_meta":        "model_name: at@sign\nmodel_version: '2'\n",
		"models/" + modelID + "/MLmodel":                   "flavors: {}\n",
		"experiments/Default/same-00000001/artifacts/.dot": "y",
	} {
		b, err := iofs.ReadFile(f, name)
		if err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	for _, name := range []string{
		"runs/" + runID(9), "runs/.git", "runs/" + runID(1) + "/nothing", "runs/" + runID(1) + "/registered_model_meta",
		"models/at@sign/4", "models/at@sign/01", "models/at@sign/Staging", "models/at@sign@none", "models/none", "models/m-" + strings.Repeat("0", 32),
		"experiments/Default/deleted", "experiments/Default/same", "experiments/a", "experiments/none", "none",
	} {
		if _, err := iofs.Stat(f, name); !errors.Is(err, iofs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	links := map[string]string{"models/at@sign@3": "at@sign/2", "models/at@sign/latest": "10", "experiments/Default/same-00000002/artifacts": "../../../runs/" + runID(2)}
	for name, want := range links {
		if got, err := f.ReadLink(name); got != want || err != nil {
			t.Errorf("%s leads to %q, %v", name, got, err)
		}
	}
	mtimes := map[string]int64{
		"runs/" + runID(1) + "/a/b/c.txt": 2_000_000, "runs/" + runID(1) + "/net/MLmodel": 2_000_000, "runs/" + runID(2): 3_000_000,
		"models/" + modelID + "/MLmodel": 1_500_000, "models/at@sign/1/MLmodel": 1_700_000, "models/at@sign": 1_600_000,
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
	if _, err := iofs.Stat(f, "runs/"+runID(4)); err != nil {
		t.Errorf("a deleted run does not open by its id: %v", err)
	}
	var doc struct {
		Info struct {
			RunID string `json:"run_id"`
		}
	}
	b, _ := iofs.ReadFile(f, "experiments/Default/same-00000001/run.json")
	if err := json.Unmarshal(b, &doc); err != nil || doc.Info.RunID != runID(1) {
		t.Errorf("run.json: %s, %v", b, err)
	}
	if byID, err := iofs.ReadFile(f, "experiments/Default/"+runID(1)+"/run.json"); err != nil || string(byID) != string(b) {
		t.Errorf("run.json by the run's id: %s, %v", byID, err)
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
	if d := cmp.Diff([]string{runID(2), runID(3), runID(1)}, got); d != "" {
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
		if short := shorten(e, "-12345678"); len(short) > maxName || !strings.HasSuffix(short, "-12345678") {
			t.Errorf("%q was cut to %q", e, short)
		}
	})
}

// FuzzFatalTakesAnyBytes fails when an unexpected /proc/PID/status ends the daemon.
func FuzzFatalTakesAnyBytes(f *testing.F) {
	f.Add([]byte("State:\tS (sleeping)\nSigPnd:\t0000000000000100\nSigBlk:\tffffffffffffffff\n"))
	f.Fuzz(func(t *testing.T, b []byte) { fatal(b) })
}

// TestOnlyFatalSignalsInterrupt fails when a read ends with EINTR although the
// program will live on (a timer's tick, an ignored or a blocked signal), or when a
// killed program stays until the server answers.
func TestOnlyFatalSignalsInterrupt(t *testing.T) {
	t.Parallel()
	status := func(pending, blocked, ignored, caught uint64) []byte {
		return fmt.Appendf(nil, "Name:\tcat\nState:\tD (disk sleep)\nSigPnd:\t0\nShdPnd:\t%016x\nSigBlk:\t%016x\nSigIgn:\t%016x\nSigCgt:\t%016x\n", pending, blocked, ignored, caught)
	}
	const term, alarm, urg, kill = 15, 14, 23, 9
	for name, c := range map[string]struct {
		status []byte
		want   bool
	}{
		"nothing":       {status(0, 0, 0, 0), false},
		"kill":          {status(mask(kill), ^uint64(0), 0, 0), true},
		"term":          {status(mask(term), 0, 0, 0), true},
		"caught alarm":  {status(mask(alarm), 0, 0, mask(alarm)), false},
		"ignored term":  {status(mask(term), 0, mask(term), 0), false},
		"blocked term":  {status(mask(term), mask(term), 0, 0), false},
		"urg":           {status(mask(urg), 0, 0, 0), false},
		"caught + kill": {status(mask(alarm, kill), 0, 0, mask(alarm)), true},
		"zombie":        {[]byte("State:\tZ (zombie)\n"), true},
	} {
		if got := fatal(c.status); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestErrorsHaveTheirErrno fails when a program gets another errno than the one that
// says what is wrong, for instance EIO for a file that does not exist.
func TestErrorsHaveTheirErrno(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"no such file or directory": fmt.Errorf("x: %w", iofs.ErrNotExist),
		"permission denied":         &rest.Error{Status: 403},
		"operation not supported":   fmt.Errorf("x: %w", errors.ErrUnsupported),
		"stale file handle":         fmt.Errorf("x: %w", cache.ErrChanged),
		"interrupted system call":   fmt.Errorf("x: %w", errInterrupted),
		"input/output error":        context.Canceled,
	} {
		if got := errno(err).Error(); got != want {
			t.Errorf("%v is %s", err, got)
		}
	}
	if errno(nil) != 0 {
		t.Error("no error has an errno")
	}
}

// TestHostileNamesAreNotShown fails when a store's numbers, ids or aliases that
// can't be names are shown, or when one leads a link out of its directory.
func TestHostileNamesAreNotShown(t *testing.T) {
	t.Parallel()
	_, s := sample(t)
	s.write("models/evil/meta.yaml", "name: evil\n")
	s.write("models/evil/version-007/meta.yaml", "version: 7\ncurrent_stage: ../../x\nstatus: READY\n")
	s.write("models/evil/version-..x/meta.yaml", "version: 8\n")
	s.write("models/evil/aliases/up", "../../../etc")
	s.write("models/evil/aliases/ok", "7")
	s.write("0/"+"..hidden/meta.yaml", "status: 3\nlifecycle_stage: active\n")
	s.write("0/models/"+modelID[:33]+"0/meta.yaml", "model_id: "+modelID[:33]+"0\nexperiment_id: '0'\nname: ../../up\nsource_run_id: "+runID(1)+"\nartifact_location: /etc\nstatus: 2\n")
	f := asFS{s.tree()}
	var names []string
	for _, dir := range []string{"models", "models/evil", "runs", "runs/" + runID(1)} {
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
	name := "runs/" + runID(1) + "/a/b/c.txt"
	n, err := f.walk(name)
	if err != nil {
		t.Fatal(err)
	}
	s.write("0/"+runID(1)+"/artifacts/a/b/c.txt", "de")
	if _, err := n.File.Open(context.Background()); !errors.Is(err, cache.ErrChanged) {
		t.Error(err)
	}
	if b, err := iofs.ReadFile(f, name); string(b) != "de" || err != nil {
		t.Errorf("the next look-up gives %q, %v", b, err)
	}
}
