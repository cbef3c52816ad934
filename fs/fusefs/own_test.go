package fusefs

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/fs/storetest"
)

// anew reads the link that has a mount ask anew, and gives where it leads.
func anew(t *testing.T, point, uri string) string {
	t.Helper()
	link := filepath.Join(point, fs.AnewPath(uri))
	if strings.ContainsAny(fs.AnewPath(uri), "%?#: ") {
		t.Errorf("%s, which MLflow takes for another", fs.AnewPath(uri))
	}
	to, err := os.Readlink(link)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(filepath.Dir(link), to)
}

func treeOf(t *testing.T, s storetest.Store, ttl time.Duration) *fs.Node {
	t.Helper()
	root, err := fs.New(fs.Options{Resolver: s.Resolver(ttl), Cache: cache.New(cache.Options{}), Log: slog.New(slog.DiscardHandler), Scope: "of the test"})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// logsNet logs the model net for a run, with the artifacts that another one has.
func logsNet(s storetest.Store, run string) {
	id := strings.Replace(storetest.ModelID, "0", "f", 1)
	s.Write("0/models/"+id+"/meta.yaml", "model_id: "+id+"\nexperiment_id: '0'\nname: net\nsource_run_id: "+run+
		"\nartifact_location: "+s.Dir+"/0/models/"+storetest.ModelID+"/artifacts\nstatus: 2\ncreation_timestamp: 1500000\n")
}

// TestAnewShowsWhatIsThereNow fails when a program that asks where an artifact is, and is
// told, then reads what the mount, or the kernel, remembers of it: an old listing, an old
// file, a name that was not there, or a directory that was found as another; or when a
// program that stands in a directory loses it.
func TestAnewShowsWhatIsThereNow(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	id := storetest.RunID(2) // it runs
	of := "0/" + id + "/artifacts/"
	s.Write(of+"top.txt", "one")
	s.Write(of+"dir/sub/a.txt", "one")
	point, _ := mounted(t, treeOf(t, s, time.Hour), MountOptions{})
	run := filepath.Join(point, "runs", id)
	stands := shell(t, filepath.Join(run, "dir", "sub"))
	look := func() map[string]string {
		seen := map[string]string{"stands": stands("/bin/pwd -P; ls; cat *")}
		for _, name := range []string{"top.txt", "dir/sub/a.txt", "dir/sub/b.txt", "new/c.txt", "net/MLmodel"} {
			b, err := os.ReadFile(filepath.Join(run, name))
			if seen[name] = string(b); errors.Is(err, os.ErrNotExist) {
				seen[name] = "missing"
			} else if err != nil {
				t.Error(err)
			}
		}
		for _, dir := range []string{".", "dir", "dir/sub"} {
			entries, err := os.ReadDir(filepath.Join(run, dir))
			if err != nil {
				t.Error(err)
			}
			for _, e := range entries {
				seen[dir] += e.Name() + " "
			}
		}
		return seen
	}
	check := func(when string, want map[string]string) {
		t.Helper()
		for name, got := range look() {
			if got != want[name] {
				t.Errorf("%s: %s is %q, want %q", when, name, got, want[name])
			}
		}
	}
	sub := filepath.Join(run, "dir", "sub")
	before := map[string]string{
		"stands": sub + "\na.txt\none", "top.txt": "one", "dir/sub/a.txt": "one", "dir/sub/b.txt": "missing", "new/c.txt": "missing", "net/MLmodel": "missing",
		".": "dir top.txt ", "dir": "sub ", "dir/sub": "a.txt ",
	}
	check("before", before)
	s.Write(of+"top.txt", "two, and longer")
	s.Write(of+"dir/sub/a.txt", "two")
	s.Write(of+"dir/sub/b.txt", "b")
	s.Write(of+"new/c.txt", "c")
	logsNet(s, id)
	if got := look()["."]; got != before["."] {
		t.Fatalf("nobody has asked anew, and the run lists %q: this test tells nothing", got)
	}
	if got := anew(t, point, "runs:/"+id+"/dir/sub/a.txt"); got != filepath.Join(sub, "a.txt") {
		t.Error("it leads to", got)
	}
	if b, err := os.ReadFile(filepath.Join(sub, "a.txt")); err != nil || string(b) != "two" {
		t.Errorf("the file that was asked for is %q, %v", b, err)
	}
	if got := anew(t, point, "runs:/"+id); got != run {
		t.Error("it leads to", got)
	}
	check("after", map[string]string{
		"stands": sub + "\na.txt\nb.txt\ntwob", "top.txt": "two, and longer", "dir/sub/a.txt": "two", "dir/sub/b.txt": "b", "new/c.txt": "c", "net/MLmodel": "flavors: {}\n",
		".": "dir net new top.txt ", "dir": "sub ", "dir/sub": "a.txt b.txt ",
	})
}

// TestListIsWhatMLflowLists fails when the list of an artifact URI is one of before, lacks
// what both a run and its logged model have, or names it otherwise than MLflow does.
func TestListIsWhatMLflowLists(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	id := storetest.RunID(2) // it runs
	of := "0/" + id + "/artifacts/"
	s.Write(of+"net/a/run.txt", "one")
	s.Write(of+"net/MLmodel", "the run's")
	s.Write("0/models/"+storetest.ModelID+"/artifacts/a/model.txt", "one")
	logsNet(s, id)
	point, _ := mounted(t, treeOf(t, s, time.Hour), MountOptions{})
	list := func(uri, want string) {
		t.Helper()
		said, err := os.ReadFile(filepath.Join(point, fs.ListPath(uri)))
		if want == "" && !errors.Is(err, os.ErrNotExist) || want != "" && (err != nil || string(said) != want+"\n") {
			t.Errorf("%s: %s, %v, want %s", uri, said, err, want)
		}
	}
	list("runs:/"+id+"/net", `[{"path":"net/MLmodel","is_dir":false,"file_size":9},{"path":"net/a","is_dir":true},{"path":"net/MLmodel","is_dir":false,"file_size":12},{"path":"net/a","is_dir":true}]`)
	list("runs:/"+id+"/net/a", `[{"path":"a/run.txt","is_dir":false,"file_size":3},{"path":"net/a/model.txt","is_dir":false,"file_size":3}]`)
	list("models:/"+storetest.ModelID+"/a", `[{"path":"a/model.txt","is_dir":false,"file_size":3}]`)
	list("models:/"+storetest.ModelID+"/a/model.txt", "[]")
	list("runs:/"+id+"/none", "")
	s.Write("0/models/"+storetest.ModelID+"/artifacts/a/new.txt", "")
	list("models:/"+storetest.ModelID+"/a", `[{"path":"a/model.txt","is_dir":false,"file_size":3},{"path":"a/new.txt","is_dir":false,"file_size":0}]`)
}

// TestAnewLeadsToWhatEachURIMeans fails when an alias, a stage or the latest version leads
// to where it led before; when a storage URI, of any length, leads to another thing than
// lies there, or by another name; or when what is not there leads somewhere.
func TestAnewLeadsToWhatEachURIMeans(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	point, _ := mounted(t, treeOf(t, s, time.Hour), MountOptions{})
	s.Write("models/plain/meta.yaml", "name: plain\ncreation_timestamp: 1600000\n")
	s.Write("models/plain/version-3/meta.yaml", "name: plain\nversion: 3\ncurrent_stage: Staging\nsource: models:/"+storetest.ModelID+"\nstorage_location: "+s.Dir+"/0/models/"+storetest.ModelID+"/artifacts\nstatus: READY\ncreation_timestamp: 1700000\n")
	far := strings.Repeat("long directory %2F/", 20)
	s.Write("0/"+storetest.RunID(1)+"/artifacts/"+far+"end.txt", "far")
	root := s.Dir + "/0/" + storetest.RunID(1) + "/artifacts"
	for uri, want := range map[string]string{
		"models:/at@sign@3":                    "models/at@sign/2",
		"models:/at@sign@3/MLmodel":            "models/at@sign/2/MLmodel",
		"models:/plain/Staging/MLmodel":        "models/plain/3/MLmodel",
		"models:/at@sign/latest/MLmodel":       "models/at@sign/10/MLmodel",
		"models:/at@sign/2/":                   "models/at@sign/2",
		"models:/" + storetest.ModelID:         "models/" + storetest.ModelID,
		"runs:/" + storetest.RunID(1) + "/a/b": "runs/" + storetest.RunID(1) + "/a/b",
	} {
		if got := anew(t, point, uri); got != filepath.Join(point, want) {
			t.Errorf("%s leads to %s, want %s", uri, got, want)
		}
	}
	s.Write("models/at@sign/aliases/3", "10")
	if got := anew(t, point, "models:/at@sign@3"); got != filepath.Join(point, "models/at@sign/10") {
		t.Error("the alias has moved, and leads to", got)
	}
	for uri, want := range map[string]string{
		root + "/a/b/c.txt":                           "deep",
		"file://" + root + "/" + far[:19] + "end.txt": "",
		root + "/" + far + "end.txt":                  "far",
	} {
		link := filepath.Join(point, fs.AnewPath(uri))
		if want == "" {
			if to, err := os.Readlink(link); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s, which is not there, leads to %s, %v", uri, to, err)
			}
			continue
		}
		at := anew(t, point, uri)
		if b, err := os.ReadFile(at); err != nil || string(b) != want || filepath.Base(at) != filepath.Base(uri) {
			t.Errorf("%s leads to %s, %q, %v", uri, at, b, err)
		}
	}
	at := anew(t, point, root+"/names")
	if entries, err := os.ReadDir(at); err != nil || len(entries) != 1 {
		t.Errorf("%s lists %v, %v", at, entries, err)
	}
	s.Write("0/"+storetest.RunID(1)+"/artifacts/names/more", "")
	if again := anew(t, point, root+"/names"); again != at {
		t.Errorf("it leads to %s, and then to %s", at, again)
	}
	if entries, err := os.ReadDir(at); err != nil || len(entries) != 2 {
		t.Errorf("after another came, it lists %v, %v", entries, err)
	}
	for _, uri := range []string{"models:/at@sign/3", "models:/nobody/1", "runs:/" + strings.Repeat("f", 32), "runs:/" + storetest.RunID(1) + "/nothing", "models:/"} {
		if to, err := os.Readlink(filepath.Join(point, fs.AnewPath(uri))); err == nil {
			t.Errorf("%s leads to %s", uri, to)
		}
	}
}

// TestOwnIsOfTheMountsUser fails when another user of a mount that is shown to all is told
// its scope, which is made from credentials, or opens any URI with them; or when it is
// listed.
func TestOwnIsOfTheMountsUser(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	own := path.Dir(fs.ScopeFile)
	point, _ := mounted(t, treeOf(t, s, 0), MountOptions{AllowOther: true})
	if b, err := os.ReadFile(filepath.Join(point, fs.ScopeFile)); err != nil || string(b) != "of the test" {
		t.Errorf("its user is told %q, %v", b, err)
	}
	if entries, err := os.ReadDir(filepath.Join(point, fs.AboutDir)); err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == path.Base(own) }) {
		t.Errorf("it lists %v, %v", entries, err)
	}
	if os.Geteuid() != 0 {
		t.Fatal("only root can become another user")
	}
	if err := os.Chmod(filepath.Dir(point), 0o755); err != nil { // of the test's own directory
		t.Fatal(err)
	}
	for _, name := range []string{fs.ScopeFile, fs.AnewPath("runs:/" + storetest.RunID(1)), own} {
		c := exec.CommandContext(t.Context(), "stat", "-c", "%n %a", filepath.Join(point, name))
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := c.CombinedOutput()
		if name == own {
			if err != nil || !strings.HasSuffix(string(out), " 700\n") {
				t.Errorf("another user sees %s, %v", out, err)
			}
		} else if err == nil || !strings.Contains(string(out), "Permission denied") {
			t.Errorf("another user gets %s, %v", out, err)
		}
	}
}

// waiting is a directory with one file, f. The first who looks it up waits until it is opened.
type waiting struct {
	asked  chan struct{}
	open   chan struct{}
	looked atomic.Int64
}

func (d *waiting) List(context.Context) (fs.Listing, error) { return &entries{}, nil }

func (d *waiting) Lookup(_ context.Context, name string) (*fs.Node, error) {
	if name != "f" {
		return nil, os.ErrNotExist
	}
	n := sized("as it was")
	if n.TTL = time.Hour; d.looked.Add(1) == 1 {
		close(d.asked)
		<-d.open
	}
	return n, nil
}

// TestLookUpThatBeganBeforeIsNotBelieved fails when a look-up that was on its way when
// somebody asked anew has the kernel believe for long what was so before.
func TestLookUpThatBeganBeforeIsNotBelieved(t *testing.T) {
	t.Parallel()
	d := &waiting{asked: make(chan struct{}), open: make(chan struct{})}
	root := fixed{{Name: "late", Node: &fs.Node{Dir: d, TTL: time.Hour}}, {Name: "anew", Node: &fs.Node{Link: "late", Anew: true}}}
	point, _ := mounted(t, &fs.Node{Dir: root, TTL: time.Hour}, MountOptions{})
	before := make(chan error, 1)
	go func() { before <- exec.Command("stat", filepath.Join(point, "late", "f")).Run() }()
	<-d.asked
	run(t, "readlink", filepath.Join(point, "anew"))
	close(d.open)
	if err := <-before; err != nil {
		t.Fatal(err)
	}
	run(t, "stat", filepath.Join(point, "late", "f"))
	run(t, "stat", filepath.Join(point, "late", "f"))
	if n := d.looked.Load(); n != 2 {
		t.Errorf("it is looked up %d times, want 2: what was on its way is not believed, and the next is", n)
	}
}

// counted is a directory that counts its look-ups.
type counted struct {
	fs.Dir
	looked atomic.Int64
}

func (d *counted) Lookup(ctx context.Context, name string) (*fs.Node, error) {
	d.looked.Add(1)
	return d.Dir.Lookup(ctx, name)
}

type lasting struct{ *counted }

func (lasting) Lasting() {}

// TestAnewAsksForNothingThatLasts fails when who asks anew for what lies below a directory
// that is one for good has its name looked up again, or that of another has not.
func TestAnewAsksForNothingThatLasts(t *testing.T) {
	t.Parallel()
	dir := func(d fs.Dir) *fs.Node { return &fs.Node{Dir: d, TTL: time.Hour} }
	in := func() *counted {
		return &counted{Dir: fixed{{Name: "sub", Node: dir(fixed{{Name: "f", Node: sized("x")}})}}}
	}
	stays, may := lasting{in()}, in()
	root := fixed{
		{Name: "stays", Node: dir(stays)}, {Name: "may", Node: dir(may)},
		{Name: "anew-stays", Node: &fs.Node{Link: "stays/sub/f", Anew: true}}, {Name: "anew-may", Node: &fs.Node{Link: "may/sub/f", Anew: true}},
	}
	point, _ := mounted(t, dir(root), MountOptions{})
	for _, name := range []string{"stays", "may"} {
		run(t, "stat", filepath.Join(point, name, "sub", "f"))
		run(t, "readlink", filepath.Join(point, "anew-"+name))
	}
	if s, m := stays.looked.Load(), may.looked.Load(); s != 1 || m != 2 {
		t.Errorf("one that lasts is looked up %d times, want 1, and another %d, want 2", s, m)
	}
}
