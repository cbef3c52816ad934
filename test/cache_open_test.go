package test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/fault"
)

// TestUnreadableBlockIsFetched fails when a read of the cache's disk that fails with
// an error of the process, or one that says nothing of the block, again and again,
// hangs the reader or fails it.
func TestUnreadableBlockIsFetched(t *testing.T) {
	t.Parallel()
	const size, blocks = 3 << 20, 3 << 20 >> 17
	for _, errno := range []syscall.Errno{syscall.ENOMEM, syscall.EAGAIN, syscall.EDQUOT, syscall.ESTALE, syscall.EIO} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			e := newEngineFiles(t, map[string]int{"a": size})
			d := newDisk(t)
			env := []string{"MLFLOWFS_CACHE_DIR=" + d.Dir}
			m := mountAt(t, e.URL, env, plain...)
			e.same(t, m, "a")
			waitFor(t, "nothing is stored", long, func() bool { return stored(t, d.Dir) >= blocks })
			m.stop()
			m = mountAt(t, e.URL, env, plain...)
			d.Set(fault.On(errno, "read", "data"))
			if sum := within(t, 10*time.Second, "sha256sum", m.path("runs", e.run, "a")); !strings.HasPrefix(string(sum), sumOf(t, filepath.Join(e.dir, "a"))) {
				t.Errorf("it reads as %s", sum)
			}
			if d.Met.Of("read data") == 0 {
				t.Error("no fault was met")
			}
			d.Set(nil)
		})
	}
}

// TestWhatAMountLeftCounts fails when what a mount has brought to the disk just before
// it was unmounted counts for none of the next: short ones, one after another, would
// fill the disk.
func TestWhatAMountLeftCounts(t *testing.T) {
	t.Parallel()
	const size, mounts = 6 << 20, 3
	files := map[string]int{}
	for i := range mounts {
		files[fmt.Sprint(i)] = size
	}
	e := newEngineFiles(t, files)
	env := []string{"MLFLOWFS_CACHE_DIR=" + t.TempDir()}
	for i := range mounts {
		m := mountAt(t, e.URL, env, plain...)
		e.same(t, m, fmt.Sprint(i))
		m.stop()
	}
	m := mountAt(t, e.URL, env, plain...)
	if n := m.onDisk(); n < mounts*size || n > mounts*size+1<<20 {
		t.Errorf("%d bytes are counted of %d", n, mounts*size)
	}
}

// TestDownloadOfAnySizeIsAnErrorAtMost fails when a size that a server lists, and that
// no file has, ends `mlflowfs download` by its memory, or by an overflow.
func TestDownloadOfAnySizeIsAnErrorAtMost(t *testing.T) {
	t.Parallel()
	e := newLiedAbout(t)
	for _, whole := range []bool{false, true} {
		e.lie(whole)
		for listed := range lies {
			e.sizeEnds(t, []string{"MLFLOW_TRACKING_URI=" + e.URL}, "download", "--dst", t.TempDir(), "runs:/"+e.run+"/d"+listed)
		}
	}
}

// TestStreamFitsWhereTmpIsMemory fails when a file that comes as one stream, of a mount
// without a cache on disk, is put into /tmp, which may be memory, and is small here; or
// when it is asked for more than once.
func TestStreamFitsWhereTmpIsMemory(t *testing.T) {
	t.Parallel()
	needsRoot(t, "it mounts another /tmp")
	e := newEngineFiles(t, map[string]int{"f": 24 << 20})
	e.Break(func(_ http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Range")
		return false
	}, nil)
	dir, err := os.MkdirTemp(work, "mnt-")
	if err != nil {
		t.Fatal(err)
	}
	c := mlflowfs(t, nil, "mount", "--tracking-uri", e.URL, "--cache-dir", "none", "--memory-limit", "64MiB", dir)
	args := append([]string{"-m", "sh", "-ec", aloneInNamespace + `; mount --bind "$0" /mnt; mount -t tmpfs -o size=8m none /tmp; mkdir -p "$0"; mount --bind /mnt "$0"; exec "$@"`, work, c.Path}, c.Args[1:]...)
	alone := exec.Command("unshare", args...)
	alone.Env = c.Env
	m := launch(t, dir, alone)
	t.Cleanup(m.stop)
	out, err := output("sha256sum", fmt.Sprintf("/proc/%d/root%s", m.daemon(), m.path("runs", e.run, "f")))
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", m.daemon()))
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); strings.HasPrefix(to, "/tmp/.") {
			t.Errorf("it is in %s", to)
		}
	}
	if n, asked := e.fetched(); asked != 1 {
		t.Errorf("%d bytes in %d answers", n, asked)
	}
	if want := sumOf(t, filepath.Join(e.dir, "f")); err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("%s, %v\n%s", out, err, tail(m.log.String()))
	}
}
