package test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/test/count"
	"github.com/mlflowfs/mlflowfs/test/fault"
)

// inCache is the one file or directory of a cache's that has a name, below a
// directory that the user names.
func inCache(t *testing.T, dir, name string) string {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(dir, "mlflowfs-v*", name))
	if len(found) != 1 {
		t.Fatalf("%s: %q", name, found)
	}
	return found[0]
}

// forget has the kernel let go of what it has of a file, so that the daemon is asked.
func forget(t *testing.T, f *os.File) {
	t.Helper()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
}

// within runs a command, and fails the test when it takes longer than limit.
func within(t *testing.T, limit time.Duration, args ...string) []byte {
	t.Helper()
	c := exec.Command("timeout", append([]string{"-s", "KILL", fmt.Sprint(limit.Seconds())}, args...)...)
	c.WaitDelay = time.Second // one that waits for a page can't be killed, and holds the pipe
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v: %.500s", strings.Join(args, " "), err, out)
	}
	return out
}

// onDisk is how many bytes of disk a mount's cache counts.
func (m *mount) onDisk() int64 {
	m.t.Helper()
	var s struct {
		Cache struct {
			Disk int64 `json:"disk_bytes"`
		}
	}
	if err := count.Status(m.dir, &s); err != nil {
		m.t.Fatal(err)
	}
	return s.Cache.Disk
}

// atRest waits until a mount has nothing open, and nothing on its way.
func (m *mount) atRest() {
	m.t.Helper()
	waitFor(m.t, "the mount does not come to rest", long, func() bool {
		var s struct {
			Cache struct {
				Open    int `json:"open_contents"`
				Fetches int `json:"fetches"`
			}
		}
		return count.Status(m.dir, &s) == nil && s.Cache.Open == 0 && s.Cache.Fetches == 0
	})
}

// noBytes has a server send no artifact.
func noBytes(_ http.ResponseWriter, r *http.Request) bool {
	if isArtifact(r) {
		panic(http.ErrAbortHandler)
	}
	return false
}

// plain are the flags of a mount whose reads the test can count: the kernel asks for
// each page that a program wants, and has none that came to it before.
var plain = []string{"--no-passthrough", "--no-push", "--memory-limit", "64MiB", "--fill-limit", "0"}

// TestSwappedCacheDirectoryGivesNothing fails when another directory, put in the
// place of the cache's by who may write to the one above, is read by a daemon that
// has the cache open: what lies there has the right checksums, and other bytes.
func TestSwappedCacheDirectoryGivesNothing(t *testing.T) {
	t.Parallel()
	const size = 3 << 20
	e := newEngineFiles(t, map[string]int{"a": size})
	theirs, mine := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(e.dir, "a"), patchwork(2, size), 0o644); err != nil {
		t.Fatal(err)
	}
	m := mountAt(t, e.URL, []string{"MLFLOWFS_CACHE_DIR=" + theirs}, plain...)
	e.same(t, m, "a")
	waitFor(t, "nothing is stored", long, func() bool { return stored(t, theirs) >= size>>17 })
	m.stop()
	if err := os.WriteFile(filepath.Join(e.dir, "a"), patchwork(1, size), 0o644); err != nil {
		t.Fatal(err)
	}
	m = mountAt(t, e.URL, []string{"MLFLOWFS_CACHE_DIR=" + mine}, plain...)
	place := inCache(t, mine, "")
	if err := errors.Join(os.Rename(place, mine+"/away"), os.Rename(inCache(t, theirs, ""), place)); err != nil {
		t.Fatal(err)
	}
	e.Reset()
	e.same(t, m, "a")
	if n, _ := e.fetched(); n < size {
		t.Errorf("%d bytes came from the server", n)
	}
}

// TestDamagedCountEndsNoDaemon fails when the file in which all processes count is
// cut under a daemon, or can't be read, and the daemon ends, fails a read, or does
// not count any more.
func TestDamagedCountEndsNoDaemon(t *testing.T) {
	t.Parallel()
	const size, probes = 3 << 20, 100
	for name, rule := range map[string]fault.Rule{
		"cut": nil, "EIO": fault.On(syscall.EIO, "read", "usage"), "ESTALE": fault.On(syscall.ESTALE, "read", "usage"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDisk(t)
			sizes := map[string]int{"a": size, "b": size}
			for i := range probes {
				sizes[fmt.Sprintf("probe/%d", i)] = 1000
			}
			e := newEngineFiles(t, sizes)
			m := mountAt(t, e.URL, []string{"MLFLOWFS_CACHE_DIR=" + d.Dir}, plain...)
			e.same(t, m, "a")
			waitFor(t, "nothing is stored", long, func() bool { return stored(t, d.Dir) >= size>>17 })
			usage := inCache(t, d.Dir, "usage")
			if rule != nil {
				d.Set(rule)
			}
			st, err := os.Stat(usage)
			if err == nil {
				err = os.Truncate(usage, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
			if rule != nil { // it is as long as ever, and its page is to be read
				if err := os.Truncate(usage, st.Size()); err != nil {
					t.Fatal(err)
				}
			}
			e.same(t, m, "b")
			m.status()
			e.same(t, m, "a")
			if rule != nil {
				waitFor(t, "the count is not looked at", long, func() bool { return d.Met.Of("read usage") > 0 })
			}
			time.Sleep(1500 * time.Millisecond) // all processes count together each second
			m.status()
			d.Set(nil)
			probe := 0 // each is new to the cache
			waitFor(t, "it does not count any more", 30*time.Second, func() bool {
				e.same(t, m, fmt.Sprintf("probe/%d", probe%probes))
				probe++
				time.Sleep(300 * time.Millisecond)
				n := m.onDisk()
				return strings.Count(m.log.String(), "can't be used for now") == strings.Count(m.log.String(), "is used again") && n >= size && n <= 3*size
			})
		})
	}
}

// lies are sizes that a server says files have, by those that they have.
var lies = map[string]uint64{"31341": 1 << 45, "31342": 1 << 54, "31343": 1 << 62, "31344": 1<<63 - 1, "31345": 1<<64 - 1}

var liedSize = regexp.MustCompile(`("file_size":\s*"?)(3134[1-5])\b`)

// newLiedAbout makes files of which the server may lie: each is in a directory that
// has its true size in the name.
func newLiedAbout(t *testing.T) *engineFiles {
	t.Helper()
	files := map[string]int{"good": 1000}
	for listed := range lies {
		n, _ := strconv.Atoi(listed)
		files["d"+listed+"/f"] = n
	}
	return newEngineFiles(t, files)
}

// lie has the server lie, and, where bodies are to come whole, know no ranges.
func (e *engineFiles) lie(whole bool) {
	e.Break(func(_ http.ResponseWriter, r *http.Request) bool {
		if whole {
			r.Header.Del("Range")
		}
		return false
	}, func(r *http.Response) error {
		if isArtifact(r.Request) {
			if whole { // nor how long they are
				r.ContentLength = -1
				r.Header.Del("Content-Length")
			}
			return nil
		}
		b, err := io.ReadAll(r.Body)
		b = liedSize.ReplaceAllFunc(b, func(m []byte) []byte {
			listed := liedSize.FindSubmatch(m)
			return strconv.AppendUint(bytes.Clone(listed[1]), lies[string(listed[2])], 10)
		})
		r.Body = io.NopCloser(bytes.NewReader(b))
		r.ContentLength = int64(len(b))
		r.Header.Set("Content-Length", strconv.Itoa(len(b)))
		return err
	})
}

// sizeEnds runs a command on a file of which the server lies, in little memory: it
// ends, and says something that a person can read.
func (e *engineFiles) sizeEnds(t *testing.T, env []string, args ...string) {
	t.Helper()
	c := fault.Limited(mlflowfs(t, append(env, impatient...), args...), fault.Limit{Resource: "as", Most: 8 << 30})
	var errs bytes.Buffer
	c.Stderr, c.Stdout = &errs, io.Discard
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(30*time.Second, func() { c.Process.Kill() })
	c.Wait()
	late.Stop()
	if c.ProcessState.ExitCode() < 0 || strings.Contains(errs.String(), "goroutine ") || strings.Contains(errs.String(), "panic") {
		t.Errorf("%v: %v\n%.500s", args, c.ProcessState, &errs)
	}
}

// TestListedSizeEndsNoDaemon fails when a size that a server lists, and that no file
// has, ends a daemon or a command, by its memory or by an overflow, or keeps others
// from their files.
func TestListedSizeEndsNoDaemon(t *testing.T) {
	t.Parallel()
	e := newLiedAbout(t)
	for _, whole := range []bool{false, true} {
		e.lie(whole)
		env := []string{"MLFLOWFS_CACHE_DIR=" + t.TempDir(), "MLFLOW_TRACKING_URI=" + e.URL}
		m := mountAt(t, e.URL, append(env, impatient...))
		for listed, size := range lies {
			path := m.path("runs", e.run, "d"+listed, "f")
			if st, err := output("stat", "-c", "%s", path); err == nil && size <= 1<<45 && strings.TrimSpace(string(st)) != fmt.Sprint(size) {
				t.Fatalf("a size of %d is listed as %s: nothing is tested", size, st)
			}
			for _, args := range [][]string{{"head", "-c", "10", path}, {"tail", "-c", "10", path}} {
				out, _ := exec.Command("timeout", append([]string{"-s", "KILL", "20"}, args...)...).CombinedOutput()
				if strings.Contains(string(out), "not connected") || strings.Contains(string(out), "aborted") {
					t.Fatalf("%s: %s\n%.3000s", args, out, m.log)
				}
			}
			e.same(t, m, "good")
			e.sizeEnds(t, env, "warm", "runs:/"+e.run+"/d"+listed)
			e.sizeEnds(t, env, "cat", "runs:/"+e.run+"/d"+listed+"/f")
		}
		m.stop()
	}
}

// TestHolderHoldsWhatAbortsTheMount fails when the process that holds a mount
// would look for what aborts it when the daemon is dead, and not before: by then
// the number that it goes by may be another mount's.
func TestHolderHoldsWhatAbortsTheMount(t *testing.T) {
	t.Parallel()
	needsRoot(t, "it mounts what aborts mounts")
	s := shared.get(t, "sqlite 3.17")
	dir, err := os.MkdirTemp(work, "mnt-")
	if err != nil {
		t.Fatal(err)
	}
	c := mlflowfs(t, []string{"MLFLOWFS_CACHE_DIR=" + t.TempDir()}, "mount", "--tracking-uri", s.uri, dir)
	args := append([]string{"-m", "sh", "-c", aloneInNamespace + `; mount -t fusectl none /sys/fs/fuse/connections; exec "$@"`, "sh", c.Path}, c.Args[1:]...)
	alone := exec.Command("unshare", args...)
	alone.Env = c.Env
	m := launch(t, dir, alone)
	t.Cleanup(m.stop)
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", m.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, fd := range fds {
		to, _ := os.Readlink(fd)
		if open = append(open, to); strings.HasSuffix(to, "/abort") {
			return
		}
	}
	t.Errorf("it has open: %q", open)
}

// TestLockOfAnotherProcessTakesNoDiskAway fails when a process that holds the cache's
// lock for some seconds has another one take the disk for dead, and fail a read of
// what is there while the server is down.
func TestLockOfAnotherProcessTakesNoDiskAway(t *testing.T) {
	t.Parallel()
	const size, blocks = 3 << 20, 3 << 20 >> 17
	others := []string{"b", "c", "d"}
	e := newEngineFiles(t, map[string]int{"a": size, "b": size, "c": size, "d": size})
	dir := t.TempDir()
	env := []string{"MLFLOWFS_CACHE_DIR=" + dir}
	m := mountAt(t, e.URL, env, plain...)
	e.same(t, m, "a")
	waitFor(t, "nothing is stored", long, func() bool { return stored(t, dir) >= blocks })
	m.stop()
	m = mountAt(t, e.URL, env, plain...) // which has nothing in memory
	lock, err := os.OpenFile(inCache(t, dir, "lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	best := long // who waits for the lock waits in each; what is only the machine's is not in all
	for _, name := range others {
		begin := time.Now()
		e.same(t, m, name)
		best = min(best, time.Since(begin))
	}
	if best > 1500*time.Millisecond {
		t.Errorf("each read took %v at least", best)
	}
	time.Sleep(3 * time.Second) // longer than a disk may take
	e.Break(noBytes, nil)       // nor does the server give it now
	before := m.cache()
	e.same(t, m, "a")
	if did := m.cache().Since(before); did.Hits() < blocks || did.DiskHits == 0 || did.OriginRequests > 0 {
		t.Errorf("%+v", did)
	}
	if strings.Contains(m.log.String(), "can't be used for now") {
		t.Errorf("it is said:\n%s", m.log)
	}
}

// TestLongScanTakesNoDiskAway fails when a look at the whole cache, which takes long
// where it is large, happens at the start of a daemon or for a status; or when one
// that makes room has a read wait, or the disk taken for dead.
func TestLongScanTakesNoDiskAway(t *testing.T) {
	t.Parallel()
	const size, blocks, small = 3 << 20, 3 << 20 >> 17, 60
	files := map[string]int{"a": size, "b": 10 << 20, "c": 10 << 20}
	for i := range small {
		files[fmt.Sprintf("small/%02d", i)] = 1000 + i
	}
	e := newEngineFiles(t, files)
	d := newDisk(t)
	env := []string{"MLFLOWFS_CACHE_DIR=" + d.Dir}
	m := mountAt(t, e.URL, env, plain...)
	for i := range small {
		e.same(t, m, fmt.Sprintf("small/%02d", i))
	}
	e.same(t, m, "b")
	e.same(t, m, "a")
	waitFor(t, "nothing is stored", long, func() bool { return stored(t, d.Dir) >= blocks+80+small })
	time.Sleep(1500 * time.Millisecond) // all processes count together each second
	m.stop()
	index, _ := filepath.Glob(filepath.Join(d.Dir, "mlflowfs-v*", "index"))
	for _, f := range index { // what an earlier look has left
		os.Remove(f)
	}
	d.Done.Reset()
	m = mountAt(t, e.URL, append(env, "MLFLOWFS_CACHE_SIZE=16MiB"), plain...)
	for range 3 {
		m.status()
	}
	e.same(t, m, "a") // is used now
	looks := func() int { return d.Done.Of("lookup record", "getattr record") }
	if n := looks(); n > small/2 {
		t.Errorf("%d records of some %d were looked at for a start and a status: %s", n, small, &d.Done)
	}
	m.stop()
	m = mountAt(t, e.URL, append(env, "MLFLOWFS_CACHE_SIZE=16MiB"), plain...) // which has nothing in memory
	d.Set(func(op, kind string) (syscall.Errno, <-chan struct{}) {            // a look at all takes many seconds
		if kind == "record" && (op == "lookup" || op == "getattr") {
			time.Sleep(300 * time.Millisecond)
		}
		return 0, nil
	})
	d.Done.Reset()
	e.same(t, m, "c")
	if n := looks(); n > small/2 {
		t.Errorf("a read waited for a look at %d records: %s", n, &d.Done)
	}
	waitFor(t, "nothing makes room", long, func() bool { return looks() > small/2 })
	e.Break(noBytes, nil)
	before := m.cache()
	e.same(t, m, "a")
	if did := m.cache().Since(before); did.Hits() < blocks || did.DiskHits == 0 || did.OriginRequests > 0 {
		t.Errorf("%+v", did)
	}
	if strings.Contains(m.log.String(), "can't be used for now") {
		t.Errorf("it is said:\n%s", m.log)
	}
}

// TestErrorOfAWriteTakesNoReadAway fails when an error that concerns one file, the
// process or its room, such as too many open files, has what lies on the cache's
// disk fetched again.
func TestErrorOfAWriteTakesNoReadAway(t *testing.T) {
	t.Parallel()
	const size, blocks = 3 << 20, 3 << 20 >> 17
	for name, rule := range map[string]fault.Rule{
		"EMFILE":                   fault.On(syscall.EMFILE, "open create lookup mkdir", ""),
		"ENFILE":                   fault.On(syscall.ENFILE, "open create", ""),
		"ENOMEM":                   fault.On(syscall.ENOMEM, "create write", ""),
		"EFBIG":                    fault.On(syscall.EFBIG, "write setattr allocate", "data record"),
		"EDQUOT":                   fault.On(syscall.EDQUOT, "write create mkdir", ""),
		"ENOSPC":                   fault.On(syscall.ENOSPC, "write create mkdir", ""),
		"zeros written for a size": nil, // as exFAT does
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngineFiles(t, map[string]int{"a": size, "b": size, "c": size})
			d := newDisk(t)
			env := []string{"MLFLOWFS_CACHE_DIR=" + d.Dir}
			m := mountAt(t, e.URL, env, plain...)
			e.same(t, m, "a")
			waitFor(t, "nothing is stored", long, func() bool { return stored(t, d.Dir) >= blocks })
			m.stop()
			m = mountAt(t, e.URL, env, plain...) // which has nothing in memory
			f, err := os.Open(m.path("runs", e.run, "a"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			b := make([]byte, 4096)
			if _, err := f.ReadAt(b, 0); err != nil {
				t.Fatal(err)
			}
			let := make(chan struct{})
			defer close(let)
			if rule == nil {
				rule = fault.Hanging(let, "setattr", "data")
			}
			d.Set(rule)
			e.same(t, m, "b")
			e.same(t, m, "c")
			time.Sleep(2500 * time.Millisecond) // longer than a disk may take
			if name != "zeros written for a size" && d.Met.Of() == 0 {
				t.Error("no fault was met")
			}
			forget(t, f)
			before := m.cache()
			e.Reset()
			e.same(t, m, "a")
			n, _ := e.fetched()
			if did := m.cache().Since(before); n > 0 || did.OriginBytes > 0 || did.DiskHits == 0 {
				t.Errorf("%d bytes of what is on the disk were fetched again: %+v\n%s", n, did, m.log)
			}
			d.Set(nil)
		})
	}
}

// TestDiskWithoutStatKeepsNobodyWaiting fails when a cache disk that answers no
// GETATTR, or opens nothing any more, as a network's does whose server is gone, has
// anybody wait who needs no answer of it: who reads from memory, closes, lists,
// asks for attributes or for the status.
func TestDiskWithoutStatKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	const size, blocks = 3 << 20, 3 << 20 >> 17
	for name, ops := range map[string]string{"GETATTR": "getattr", "OPEN": "open lookup getattr"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngineFiles(t, map[string]int{"a": size, "b": size, "c": size, "d/x": 1000})
			d := newDisk(t)
			env := []string{"MLFLOWFS_CACHE_DIR=" + d.Dir}
			m := mountAt(t, e.URL, env, plain...)
			e.same(t, m, "a")
			e.same(t, m, "d/x")
			waitFor(t, "nothing is stored", long, func() bool { return stored(t, d.Dir) >= blocks })
			m.stop()
			m = mountAt(t, e.URL, env, plain...)
			open := func(name string) *os.File {
				t.Helper()
				f, err := os.Open(m.path("runs", e.run, name))
				if err != nil {
					t.Fatal(err)
				}
				return f
			}
			e.same(t, m, "b") // is in memory
			a, b := open("a"), open("b")
			defer b.Close()
			if _, err := a.ReadAt(make([]byte, 4096), 0); err != nil {
				t.Fatal(err)
			}
			let := make(chan struct{})
			defer close(let)
			d.Set(fault.Hanging(let, ops, ""))
			a.Close()
			time.Sleep(100 * time.Millisecond) // the daemon hears of it a little later
			const soon = 3 * time.Second
			forget(t, b)
			within(t, soon, "sha256sum", m.path("runs", e.run, "b"))
			within(t, soon, "cat", m.path(".mlflowfs", "status.json"))
			within(t, soon, "python3", "-c", xattrs, m.path("runs", e.run, "a"), m.path("runs", e.run, "b"))
			within(t, soon, "ls", "-l", m.path("runs", e.run, "d"))
			within(t, soon, "sha256sum", m.path("runs", e.run, "a"))
			within(t, soon, "sha256sum", m.path("runs", e.run, "c"))
			forget(t, b)
			within(t, soon, "sha256sum", m.path("runs", e.run, "b"))
			if d.Met.Of() == 0 {
				t.Error("no fault was met")
			}
			d.Set(nil)
		})
	}
}

// TestOpensWriteNothing fails when each open of a file that is in the cache writes to
// its disk, such as when it was used; or when a size is set ahead of the bytes, for
// which some filesystems write zeros, as much as the file is long.
func TestOpensWriteNothing(t *testing.T) {
	t.Parallel()
	const size, blocks, opens = 3 << 20, 3 << 20 >> 17, 20
	e := newEngineFiles(t, map[string]int{"a": size})
	d := newDisk(t)
	m := mountAt(t, e.URL, []string{"MLFLOWFS_CACHE_DIR=" + d.Dir}, plain...)
	e.same(t, m, "a")
	waitFor(t, "nothing is stored", long, func() bool { return stored(t, d.Dir) >= blocks })
	if n := d.Done.Of("setattr data", "allocate"); n > 0 {
		t.Errorf("a size was set %d times", n)
	}
	m.atRest()
	d.Done.Reset()
	for range opens {
		f, err := os.Open(m.path("runs", e.run, "a"))
		if err != nil {
			t.Fatal(err)
		}
		forget(t, f)
		if _, err := f.ReadAt(make([]byte, 4096), 0); err != nil {
			t.Error(err)
		}
		f.Close()
		m.atRest()
	}
	if n := d.Done.Of("open data"); n < opens/2 {
		t.Errorf("%d opens reached the disk: nothing was tested", n)
	}
	if n := d.Done.Of("setattr", "write data", "write record"); n > 2 {
		t.Errorf("%d opens wrote %d times: %s", opens, n, &d.Done)
	}
}
