package test

import (
	"net/http"
	"os/exec"
	"sync"
	"testing"

	"github.com/mlflowfs/mlflowfs/test/fault"
)

// TestRemountAsksForNothing fails when what is cached is asked for again after a
// remount.
func TestRemountAsksForNothing(t *testing.T) {
	t.Parallel()
	const size = 24 << 20
	e := newEngineFiles(t, map[string]int{"big": size, "small/a": 10, "small/b": 4096})
	cache := []string{"MLFLOWFS_CACHE_DIR=" + t.TempDir()}
	m := mountAt(t, e.URL, cache)
	for _, n := range []string{"big", "small/a", "small/b"} {
		e.same(t, m, n)
	}
	m.stop()
	e.Reset()
	m = mountAt(t, e.URL, cache)
	for _, n := range []string{"big", "small/a", "small/b"} {
		e.same(t, m, n)
	}
	if n, asked := e.fetched(); n > 0 || asked > 0 {
		t.Errorf("%d bytes in %d answers after the remount", n, asked)
	}
	if did := m.cache(); did.Hits() < size>>17 || did.DiskHits == 0 || did.Misses > 0 {
		t.Errorf("after the remount: %+v", did)
	}
}

// TestKilledWhileFillingGoesOn fails when what came before a daemon was killed is
// fetched again.
func TestKilledWhileFillingGoesOn(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	e := newEngineFiles(t, map[string]int{"big": size})
	var sent int64
	e.Break(nil, func(resp *http.Response) error {
		if isArtifact(resp.Request) {
			fault.Pace(resp, 13<<20)
		}
		return nil
	})
	cache := []string{"MLFLOWFS_CACHE_DIR=" + t.TempDir()}
	for range 3 {
		m := mountAt(t, e.URL, cache)
		c := exec.Command("cat", m.path("runs", e.run, "big"))
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "nothing comes", long, func() bool { return e.Bytes() > 6<<20 })
		m.kill()
		c.Wait()
		<-m.ended
		output("umount", "-l", m.dir)
		n, _ := e.fetched()
		sent += n
	}
	e.Break(nil, nil)
	m := mountAt(t, e.URL, cache)
	e.same(t, m, "big")
	n, _ := e.fetched()
	if n >= size || sent == 0 {
		t.Errorf("%d bytes came before the kills, and then again %d", sent, n)
	}
}

// TestTwoDaemonsShareOneCache fails when of two daemons on one directory one
// fetches what the other has, or gives a wrong byte while the other evicts.
func TestTwoDaemonsShareOneCache(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"a": 20 << 20, "b": 20 << 20})
	cache := []string{"MLFLOWFS_CACHE_DIR=" + t.TempDir()}
	x, y := mountRaced(t, e.URL, cache), mountRaced(t, e.URL, cache)
	e.same(t, x, "a")
	e.same(t, y, "b")
	settled(func() int64 { return int64(x.cache().OriginRequests + y.cache().OriginRequests) })
	e.Reset()
	before := y.cache()
	e.same(t, y, "a")
	e.same(t, x, "b")
	if n, asked := e.fetched(); n > 0 {
		t.Errorf("%d bytes in %d answers", n, asked)
	}
	if did := y.cache().Since(before); did.Misses > 0 || did.OriginRequests > 0 { // the kernel may read it itself, which counts for nothing
		t.Errorf("what the other has fetched: %+v", did)
	}
	// Both at once, with a bound that has one of them evict what the other reads.
	small := []string{"--cache-size", "24MiB"}
	x, y = mountRaced(t, e.URL, cache, small...), mountRaced(t, e.URL, cache, small...)
	var wg sync.WaitGroup
	for _, m := range []*mount{x, y} {
		wg.Go(func() {
			for range 3 {
				e.same(t, m, "a")
				e.same(t, m, "b")
			}
		})
	}
	wg.Wait()
}

// TestEightProcessesOneFetch fails when eight programs that read one cold file
// cost the origin more than that file.
func TestEightProcessesOneFetch(t *testing.T) {
	t.Parallel()
	const size = 40<<20 + 11
	e := newEngineFiles(t, map[string]int{"big": size})
	m := mountRaced(t, e.URL, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { e.same(t, m, "big") })
	}
	wg.Wait()
	if n, _ := e.fetched(); n != size {
		t.Errorf("%d bytes for a file of %d", n, size)
	}
}
