package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/mlflowfs/mlflowfs/test/fault"
)

// TestWarmEvictPin fails when what was warmed is fetched again, when what is
// pinned goes for others, or when what is evicted stays.
func TestWarmEvictPin(t *testing.T) {
	t.Parallel()
	const size = 6 << 20
	e := newEngineFiles(t, map[string]int{"m/MLmodel": 10, "m/w.bin": size, "m/sub/x.bin": size, "m/notes.txt": 100})
	dir := t.TempDir()
	env := []string{"MLFLOWFS_CACHE_DIR=" + dir, "MLFLOW_TRACKING_URI=" + e.URL}
	uri := "runs:/" + e.run + "/m"
	say := func(args ...string) string {
		t.Helper()
		out, err := command(t, env, args...)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	if out := say("warm", "--include", "*.bin", uri); !strings.Contains(out, "2 files") {
		t.Error(out)
	}
	if n, _ := e.fetched(); n != 2*size {
		t.Errorf("warm fetched %d bytes", n)
	}
	say("warm", uri) // the rest
	if n, _ := e.fetched(); n != 110 {
		t.Errorf("warm fetched %d bytes of what was missing", n)
	}
	m := mountAt(t, e.URL, env)
	e.Reset()
	for _, name := range []string{"m/w.bin", "m/sub/x.bin", "m/notes.txt"} {
		e.same(t, m, name)
	}
	if n, _ := e.fetched(); n > 0 {
		t.Errorf("%d bytes were fetched of what is warm", n)
	}
	if did := m.cache(); did.DiskHits == 0 || did.Misses > 0 || did.OriginRequests > 0 {
		t.Errorf("of what is warm: %+v", did)
	}
	m.stop()

	// What is pinned stays when others need the room.
	if out := say("pin", "--include", "w.bin", uri); !strings.Contains(out, "1 files pinned") {
		t.Error(out)
	}
	other := newEngineFiles(t, map[string]int{"other": 20 << 20})
	small := mountAt(t, other.URL, env, "--cache-size", "24MiB")
	other.same(t, small, "other")
	small.stop()
	e.Reset()
	say("warm", "--include", "w.bin", uri)
	if n, _ := e.fetched(); n > 0 {
		t.Errorf("what was pinned was fetched again: %d bytes", n)
	}
	if out := say("evict", uri); !strings.Contains(out, "freed") {
		t.Error(out)
	}
	e.Reset()
	say("warm", "--include", "w.bin", uri)
	if n, _ := e.fetched(); n != size {
		t.Errorf("%d bytes came after the eviction", n)
	}
	if out := say("unpin", uri); !strings.Contains(out, "unpinned") {
		t.Error(out)
	}
	refuses(t, 2, env, []string{"warm"}, "one or more URIs")
	refuses(t, 2, env, []string{"warm", "--include", "[", uri}, "pattern")
	refuses(t, 2, env, []string{"evict", "--cache-dir", "none", uri}, "nothing on disk")
	refuses(t, 3, env, []string{"warm", "runs:/" + e.run + "/nowhere"}, "nowhere")
	refuses(t, 1, env, []string{"warm", "--cache-size", "16MiB", "runs:/" + other.run}, "room")
}

// TestWarmGoesOn fails when a warm that is killed begins anew.
func TestWarmGoesOn(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	e := newEngineFiles(t, map[string]int{"big": size})
	e.Break(nil, func(resp *http.Response) error {
		if isArtifact(resp.Request) {
			fault.Pace(resp, 13<<20)
		}
		return nil
	})
	env := []string{"MLFLOWFS_CACHE_DIR=" + t.TempDir(), "MLFLOW_TRACKING_URI=" + e.URL}
	c := mlflowfs(t, env, "warm", "runs:/"+e.run)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "too little comes", long, func() bool { return e.Bytes() > size/2 }) // each of 8 requests gathers 2 MiB for a write
	c.Process.Kill()
	c.Wait()
	e.Break(nil, nil)
	e.Reset()
	if _, err := command(t, env, "warm", "runs:/"+e.run); err != nil {
		t.Fatal(err)
	}
	if n, _ := e.fetched(); n > size*7/8 {
		t.Errorf("%d bytes came again", n)
	}
}

// TestCacheLeavesAPartOfTheDiskFree fails when what is read with a cache on a disk
// without room is wrong, or when a twentieth of the disk does not stay free.
func TestCacheLeavesAPartOfTheDiskFree(t *testing.T) {
	t.Parallel()
	needsRoot(t, "it makes a small disk")
	e := newEngineFiles(t, map[string]int{"a": 30 << 20, "b": 30 << 20, "c": 30 << 20})
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, syscall.MNT_DETACH) })
	m := mountAt(t, e.URL, []string{"MLFLOWFS_CACHE_DIR=" + disk})
	for range 2 {
		for _, n := range []string{"a", "b", "c"} {
			e.same(t, m, n)
		}
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(disk, &st); err != nil || st.Bavail < st.Blocks/25 {
		t.Errorf("%d of %d blocks are free (%v)", st.Bavail, st.Blocks, err)
	}
	m.stop()
}

// TestMemoryStaysInItsBudget fails when 64 sequential and 64 random readers have a
// mount take more memory than its limit allows, or when one of them starves.
func TestMemoryStaysInItsBudget(t *testing.T) {
	e := newEngineFiles(t, map[string]int{"a": 200 << 20, "b": 200 << 20, "c": 200 << 20})
	for _, dir := range []string{t.TempDir(), "none"} {
		m := mountAt(t, e.URL, []string{"MLFLOWFS_CACHE_DIR=" + dir}, "--memory-limit", "256MiB")
		out, err := output("python3", "-c", `
import json, os, random, sys, threading, time
files, begun, slow, done = sys.argv[1:], time.time(), [0] * 128, [0] * 128
def goes_on(): # for 10 s, and until everybody has read 5 times; nobody waits a minute for that
    passed = time.time() - begun
    return passed < 10 or passed < 60 and min(done) < 5
def sequential(i):
    fd, buf = os.open(files[i % 3], os.O_RDONLY), bytearray(1 << 20)
    size = os.fstat(fd).st_size
    off = i * 7919 * 4096 % size
    while goes_on():
        begin = time.time()
        n = os.preadv(fd, [buf], off)
        slow[i], off, done[i] = max(slow[i], time.time() - begin), (off + n) % size, done[i] + 1
def at_random(i):
    fd, buf, r = os.open(files[i % 3], os.O_RDONLY), bytearray(4096), random.Random(i)
    size = os.fstat(fd).st_size
    while goes_on():
        begin = time.time()
        os.preadv(fd, [buf], r.randrange(size // 4096) * 4096)
        slow[i], done[i] = max(slow[i], time.time() - begin), done[i] + 1
ts = [threading.Thread(target=sequential if i < 64 else at_random, args=(i,)) for i in range(128)]
[t.start() for t in ts]; [t.join() for t in ts]
print(json.dumps([min(done), max(slow)]))
`, m.path("runs", e.run, "a"), m.path("runs", e.run, "b"), m.path("runs", e.run, "c"))
		if err != nil {
			t.Fatal(err)
		}
		var least, slowest float64
		if err := json.Unmarshal(out, &[]*float64{&least, &slowest}); err != nil || least < 5 { // nobody starves
			t.Errorf("--cache-dir %s: a reader has read %v times in a minute, another waited %v s (%v)", dir, least, slowest, err)
		}
		figure(t, "--cache-dir %s: one of 128 readers waited %.1f s", dir, slowest)
		if peak := peakOf(t, m.daemon()); peak > 320 {
			t.Errorf("--cache-dir %s: %d MiB of memory", dir, peak)
		}
		m.stop()
	}
}

// peakOf is a process's largest resident memory so far, in MiB.
func peakOf(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines(b) {
		if rest, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			kib, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kib >> 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
