package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// anew reads the link that has a mount ask anew, and gives where it leads.
func anew(t *testing.T, point, uri string) string {
	t.Helper()
	link := filepath.Join(point, AnewPath(uri))
	if strings.ContainsAny(AnewPath(uri), "%?#: ") {
		t.Errorf("%s, which MLflow takes for another", AnewPath(uri))
	}
	to, err := os.Readlink(link)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(filepath.Dir(link), to)
}

// logsNet logs the model net for a run, with the artifacts that another one has.
func (s storeDir) logsNet(run string) {
	id := strings.Replace(modelID, "0", "f", 1)
	s.write("0/models/"+id+"/meta.yaml", "model_id: "+id+"\nexperiment_id: '0'\nname: net\nsource_run_id: "+run+
		"\nartifact_location: "+s.dir+"/0/models/"+modelID+"/artifacts\nstatus: 2\ncreation_timestamp: 1500000\n")
}

// TestAnewShowsWhatIsThereNow fails when a program that asks where an artifact is, and is
// told, then reads what the mount, or the kernel, remembers of it: an old listing, an old
// file, a name that was not there, or a directory that was found as another; or when a
// program that stands in a directory loses it.
func TestAnewShowsWhatIsThereNow(t *testing.T) {
	t.Parallel()
	_, s := sample(t)
	id := runID(2) // it runs
	of := "0/" + id + "/artifacts/"
	s.write(of+"top.txt", "one")
	s.write(of+"dir/sub/a.txt", "one")
	point, _ := mounted(t, s.treeFor(time.Hour), MountOptions{})
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
	s.write(of+"top.txt", "two, and longer")
	s.write(of+"dir/sub/a.txt", "two")
	s.write(of+"dir/sub/b.txt", "b")
	s.write(of+"new/c.txt", "c")
	s.logsNet(id)
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
	_, s := sample(t)
	id := runID(2) // it runs
	of := "0/" + id + "/artifacts/"
	s.write(of+"net/a/run.txt", "one")
	s.write(of+"net/MLmodel", "the run's")
	s.write("0/models/"+modelID+"/artifacts/a/model.txt", "one")
	s.logsNet(id)
	point, _ := mounted(t, s.treeFor(time.Hour), MountOptions{})
	list := func(uri, want string) {
		t.Helper()
		said, err := os.ReadFile(filepath.Join(point, ListPath(uri)))
		if want == "" && !errors.Is(err, os.ErrNotExist) || want != "" && (err != nil || string(said) != want+"\n") {
			t.Errorf("%s: %s, %v, want %s", uri, said, err, want)
		}
	}
	list("runs:/"+id+"/net", `[{"path":"net/MLmodel","is_dir":false,"file_size":9},{"path":"net/a","is_dir":true},{"path":"net/MLmodel","is_dir":false,"file_size":12},{"path":"net/a","is_dir":true}]`)
	list("runs:/"+id+"/net/a", `[{"path":"a/run.txt","is_dir":false,"file_size":3},{"path":"net/a/model.txt","is_dir":false,"file_size":3}]`)
	list("models:/"+modelID+"/a", `[{"path":"a/model.txt","is_dir":false,"file_size":3}]`)
	list("models:/"+modelID+"/a/model.txt", "[]")
	list("runs:/"+id+"/none", "")
	s.write("0/models/"+modelID+"/artifacts/a/new.txt", "")
	list("models:/"+modelID+"/a", `[{"path":"a/model.txt","is_dir":false,"file_size":3},{"path":"a/new.txt","is_dir":false,"file_size":0}]`)
}

// TestAnewLeadsToWhatEachURIMeans fails when an alias, a stage or the latest version leads
// to where it led before; when a storage URI, of any length, leads to another thing than
// lies there, or by another name; or when what is not there leads somewhere.
func TestAnewLeadsToWhatEachURIMeans(t *testing.T) {
	t.Parallel()
	_, s := sample(t)
	point, _ := mounted(t, s.treeFor(time.Hour), MountOptions{})
	s.write("models/plain/meta.yaml", "name: plain\ncreation_timestamp: 1600000\n")
	s.write("models/plain/version-3/meta.yaml", "name: plain\nversion: 3\ncurrent_stage: Staging\nsource: models:/"+modelID+"\nstorage_location: "+s.dir+"/0/models/"+modelID+"/artifacts\nstatus: READY\ncreation_timestamp: 1700000\n")
	far := strings.Repeat("long directory %2F/", 20)
	s.write("0/"+runID(1)+"/artifacts/"+far+"end.txt", "far")
	root := s.dir + "/0/" + runID(1) + "/artifacts"
	for uri, want := range map[string]string{
		"models:/at@sign@3":              "models/at@sign/2",
		"models:/at@sign@3/MLmodel":      "models/at@sign/2/MLmodel",
		"models:/plain/Staging/MLmodel":  "models/plain/3/MLmodel",
		"models:/at@sign/latest/MLmodel": "models/at@sign/10/MLmodel",
		"models:/at@sign/2/":             "models/at@sign/2",
		"models:/" + modelID:             "models/" + modelID,
		"runs:/" + runID(1) + "/a/b":     "runs/" + runID(1) + "/a/b",
	} {
		if got := anew(t, point, uri); got != filepath.Join(point, want) {
			t.Errorf("%s leads to %s, want %s", uri, got, want)
		}
	}
	s.write("models/at@sign/aliases/3", "10")
	if got := anew(t, point, "models:/at@sign@3"); got != filepath.Join(point, "models/at@sign/10") {
		t.Error("the alias has moved, and leads to", got)
	}
	for uri, want := range map[string]string{
		root + "/a/b/c.txt":                           "deep",
		"file://" + root + "/" + far[:19] + "end.txt": "",
		root + "/" + far + "end.txt":                  "far",
	} {
		link := filepath.Join(point, AnewPath(uri))
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
	s.write("0/"+runID(1)+"/artifacts/names/more", "")
	if again := anew(t, point, root+"/names"); again != at {
		t.Errorf("it leads to %s, and then to %s", at, again)
	}
	if entries, err := os.ReadDir(at); err != nil || len(entries) != 2 {
		t.Errorf("after another came, it lists %v, %v", entries, err)
	}
	for _, uri := range []string{"models:/at@sign/3", "models:/nobody/1", "runs:/" + strings.Repeat("f", 32), "runs:/" + runID(1) + "/nothing", "models:/"} {
		if to, err := os.Readlink(filepath.Join(point, AnewPath(uri))); err == nil {
			t.Errorf("%s leads to %s", uri, to)
		}
	}
}

// TestOwnIsOfTheMountsUser fails when another user of a mount that is shown to all is told
// its scope, which is made from credentials, or opens any URI with them; or when it is
// listed.
func TestOwnIsOfTheMountsUser(t *testing.T) {
	t.Parallel()
	_, s := sample(t)
	point, _ := mounted(t, s.tree(), MountOptions{AllowOther: true})
	if b, err := os.ReadFile(filepath.Join(point, ScopeFile)); err != nil || string(b) != "of the test" {
		t.Errorf("its user is told %q, %v", b, err)
	}
	if entries, err := os.ReadDir(filepath.Join(point, AboutDir)); err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == ownDir }) {
		t.Errorf("it lists %v, %v", entries, err)
	}
	if os.Geteuid() != 0 {
		t.Fatal("only root can become another user")
	}
	if err := os.Chmod(filepath.Dir(point), 0o755); err != nil { // of the test's own directory
		t.Fatal(err)
	}
	for _, name := range []string{ScopeFile, AnewPath("runs:/" + runID(1)), AboutDir + "/" + ownDir} {
		c := exec.CommandContext(t.Context(), "stat", "-c", "%n %a", filepath.Join(point, name))
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := c.CombinedOutput()
		if name == AboutDir+"/"+ownDir {
			if err != nil || !strings.HasSuffix(string(out), " 700\n") {
				t.Errorf("another user sees %s, %v", out, err)
			}
		} else if err == nil || !strings.Contains(string(out), "Permission denied") {
			t.Errorf("another user gets %s, %v", out, err)
		}
	}
}

// TestOwnMountsAreThisUsers fails when a program is led to a mount that another user has
// made, who calls it a mlflowfs's and shows there what he likes.
func TestOwnMountsAreThisUsers(t *testing.T) {
	t.Parallel()
	_, s := sample(t)
	own, _ := mounted(t, s.tree(), MountOptions{})
	other := t.TempDir()
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if err := syscall.Mount(fsName, other, "fuse."+fsName, 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=65534,group_id=65534,allow_other", dev.Fd())); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(other, syscall.MNT_DETACH)
	all, aerr := Mounts()
	mine, oerr := OwnMounts()
	if err := errors.Join(aerr, oerr); err != nil || !slices.Contains(all, other) || !slices.Contains(all, own) {
		t.Fatalf("the mounts are %v, %v", all, err)
	}
	if slices.Contains(mine, other) || !slices.Contains(mine, own) {
		t.Errorf("of %s and another user's %s, this user's are %v", own, other, mine)
	}
}

// waiting is a directory with one file, f. The first who looks it up waits until it is opened.
type waiting struct {
	asked  chan struct{}
	open   chan struct{}
	looked atomic.Int64
}

func (d *waiting) List(context.Context) (Listing, error) { return &entries{}, nil }

func (d *waiting) Lookup(_ context.Context, name string) (*Node, error) {
	if name != "f" {
		return nil, notExist(name)
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
	root := fixed{{"late", &Node{Dir: d, TTL: time.Hour}}, {"anew", &Node{Link: "late", Anew: true}}}
	point, _ := mounted(t, &Node{Dir: root, TTL: time.Hour}, MountOptions{})
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
