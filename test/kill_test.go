package test

import (
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/fault"
)

// TestKilledAtAnyMomentLosesLittle fails when a daemon that is killed at some
// moment of a fill leaves a bad byte in the cache, or when less than 95 % of
// what a program had read still counts.
func TestKilledAtAnyMomentLosesLittle(t *testing.T) {
	t.Parallel()
	kills := 15
	if soak > 0 {
		kills = int(length(0, 0.1) / (300 * time.Millisecond)) // which is what one takes
	}
	const size = 96 << 20
	e := newEngineFiles(t, map[string]int{"model/MLmodel": 100, "model/big": size})
	e.Break(nil, func(r *http.Response) error {
		if isArtifact(r.Request) {
			fault.Pace(r, 13<<20)
		}
		return nil
	})
	dir := t.TempDir()
	cache := []string{"MLFLOWFS_CACHE_DIR=" + dir}
	for i := range kills {
		m := mountAt(t, e.URL, cache)
		c := exec.Command("cat", m.path("runs", e.run, "model", "big"))
		var got counted
		c.Stdout = &got
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		goal := int64(i) * size / int64(kills+1) // each comes a little further
		for end := time.Now().Add(10 * time.Second); got.n.Load() < goal && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(i%7) * time.Millisecond)
		m.kill()
		<-m.ended
		c.Wait()
		syscall.Unmount(m.dir, syscall.MNT_DETACH)
		// What a program has read was complete; it is there, but for what each
		// request had gathered for a write, and what waited to be written.
		const block, gathered, parallel, waiting = 128 << 10, 15, 8, 4 << 20
		if came, kept := got.n.Load(), stored(t, dir)*block; float64(kept) < 0.95*float64(came)-gathered*parallel*block-waiting {
			t.Errorf("kill %d: %d bytes were read and %d are kept", i, came, kept)
		}
	}
	e.Break(nil, nil)
	e.Reset()
	m := mountAt(t, e.URL, cache)
	e.same(t, m, "model/big")
	if n, _ := e.fetched(); n > size/2 {
		t.Errorf("%d of %d bytes came again", n, size)
	}
}

// counted counts what is written to it.
type counted struct{ n atomic.Int64 }

func (c *counted) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// stored is how many blocks the records below a cache directory name.
func stored(t *testing.T, dir string) (n int64) {
	t.Helper()
	filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if strings.HasSuffix(p, ".rec") {
			b, err := os.ReadFile(p)
			for at := 512; err == nil && at+8 <= len(b); at += 8 {
				if [8]byte(b[at:]) != [8]byte{} {
					n++
				}
			}
		}
		return err
	})
	return n
}
