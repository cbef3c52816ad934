package test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/fault"
)

// linked is the path that download --link prints.
func linked(t *testing.T, env []string, args ...string) string {
	t.Helper()
	out, err := command(t, env, append([]string{"download", "--quiet", "--link"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// isShared tells whether a path is of a directory that processes share.
func isShared(path string) bool { return strings.Contains(path, "/mlflowfs-v2/trees/") }

// diskOf is the bytes of disk that all below a directory take, links once.
func diskOf(t *testing.T, dir string) (n int64) {
	t.Helper()
	seen := map[uint64]bool{}
	filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		st, err := e.Info()
		if s, ok := st.Sys().(*syscall.Stat_t); err == nil && ok && !seen[s.Ino] {
			seen[s.Ino] = true
			n += s.Blocks * 512
		}
		return err
	})
	return n
}

// usedHoursAgo has the directory of a path be as if nobody had used it lately.
func usedHoursAgo(t *testing.T, path string) {
	t.Helper()
	root, _, _ := strings.Cut(path, "/files")
	old := time.Now().Add(-time.Hour)
	files, _ := filepath.Glob(root + "/held/*")
	for _, f := range append(files, root+"/lock") {
		if err := os.Chtimes(f, old, old); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLinkedDownloadIsShared fails when the second process that asks for the same
// moves a byte of it, takes more disk or gets another path; when what it gets differs
// from a download's; when a file in it can be written to; or when another content has
// the same path.
func TestLinkedDownloadIsShared(t *testing.T) {
	t.Parallel()
	const size = 6<<20 + 7
	names := map[string]int{"m/MLmodel": 10, "m/w.bin": size, "m/sub/x.bin": size, "m/notes.txt": 100, "m/none": 0}
	e, r := newEngineFiles(t, names), newS3Run(t)
	for name, n := range names {
		r.put(t, name, fileOf(t, int64(n)))
	}
	for kind, c := range map[string]struct {
		env     []string
		uri     string
		fetched func() int64
	}{
		"3.17": {[]string{"MLFLOW_TRACKING_URI=" + e.URL}, "runs:/" + e.run + "/m", func() int64 {
			n, _ := e.fetched()
			return n
		}},
		"S3": {join(s3Env(r.store.Addr()), []string{"MLFLOW_TRACKING_URI=" + r.server.url()}), "runs:/" + r.id + "/m", func() (n int64) {
			requests, n := r.store.Reset()
			for _, q := range requests {
				if strings.Contains(q, "list-type") {
					return n // of which some are listings
				}
			}
			return n
		}},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir, dst := t.TempDir(), t.TempDir()
			env := append(c.env, "MLFLOWFS_CACHE_DIR="+dir, "TMPDIR="+t.TempDir())
			c.fetched()
			first := linked(t, env, c.uri)
			if n := c.fetched(); n < 2*size || n > 2*size+64<<10 {
				t.Errorf("%d bytes came of 2 files of %d", n, size)
			}
			before := diskOf(t, dir)
			if before > 2*size+512<<10 {
				t.Errorf("%d bytes of disk for 2 files of %d", before, size)
			}
			second := linked(t, env, c.uri)
			if n := c.fetched(); n > 32<<10 || (kind == "3.17" && n > 0) || first != second || !isShared(first) {
				t.Errorf("%d bytes came of what is there; %s and %s", n, first, second)
			}
			if n := diskOf(t, dir); n > before+32<<10 {
				t.Errorf("%d bytes of disk, and before %d", n, before)
			}
			if _, err := command(t, env, "download", "--quiet", "--dst", dst, c.uri); err != nil {
				t.Fatal(err)
			}
			differ(t, kind, first, dst+"/m")
			if st, err := os.Stat(first + "/w.bin"); err != nil || st.Mode().Perm() != 0o444 {
				t.Errorf("%v, %v", st.Mode(), err)
			}
			c.fetched()
			file := linked(t, env, c.uri+"/sub/x.bin")
			if n := c.fetched(); n > 32<<10 || sumOf(t, file) != sumOf(t, first+"/sub/x.bin") || filepath.Base(file) != "x.bin" {
				t.Errorf("%d bytes came of a file that is there: %s", n, file)
			}
			if kind == "S3" {
				changed := fileOf(t, size+1)
				r.put(t, "m/w.bin", changed)
				now := linked(t, env, c.uri)
				if now == first || sumOf(t, now+"/w.bin") != sumOf(t, changed) || sumOf(t, first+"/w.bin") != sumOf(t, dst+"/m/w.bin") {
					t.Errorf("of another content: %s, and before %s", now, first)
				}
				if n := c.fetched(); n > size+64<<10 {
					t.Errorf("%d bytes came of a file of %d", n, size+1)
				}
			}
		})
	}
}

// TestLinkedDownloadIsADownload fails when a directory of --link differs from what a
// download of the same URI brings, of any kind of URI, in what is in it or in the path.
func TestLinkedDownloadIsADownload(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"served", "s3"} {
		or := originAt(t, name)
		env := join(theObjects(t).env(), fast, []string{"MLFLOW_TRACKING_URI=" + or.server.url(), "MLFLOWFS_CACHE_DIR=" + t.TempDir()})
		for _, uri := range []string{"runs:/" + or.Run, "runs:/" + or.Run + "/d", "runs:/" + or.Run + "/d/", "runs:/" + or.Run + "/d/g.txt", "models:/" + or.Model + "/1", "models:/" + or.ModelID} {
			dst := t.TempDir()
			if out, err := command(t, env, "download", "--quiet", "--dst", dst, uri); err != nil {
				t.Errorf("%s: %s, %v", uri, out, err)
			} else if got := linked(t, env, uri); !isShared(got) || strings.TrimPrefix(strings.TrimSpace(string(out)), dst) != got[strings.Index(got, "/files")+len("/files"):] {
				t.Errorf("%s: %s, and a download is at %s", uri, got, out)
			} else {
				root, _, _ := strings.Cut(got, "/files")
				differ(t, uri, root+"/files", dst)
			}
		}
	}
}

// TestLinkedDownloadOnEachDisk fails when on a filesystem with reflinks, with hard
// links alone, or with neither, a directory of --link is wrong, moves a byte the second
// time, or, but for the last, has its bytes on the disk twice.
func TestLinkedDownloadOnEachDisk(t *testing.T) {
	t.Parallel()
	needsRoot(t, "it mounts filesystems")
	const size = 40 << 20
	e := newEngineFiles(t, map[string]int{"m/w.bin": size, "m/notes.txt": 100})
	at := func(kind string, args ...string) string {
		dir, err := os.MkdirTemp(work, "on-")
		if err != nil {
			t.Fatal(err)
		}
		if out, err := output("mount", append(args, dir)...); err != nil {
			t.Fatalf("%s: %v\n%s", kind, err, out)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
		})
		return dir
	}
	image := filepath.Join(t.TempDir(), "btrfs")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 512<<20)); err != nil {
		t.Fatal(err)
	}
	if out, err := output("mkfs.btrfs", "-q", image); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	neither := newDisk(t)
	neither.Set(fault.On(syscall.EPERM, "link", ""))
	lower, upper := t.TempDir(), t.TempDir()
	os.Mkdir(upper+"/up", 0o755)
	os.Mkdir(upper+"/work", 0o755)
	for kind, c := range map[string]struct {
		dir        string
		same, once bool // one inode; its disk once
	}{
		"reflinks":        {at("btrfs", "-o", "loop", image), false, true},
		"hard links":      {t.TempDir(), true, true},
		"memory":          {at("tmpfs", "-t", "tmpfs", "-o", "size=256m", "tmpfs"), true, true},
		"an overlay":      {at("overlay", "-t", "overlay", "-o", "lowerdir="+lower+",upperdir="+upper+"/up,workdir="+upper+"/work", "overlay"), true, true},
		"links of a FUSE": {newDisk(t).Dir, true, true},
		"neither":         {neither.Dir, false, false},
	} {
		env := []string{"MLFLOWFS_CACHE_DIR=" + c.dir, "MLFLOW_TRACKING_URI=" + e.URL}
		free := func() int64 {
			syscall.Sync()
			var st syscall.Statfs_t
			syscall.Statfs(c.dir, &st)
			return int64(st.Bfree) * st.Bsize
		}
		before := free()
		e.Reset()
		first := linked(t, env, "runs:/"+e.run+"/m")
		second := linked(t, env, "runs:/"+e.run+"/m")
		if n, _ := e.fetched(); n != size+100 || first != second || !isShared(first) {
			t.Errorf("%s: %d bytes came; %s and %s", kind, n, first, second)
		}
		if sumOf(t, first+"/w.bin") != sumOf(t, filepath.Join(e.dir, "m/w.bin")) {
			t.Errorf("%s: wrong bytes", kind)
		}
		st, err := os.Stat(first + "/w.bin")
		if err != nil || st.Mode().Perm() != 0o444 || (st.Sys().(*syscall.Stat_t).Nlink == 2) != c.same {
			t.Errorf("%s: %v, %v", kind, st, err)
		}
		if took := before - free(); kind == "reflinks" && took > size+size/2 {
			t.Errorf("%s: %d bytes of disk for a file of %d", kind, took, size)
		}
		if n := diskOf(t, c.dir); kind != "reflinks" && (n < size+size/2) != c.once { // a reflink looks as a copy does
			t.Errorf("%s: %d bytes of disk for a file of %d", kind, n, size)
		}
		// What it has of the cache is counted, and goes.
		out, err := command(t, env, "evict", "runs:/"+e.run+"/m")
		if err != nil || !strings.Contains(string(out), " MiB freed") {
			t.Errorf("%s: %s, %v", kind, out, err)
		}
		if _, err := os.Stat(first); err == nil || diskOf(t, c.dir) > 1<<20 {
			t.Errorf("%s: evicted, it is there: %d bytes", kind, diskOf(t, c.dir))
		}
	}
}

// TestTenLinkedDownloadsAtOnceFetchOnce fails when ten processes that ask for one
// model at once cost the origin more than the model, or get different paths.
func TestTenLinkedDownloadsAtOnceFetchOnce(t *testing.T) {
	t.Parallel()
	const size = 24 << 20
	e := newEngineFiles(t, map[string]int{"m/a": size, "m/b": size, "m/c": 1000})
	env := []string{"MLFLOWFS_CACHE_DIR=" + t.TempDir(), "MLFLOW_TRACKING_URI=" + e.URL}
	paths := make([]string, 10)
	var all sync.WaitGroup
	for i := range paths {
		all.Go(func() { paths[i] = linked(t, env, "runs:/"+e.run+"/m") })
	}
	all.Wait()
	for _, p := range paths {
		if p != paths[0] || p == "" {
			t.Errorf("%s and %s", p, paths[0])
		}
	}
	differ(t, "ten at once", paths[0], e.dir+"/m")
	n, _ := e.fetched()
	figure(t, "%d bytes for a model of %d", n, 2*size+1000)
	if n != 2*size+1000 {
		t.Errorf("%d bytes for a model of %d", n, 2*size+1000)
	}
}

// TestKilledLinkedDownloadLeavesNoWrongDirectory fails when after kills at many moments
// a directory is given that is not whole or not right, when what came before a kill
// comes again, or when what the kills left stays.
func TestKilledLinkedDownloadLeavesNoWrongDirectory(t *testing.T) {
	t.Parallel()
	const size, kills = 24 << 20, 25
	files := map[string]int{"m/big": size, "m/MLmodel": 100}
	for i := range 20 {
		files[fmt.Sprintf("m/sub/%d", i)] = 200<<10 + i
	}
	e := newEngineFiles(t, files)
	e.Break(nil, func(r *http.Response) error {
		if isArtifact(r.Request) {
			fault.Pace(r, 6<<20)
		}
		return nil
	})
	dir := t.TempDir()
	env := []string{"MLFLOWFS_CACHE_DIR=" + dir, "MLFLOW_TRACKING_URI=" + e.URL}
	given := map[string]bool{}
	check := func(path string) {
		given[path] = true
		differ(t, "after a kill", path, e.dir+"/m")
	}
	for i := range kills {
		c := mlflowfs(t, env, "download", "--quiet", "--link", "runs:/"+e.run+"/m")
		var out strings.Builder
		c.Stdout = &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(100+i*60)*time.Millisecond, func() { c.Process.Kill() })
		if c.Wait() == nil {
			check(strings.TrimSpace(out.String()))
			if i%2 == 0 { // it is begun anew
				if _, err := command(t, env, "evict", "runs:/"+e.run+"/m"); err != nil {
					t.Fatal(err)
				}
			}
		}
		timer.Stop()
	}
	e.Break(nil, nil)
	check(linked(t, env, "runs:/"+e.run+"/m"))
	figure(t, "%d kills: %d directories were given, each right", kills, len(given))
	// Who makes it the next time removes what was left.
	if _, err := command(t, env, "evict", "runs:/"+e.run+"/m"); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error { return errors.Join(err, os.Chtimes(p, old, old)) })
	check(linked(t, env, "runs:/"+e.run+"/m"))
	if trees, _ := filepath.Glob(filepath.Join(dir, "mlflowfs-v2/trees/*/*")); len(trees) != 2 {
		t.Errorf("left behind: %v", trees)
	}
}

// TestLinkedDownloadGoesOn fails when a download --link that is killed begins anew.
func TestLinkedDownloadGoesOn(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	e := newEngineFiles(t, map[string]int{"big": size, "small": 100})
	e.Break(nil, func(r *http.Response) error {
		if isArtifact(r.Request) {
			fault.Pace(r, 13<<20)
		}
		return nil
	})
	env := []string{"MLFLOWFS_CACHE_DIR=" + t.TempDir(), "MLFLOW_TRACKING_URI=" + e.URL}
	c := mlflowfs(t, env, "download", "--quiet", "--link", "runs:/"+e.run)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "too little comes", long, func() bool { return e.Bytes() > size/2 }) // each of 8 requests gathers 2 MiB for a write
	c.Process.Kill()
	c.Wait()
	e.Break(nil, nil)
	e.Reset()
	differ(t, "after a kill", linked(t, env, "runs:/"+e.run), e.dir)
	if n, _ := e.fetched(); n > size*7/8 {
		t.Errorf("%d bytes came again", n)
	}
}

// TestLinkedDownloadKeepsToTheBound fails when directories of --link, with what they
// hold, take more than --cache-size; when one that was given a moment ago, is in use or
// is pinned goes for another; or when what has no room is not brought all the same.
func TestLinkedDownloadKeepsToTheBound(t *testing.T) {
	t.Parallel()
	const size, bound = 14 << 20, 32 << 20
	e := newEngineFiles(t, map[string]int{"a/w": size, "b/w": size, "c/w": size, "d/w": size, "large/w": bound + 1})
	dir := t.TempDir()
	env := []string{"MLFLOWFS_CACHE_DIR=" + dir, "MLFLOWFS_CACHE_SIZE=32MiB", "MLFLOW_TRACKING_URI=" + e.URL, "TMPDIR=" + t.TempDir()}
	late := int64(0) // bytes of what was evicted while it was in use: they go when a scan finds them
	get := func(name string, shared bool) string {
		t.Helper()
		c := mlflowfs(t, env, "download", "--quiet", "--link", "runs:/"+e.run+"/"+name)
		var errs strings.Builder
		c.Stderr = &errs
		out, err := c.Output()
		path := strings.TrimSpace(string(out))
		if err != nil || isShared(path) != shared || strings.Count(errs.String(), "level=WARN") > 1 || (strings.Contains(errs.String(), "nobody shares") == shared) {
			t.Fatalf("%s: %s, %v\n%s", name, path, err, &errs)
		}
		if sumOf(t, path+"/w") != sumOf(t, filepath.Join(e.dir, name, "w")) {
			t.Errorf("%s: wrong bytes", name)
		}
		if n := diskOf(t, dir); n > bound+late+1<<20 {
			t.Errorf("%s: %d bytes of disk, of a bound of %d", name, n, bound)
		}
		return path
	}
	is := func(path string) bool {
		_, err := os.Stat(path + "/w")
		return err == nil
	}
	get("large", false)
	a := get("a", true)
	b := get("b", true)
	get("c", false) // both were given a moment ago
	usedHoursAgo(t, a)
	c := get("c", true)
	if is(a) || !is(b) {
		t.Errorf("a is there: %v; b is there: %v", is(a), is(b))
	}
	// A program that has the lock keeps it; so does a pin.
	usedHoursAgo(t, b)
	usedHoursAgo(t, c)
	root, _, _ := strings.Cut(b, "/files")
	lock, err := os.Open(root + "/lock")
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_SH)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := command(t, env, "pin", "runs:/"+e.run+"/c"); err != nil {
		t.Fatal(err)
	}
	get("d", false)
	if !is(b) || !is(c) {
		t.Errorf("in use: %v; pinned: %v", is(b), is(c))
	}
	// Evicted by name, it is given no more, and stays for who has it.
	out, err := command(t, env, "evict", "runs:/"+e.run+"/b")
	if err != nil || !strings.Contains(string(out), "1 directories are in use") || !is(b) {
		t.Errorf("%s, %v; it is there: %v", out, err, is(b))
	}
	lock.Close()
	late = size
	if _, err := command(t, env, "unpin", "runs:/"+e.run+"/c"); err != nil {
		t.Fatal(err)
	}
	if d := get("d", true); !is(d) {
		t.Error("d, for which there is room, is not there")
	}
}

// TestLinkedDownloadOfAPlainUser fails when a user without rights can't have, damage,
// have mended, and evict what --link gives; or when damage in what is shared is given
// again, or is mended in a file that a program has.
func TestLinkedDownloadOfAPlainUser(t *testing.T) {
	t.Parallel()
	needsRoot(t, "it acts as another user")
	const size = 6 << 20
	e := newEngineFiles(t, map[string]int{"m/w.bin": size, "m/x.bin": size})
	home, err := os.MkdirTemp(work, "home-")
	if err == nil {
		err = os.Chown(home, 65534, 65534)
	}
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		c := mlflowfs(t, []string{"HOME=" + home, "MLFLOWFS_CACHE_DIR=" + home + "/cache", "MLFLOW_TRACKING_URI=" + e.URL}, args...)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		c.Dir = home
		var errs strings.Builder
		c.Stderr = &errs
		out, err := c.Output()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, &errs)
		}
		return strings.TrimSpace(string(out))
	}
	uri := "runs:/" + e.run + "/m"
	first := run("download", "--link", uri)
	differ(t, "a plain user's", first, e.dir+"/m")
	if err := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", `echo x >>"$1"`, "sh", first+"/w.bin").Run(); err == nil {
		t.Error("a file in it can be written to")
	}
	held, err := os.Open(first + "/w.bin")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	f, err := os.OpenFile(first+"/w.bin", os.O_WRONLY, 0) // as root
	if err == nil {
		_, err = f.WriteAt([]byte("damaged"), size/2)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	e.Reset()
	second := run("download", "--link", uri)
	differ(t, "a plain user's, damaged before", second, e.dir+"/m")
	if n, _ := e.fetched(); n != size && n != size+128<<10 || second == first { // the file, and the block that was to be mended
		t.Errorf("%d bytes came of a file of %d that was damaged; %s", n, size, second)
	}
	if b := make([]byte, 7); true {
		if _, err := held.ReadAt(b, size/2); err != nil || string(b) != "damaged" {
			t.Errorf("what a program has was changed: %q, %v", b, err)
		}
	}
	if out := run("warm", uri); !strings.Contains(out, "2 files") {
		t.Error(out)
	}
	if third := run("download", "--link", uri); third != second {
		t.Errorf("%s, and then %s", second, third)
	}
	if run("evict", uri); diskOf(t, second) > 0 {
		t.Error("evicted, it is there")
	}
	if out, err := output("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "rm", "-r", home+"/cache"); err != nil {
		t.Errorf("the cache can't be removed: %v\n%s", err, out)
	}
}

// TestWhatIsNotKeptIsDownloaded fails when download --link does not bring what the
// cache can't keep, says why more than once or not at all, or copies what lies on this
// machine.
func TestWhatIsNotKeptIsDownloaded(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"m/w.bin": 1 << 20, "m/x.bin": 1 << 20})
	running := newRun(t, e.URL, "0")
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("logged"), 0o644); err != nil {
		t.Fatal(err)
	}
	in := filepath.Join(filepath.Dir(filepath.Dir(e.dir)), running, "artifacts")
	if err := errors.Join(os.MkdirAll(in, 0o755), os.Link(file, in+"/a"), os.WriteFile(in+"/b", []byte("logged"), 0o644)); err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	env := []string{"MLFLOW_TRACKING_URI=" + e.URL, "TMPDIR=" + tmp}
	cache := "MLFLOWFS_CACHE_DIR=" + t.TempDir()
	for what, c := range map[string]struct {
		env       []string
		uri, want string
	}{
		"a run that goes on": {[]string{cache}, "runs:/" + running, in},
		"no cache":           {[]string{"MLFLOWFS_CACHE_DIR=none"}, "runs:/" + e.run + "/m", e.dir + "/m"},
		"no directory":       {[]string{"MLFLOWFS_CACHE_DIR=" + file}, "runs:/" + e.run + "/m", e.dir + "/m"},
	} {
		for _, dst := range []string{"", t.TempDir()} {
			args := []string{"download", "--quiet", "--link", c.uri}
			if dst != "" {
				args = append(args, "--dst", dst)
			}
			cmd := mlflowfs(t, append(env, c.env...), args...)
			var errs strings.Builder
			cmd.Stderr = &errs
			out, err := cmd.Output()
			got := strings.TrimSpace(string(out))
			if err != nil || strings.Count(errs.String(), "level=WARN") != 1 || !strings.HasPrefix(got, tmp) && !(dst != "" && strings.HasPrefix(got, dst)) {
				t.Errorf("%s: %s, %v\n%s", what, got, err, &errs)
				continue
			}
			differ(t, what, got, c.want)
		}
	}
	refuses(t, 3, append(env, cache), []string{"download", "--link", "runs:/" + e.run + "/nowhere"}, "nowhere")
	or := originAt(t, "path")
	if got := linked(t, []string{"MLFLOW_TRACKING_URI=" + or.server.url(), cache}, "runs:/"+or.Run+"/d"); got != or.URI+"/d" {
		t.Errorf("of what lies here: %s", got)
	}
}

// TestLinkedFilesOfADirectory fails when download --link --dst brings something else
// than without --link, moves what the cache has, takes its disk twice, or writes into a
// file that was there.
func TestLinkedFilesOfADirectory(t *testing.T) {
	t.Parallel()
	const size = 6 << 20
	e := newEngineFiles(t, map[string]int{"m/w.bin": size, "m/sub/x.bin": size, "m/none": 0})
	dir := t.TempDir()
	env := []string{"MLFLOWFS_CACHE_DIR=" + dir + "/cache", "MLFLOW_TRACKING_URI=" + e.URL}
	dst := dir + "/dst"
	if err := errors.Join(os.MkdirAll(dst+"/m", 0o755), os.WriteFile(dst+"/m/w.bin", []byte("mine"), 0o644), os.Link(dst+"/m/w.bin", dir+"/mine")); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		e.Reset()
		if got := linked(t, env, "--dst", dst, "runs:/"+e.run+"/m"); got != dst+"/m" {
			t.Error(got)
		}
		if n, _ := e.fetched(); (i == 0 && n != 2*size) || (i == 1 && n > 0) {
			t.Errorf("%d bytes came the %d. time", n, i+1)
		}
		differ(t, "linked", dst+"/m", e.dir+"/m")
	}
	if n := diskOf(t, dir); n > 2*size+1<<20 {
		t.Errorf("%d bytes of disk for 2 files of %d", n, size)
	}
	if readFile(dir+"/mine") != "mine" {
		t.Error("a file that was there was written to")
	}
	if left, _ := filepath.Glob(dst + "/m/.mlflowfs-*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	// They are the user's: what the cache evicts stays.
	if out, err := command(t, env, "evict", "runs:/"+e.run+"/m"); err != nil {
		t.Errorf("%s, %v", out, err)
	}
	differ(t, "evicted", dst+"/m", e.dir+"/m")
	// On another filesystem, where nothing can be shared, it is a copy.
	elsewhere, err := os.MkdirTemp("/dev/shm", "mlflowfs-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(elsewhere)
	got := linked(t, env, "--dst", elsewhere, "runs:/"+e.run+"/m")
	differ(t, "on another filesystem", got, e.dir+"/m")
	if st, err := os.Stat(got + "/w.bin"); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("a copy has mode %v, %v", st.Mode(), err)
	}
}
