package test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/fault"
)

// newDisk is a cache directory on a disk that fails at will.
func newDisk(t *testing.T) *fault.Disk {
	t.Helper()
	below, err := os.MkdirTemp(work, "below-")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(work, "disk-")
	if err != nil {
		t.Fatal(err)
	}
	d, err := fault.NewDisk(dir, below)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Errorf("the disk that fails: %v", err)
		}
		os.RemoveAll(below)
		os.Remove(dir)
	})
	return d
}

// TestBadDiskFailsNoRead fails when a cache disk that fails, is full, is
// read-only, is slow or answers no more fails a read; when that is not said, or
// said more than once; or when the disk is not used again when it is well.
func TestBadDiskFailsNoRead(t *testing.T) {
	t.Parallel()
	needsRoot(t, "it drops the page cache")
	const files = "data record" // of what the cache holds
	const all = ""              // of what it has
	const size, blocks = 6 << 20, 6 << 20 >> 17
	for name, c := range map[string]struct {
		rule  func(let <-chan struct{}) fault.Rule
		hits  bool // what is here is not fetched again
		quiet bool // and nothing is said
	}{
		"EIO on writes": {rule: on(syscall.EIO, "write", files), hits: true},
		"EIO on reads":  {rule: on(syscall.EIO, "read", files)},
		"EIO on all":    {rule: on(syscall.EIO, "read write open create lookup", all)},
		"full":          {rule: on(syscall.ENOSPC, "write create", files), hits: true},
		"over quota":    {rule: on(syscall.EDQUOT, "write create mkdir", all), hits: true},
		"no inodes":     {rule: on(syscall.ENOSPC, "create", ""), hits: true},
		"read-only":     {rule: on(syscall.EROFS, "write create", files), hits: true},
		"slow":          {rule: func(<-chan struct{}) fault.Rule { return fault.Slow(10 * time.Millisecond) }, hits: true, quiet: true},
		"hangs": {rule: func(let <-chan struct{}) fault.Rule {
			return fault.Hanging(let, "read write open create lookup", files)
		}},
		"answers no stat": {rule: func(let <-chan struct{}) fault.Rule { return fault.Hanging(let, "getattr", "") }, hits: true, quiet: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDisk(t)
			let := make(chan struct{})
			sizes := map[string]int{"a": size, "b": size, "c": size}
			for i := range 100 {
				sizes[fmt.Sprintf("probe/%d", i)] = 1000
			}
			e := newEngineFiles(t, sizes)
			m := mountRaced(t, e.URL, []string{"MLFLOWFS_CACHE_DIR=" + d.Dir}, "--no-passthrough", "--memory-limit", "64MiB", "--fill-limit", "0")
			well := sync.OnceFunc(func() {
				d.Set(nil)
				close(let)
			})
			t.Cleanup(well) // also where the test fails: what hangs could not be unmounted
			e.same(t, m, "a")
			waitFor(t, "nothing is stored while all is well", long, func() bool { return stored(t, d.Dir) >= blocks })
			before := m.cache()
			d.Met.Reset()
			d.Set(c.rule(let))
			dropCaches(t)
			begin := time.Now()
			e.same(t, m, "b")
			e.same(t, m, "a")
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("two reads took %v", took)
			}
			if c.hits {
				if did := m.cache().Since(before); did.Hits() < blocks || did.OriginBytes != size {
					t.Errorf("what is here was fetched again: %+v", did)
				}
			}
			if name != "slow" { // what is written is written behind
				waitFor(t, "no fault is met", long, func() bool { return d.Met.Of() > 0 })
			}
			if n := strings.Count(m.log.String(), "can't be used for now"); c.quiet != (n == 0) || n > 1 {
				t.Errorf("it is said %d times:\n%s", n, m.log)
			}
			well()
			if !c.quiet {
				for probe := 0; !strings.Contains(m.log.String(), "is used again"); probe++ { // each new to the cache
					if probe == 100 {
						t.Fatalf("well again, it is not used:\n%s", m.log)
					}
					e.same(t, m, fmt.Sprintf("probe/%d", probe))
					time.Sleep(400 * time.Millisecond)
				}
			}
			stores := stored(t, d.Dir)
			e.same(t, m, "c")
			waitFor(t, "well again, it stores nothing", long, func() bool { return stored(t, d.Dir)-stores >= blocks })
			m.stop()

			// What the next daemon finds there is right, and counts.
			m = mountRaced(t, e.URL, []string{"MLFLOWFS_CACHE_DIR=" + d.Dir}, "--no-passthrough")
			e.same(t, m, "c")
			if did := m.cache(); did.Hits() < blocks || did.DiskHits == 0 || did.OriginRequests > 0 {
				t.Errorf("the next daemon: %+v", did)
			}
		})
	}
}

func on(e syscall.Errno, ops, kinds string) func(<-chan struct{}) fault.Rule {
	return func(<-chan struct{}) fault.Rule { return fault.On(e, ops, kinds) }
}

// TestAnyDiskFaultFailsNoRead fails when some operation of the cache on some
// kind of its files, failing in some way, gives a program a wrong byte or an
// error, or ends the daemon. Which ones are tried is drawn by a seed.
func TestAnyDiskFaultFailsNoRead(t *testing.T) {
	t.Parallel()
	const size = 2 << 20
	seed := seedOf(t)
	r := rand.New(rand.NewPCG(seed, 7))
	e := newEngineFiles(t, map[string]int{"a": size, "b": size, "c": size})
	end := time.Now().Add(length(0, 0.1))
	for i := 0; i < 10 || time.Now().Before(end); i++ {
		op, kind := fault.Ops[r.IntN(len(fault.Ops))], fault.DiskKinds[r.IntN(len(fault.DiskKinds))]
		errno := []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.EROFS, 0}[r.IntN(6)]
		what := fmt.Sprintf("%s on %s of %s", errno.Error(), op, kind)
		if errno == 0 {
			what = fmt.Sprintf("%s of %s hangs", op, kind)
		}
		func() {
			d := newDisk(t)
			m := mountAt(t, e.URL, []string{"MLFLOWFS_CACHE_DIR=" + d.Dir}, "--no-passthrough", "--memory-limit", "64MiB", "--metadata-ttl", "1s")
			defer m.stop()
			e.same(t, m, "a")
			let := make(chan struct{})
			defer close(let)
			d.Set(fault.On(errno, op, kind))
			if errno == 0 {
				d.Set(fault.Hanging(let, op, kind))
			}
			for _, f := range []string{"b", "a", "c"} {
				got, err := output("sha256sum", m.path("runs", e.run, f))
				if want := sumOf(t, filepath.Join(e.dir, f)); err != nil || !strings.HasPrefix(string(got), want) {
					t.Errorf("%s: %s reads as %s, %v\n%s", what, f, got, err, tail(m.log.String()))
				}
			}
			d.Set(nil)
		}()
		if t.Failed() {
			return
		}
	}
}

// TestFewDescriptorsFailNoRead fails when a daemon that may open few files gives a
// program that has many open a wrong byte or an error.
func TestFewDescriptorsFailNoRead(t *testing.T) {
	t.Parallel()
	const files, size = 60, 300_000 // each takes two descriptors in the cache
	sizes := map[string]int{}
	for i := range files {
		sizes[fmt.Sprint(i)] = size
	}
	e := newEngineFiles(t, sizes)
	dir, err := os.MkdirTemp(work, "mnt-")
	if err != nil {
		t.Fatal(err)
	}
	c := mlflowfs(t, []string{"MLFLOWFS_CACHE_DIR=" + t.TempDir()}, "mount", "--tracking-uri", e.URL, "--no-passthrough", dir)
	m := launch(t, dir, fault.Limited(c, fault.Limit{Resource: "nofile", Most: 80}))
	t.Cleanup(m.stop)
	out, err := output("python3", "-c", `
import os, sys
mount, truth, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
fds = [os.open(f"{mount}/{i}", os.O_RDONLY) for i in range(n)]
for at in (0, 150_000):
    for i, fd in enumerate(fds):
        with open(f"{truth}/{i}", "rb") as f:
            f.seek(at)
            assert os.pread(fd, 150_000, at) == f.read(150_000), i
print("ok")
`, m.path("runs", e.run), e.dir, fmt.Sprint(files))
	if err != nil || string(out) != "ok\n" {
		t.Errorf("%s, %v\n%s", out, err, tail(m.log.String()))
	}
	if open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.daemon())); err != nil || len(open) > 80 {
		t.Errorf("%d descriptors are open, %v: nothing was tested", len(open), err)
	}
}

// TestCacheWritesWithoutFsync fails when the cache begins to wait for its disk:
// what a crash leaves is held against checksums, so nothing needs an fsync.
func TestCacheWritesWithoutFsync(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	d := newDisk(t)
	e := newEngineFiles(t, map[string]int{"a": size})
	m := mountAt(t, e.URL, []string{"MLFLOWFS_CACHE_DIR=" + d.Dir})
	e.same(t, m, "a")
	waitFor(t, "nothing is stored", long, func() bool { return stored(t, d.Dir) >= size>>17 })
	m.stop()
	if d.Done.Of("write data") == 0 || d.Done.Of("fsync") > 0 {
		t.Errorf("what reached the disk: %s", &d.Done)
	}
}

// TestMarkFollowsItsBytes fails when the cache says of a block that it is on the disk
// before its bytes are: what is killed in between is then taken for damaged.
func TestMarkFollowsItsBytes(t *testing.T) {
	t.Parallel()
	const size = 2 << 20
	d := newDisk(t)
	d.Set(fault.On(syscall.EIO, "write", "data"))
	e := newEngineFiles(t, map[string]int{"a": size})
	m := mountAt(t, e.URL, []string{"MLFLOWFS_CACHE_DIR=" + d.Dir})
	e.same(t, m, "a")
	waitFor(t, "no write has failed", long, func() bool { return d.Met.Of("write data") > 0 })
	m.stop()
	d.Set(nil)
	if n := stored(t, d.Dir); n > 0 {
		t.Errorf("%d blocks are marked, and none could be written", n)
	}
}

// TestCacheDirectoryUnderAttackGivesNoWrongByte fails when a cache directory
// whose files are cut, swapped, or gone under the daemon gives a wrong byte.
func TestCacheDirectoryUnderAttackGivesNoWrongByte(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	for name, attack := range map[string]func(dir string, data []string) error{
		"gone": func(dir string, _ []string) (err error) {
			for range 100 { // the daemon may write another name there meanwhile
				if err = os.RemoveAll(filepath.Join(dir, "mlflowfs-v2")); err == nil {
					break
				}
			}
			return err
		},
		"cut": func(_ string, data []string) error {
			for _, f := range data {
				if err := os.Truncate(f, size/3); err != nil {
					return err
				}
			}
			return nil
		},
		"swapped": func(_ string, data []string) error {
			record := func(data string) string { return strings.TrimSuffix(data, filepath.Ext(data)) + ".rec" }
			for _, of := range []func(string) string{func(data string) string { return data }, record} {
				a, b := of(data[0]), of(data[1])
				if err := errors.Join(os.Rename(a, a+".x"), os.Rename(b, a), os.Rename(a+".x", b)); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngineFiles(t, map[string]int{"a": size, "b": size, "c": size})
			dir := t.TempDir()
			env := []string{"MLFLOWFS_CACHE_DIR=" + dir}
			m := mountRaced(t, e.URL, env, "--no-passthrough")
			e.same(t, m, "a")
			e.same(t, m, "b")
			waitFor(t, "they are not stored", long, func() bool { return stored(t, dir) >= 2*size>>17 })
			var data []string
			filepath.WalkDir(dir, func(p string, f os.DirEntry, err error) error {
				if st, serr := os.Stat(p); err == nil && serr == nil && st.Size() == size && fault.KindOf(p) == "data" {
					data = append(data, p)
				}
				return err
			})
			if len(data) != 2 {
				t.Fatal(data)
			}
			if err := attack(dir, data); err != nil {
				t.Fatal(err)
			}
			before := m.cache()
			for _, daemon := range []*mount{m, mountRaced(t, e.URL, env)} {
				for _, f := range []string{"a", "c", "b"} {
					e.same(t, daemon, f)
				}
			}
			if did := m.cache().Since(before); did.OriginBytes < size {
				t.Errorf("c came from nowhere: %+v", did)
			}
		})
	}
}
