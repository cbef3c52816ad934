package test

import (
	"fmt"
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
			waitFor(t, "nothing is stored", 5*time.Second, func() bool { return stored(t, d.Dir) >= blocks })
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
