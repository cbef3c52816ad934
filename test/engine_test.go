package test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// engineFiles is a finished run of the 3.17 server, with files on its disk,
// behind a proxy that counts.
type engineFiles struct {
	*count.Origin
	run, dir string
}

// newEngineFiles makes files of noise, by their names and sizes.
func newEngineFiles(t *testing.T, files map[string]int) *engineFiles {
	t.Helper()
	s := shared.get(t, "server 3.17")
	run := finished(t, s.server.url(), newRun(t, s.server.url(), "0"))
	e := &engineFiles{proxyTo(t, s.server.url()), run, filepath.Join(s.server.artifacts(), "0", run, "artifacts")}
	for name, size := range files {
		p := filepath.Join(e.dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(p)
		if err == nil {
			_, err = io.CopyN(f, rand.NewChaCha8([32]byte{byte(size), byte(len(name))}), int64(size))
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// same holds a file of the mount against the one on the server's disk.
func (e *engineFiles) same(t *testing.T, m *mount, name string) {
	t.Helper()
	if got, want := sumOf(t, m.path("runs", e.run, name)), sumOf(t, filepath.Join(e.dir, name)); got != want {
		t.Errorf("%s: wrong bytes", name)
	}
}

// fetched is how many bytes of artifacts the server has sent, and in how many
// answers, since the last call.
func (e *engineFiles) fetched() (n int64, asked int) {
	requests, n := e.Reset()
	return n, count.Of(requests, artifactsAPI+"/")
}

func dropCaches(t *testing.T) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
}

// TestNoReadReachesTheDaemon fails when the kernel asks for what it could read
// itself: a file that is complete and verified, even with the page cache
// dropped; or, without passthrough, what the page cache has.
func TestNoReadReachesTheDaemon(t *testing.T) {
	needsRoot(t, "passthrough needs it")
	const size = 24 << 20
	e := newEngineFiles(t, map[string]int{"big": size})
	for _, c := range []struct {
		name  string
		flags []string
		kept  int // bytes that are asked for in a second pass, at most
		again int // and in one with the page cache dropped, at least; twice that at most
	}{
		{"passthrough", nil, 0, 0},
		{"page cache", []string{"--no-passthrough"}, size / 100, size * 9 / 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := mountAt(t, e.URL, nil, append(c.flags, count.Logged...)...)
			e.same(t, m, "big")
			settled(func() int64 { return int64(m.cache().OriginRequests) }) // the last blocks reach the disk
			first := m.reads().Bytes
			if first < size {
				t.Fatalf("the log tells of READs of %d bytes: the test does not see them", first)
			}
			e.same(t, m, "big")
			if n := m.reads().Bytes - first; n > c.kept {
				t.Errorf("%d bytes were asked for that the kernel has", n)
			}
			dropCaches(t)
			before := m.reads().Bytes
			e.same(t, m, "big")
			if n := m.reads().Bytes - before; n < c.again || n > 2*c.again {
				t.Errorf("%d bytes were asked for with the page cache dropped", n)
			}
			if n, _ := e.fetched(); n > size {
				t.Errorf("%d bytes were fetched of a file of %d", n, size)
			}
		})
		e.Reset()
	}
}

// TestPassedAndCachedDoNotMix fails when a file that is open through the page
// cache is opened in another way beside it, which the kernel refuses; or when it
// is not passed through once that is closed.
func TestPassedAndCachedDoNotMix(t *testing.T) {
	needsRoot(t, "passthrough needs it")
	const size = 8 << 20
	e := newEngineFiles(t, map[string]int{"f": size})
	m := mountAt(t, e.URL, nil, count.Logged...)
	path := m.path("runs", e.run, "f")
	early, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	e.same(t, m, "f")
	settled(func() int64 { return int64(m.cache().OriginRequests) })
	e.same(t, m, "f")
	dropCaches(t)
	before := m.reads().Bytes
	e.same(t, m, "f")
	if m.reads().Bytes == before {
		t.Error("a second kind of open beside a cached one")
	}
	early.Close() // the kernel tells of it a little later
	waitFor(t, "the daemon does not hear of the close", long, func() bool { return strings.Contains(m.log.String(), ": RELEASE n") })
	passed, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	before = m.reads().Bytes
	dropCaches(t)
	e.same(t, m, "f")
	if n := m.reads().Bytes - before; n > 0 {
		t.Errorf("%d bytes of a file that is complete were asked for", n)
	}
}

// TestPagesArePushedBeforeTheyAreAskedFor fails when a touched file of a model is
// not in the page cache by the time that a program reads on; without the push it
// is not.
func TestPagesArePushedBeforeTheyAreAskedFor(t *testing.T) {
	const size = 32 << 20
	for _, c := range []struct {
		flags       []string
		least, most int // bytes asked for of the rest of the file
	}{
		{nil, 0, size / 16},
		{[]string{"--no-push"}, size / 2, 2 * size},
	} {
		e := newEngineFiles(t, map[string]int{"m/MLmodel": 10, "m/weights": size})
		m := mountAt(t, e.URL, nil, append(c.flags, count.Logged...)...)
		f, err := os.Open(m.path("runs", e.run, "m", "weights"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.ReadAt(make([]byte, 1), size/2); err != nil {
			t.Fatal(err)
		}
		var got int64
		waitFor(t, "the whole file to come", long, func() bool {
			n, _ := e.fetched()
			got += n
			return got >= size
		})
		settled(func() int64 { return m.status().FUSE.PushedBytes })
		before := m.reads().Bytes
		e.same(t, m, "m/weights")
		if n := m.reads().Bytes - before; n < c.least || n > c.most {
			t.Errorf("%v: %d bytes were asked for after the file had come", c.flags, n)
		}
	}
}

// TestSettledDirectoriesAreListedOnce fails when a directory of what is finished is
// listed twice, and not from the kernel's memory; or when one that may change is
// not listed anew.
func TestSettledDirectoriesAreListedOnce(t *testing.T) {
	e := newEngineFiles(t, map[string]int{"d/a": 1, "d/b": 2})
	s := shared.get(t, "server 3.17")
	running := newRun(t, s.server.url(), "0")
	if err := os.MkdirAll(filepath.Join(s.server.artifacts(), "0", running, "artifacts", "d", "c"), 0o755); err != nil {
		t.Fatal(err)
	}
	m := mountAt(t, e.URL, nil, count.Logged...)
	listed := func() int {
		m.status() // its own requests are behind all that came before
		return strings.Count(m.log.String(), ": READDIRPLUS n")
	}
	for _, c := range []struct {
		dir  string
		want bool
	}{{m.path("runs", e.run, "d"), false}, {m.path("runs", running, "d"), true}} {
		if names, err := os.ReadDir(c.dir); err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		before := listed()
		if before == 0 {
			t.Fatal("the log tells of no listing: the test sees nothing")
		}
		if names, err := os.ReadDir(c.dir); err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		if got := listed() > before; got != c.want {
			t.Errorf("%s: listed again: %v", c.dir, got)
		}
	}
}

// TestRandomReadsMoveLittle fails when a hundredth of a large file, read at random,
// moves more than twice itself.
func TestRandomReadsMoveLittle(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"small": 1})
	const size = 10 << 30
	if err := os.Truncate(filepath.Join(e.dir, "small"), size); err != nil { // with holes
		t.Fatal(err)
	}
	m := mountAt(t, e.URL, nil)
	f, err := os.Open(m.path("runs", e.run, "small"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := rand.New(rand.NewPCG(1, 1))
	buf := make([]byte, 1<<20)
	var n int64
	for n < size/1000 { // a tenth of the hundredth: the ratio is the same
		if _, err := f.ReadAt(buf, r.Int64N(size-int64(len(buf)))); err != nil {
			t.Fatal(err)
		}
		n += int64(len(buf))
	}
	settled(e.Bytes)
	if got, _ := e.fetched(); got > 2*n {
		t.Errorf("%d bytes read moved %d", n, got)
	}
}

// TestSmallFilesComeTogether fails when the small files of a directory are not
// fetched each once, or when a program that reads them one after another waits
// for each.
func TestSmallFilesComeTogether(t *testing.T) {
	const n, far = 200, 20 * time.Millisecond
	files := map[string]int{}
	for i := range n {
		files[fmt.Sprintf("d/%03d", i)] = 1000 + i
	}
	e := newEngineFiles(t, files)
	e.Break(func(_ http.ResponseWriter, r *http.Request) bool {
		if isArtifact(r) {
			time.Sleep(far)
		}
		return false
	}, nil)
	m := mountAt(t, e.URL, nil)
	if _, err := os.ReadDir(m.path("runs", e.run, "d")); err != nil {
		t.Fatal(err)
	}
	e.Reset()
	begin := time.Now()
	for i := range n {
		name := fmt.Sprintf("d/%03d", i)
		got, err := os.ReadFile(m.path("runs", e.run, name))
		want, werr := os.ReadFile(filepath.Join(e.dir, name))
		if err != nil || werr != nil || !bytes.Equal(got, want) {
			t.Fatal(name, err, werr)
		}
	}
	took := time.Since(begin)
	if bytes, asked := e.fetched(); asked != n {
		t.Errorf("%d requests (%d bytes) for %d files", asked, bytes, n)
	}
	if took > n*far/2 {
		t.Errorf("%v for %d files that are %v away", took, n, far)
	}
	t.Logf("%v", took)
}
