package test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// TestColdReadTakesFewWrites fails when what is fetched is written to the cache in
// small pieces: 1500 system calls for a GiB are enough.
func TestColdReadTakesFewWrites(t *testing.T) {
	t.Parallel()
	const size, most = 1 << 30, 1500
	e := newEngineFiles(t, map[string]int{"many/00000": 1})
	p := &pretended{dir: "many", files: 1, size: size}
	e.Break(p.answer, nil)
	m := mountAt(t, e.URL, nil)
	stop, err := count.Syscalls(m.daemon())
	if err != nil {
		t.Fatal(err)
	}
	out, err := output("sh", "-c", `cat "$1" | wc -c`, "sh", m.path("runs", e.run, "many", p.name(0)))
	if err != nil || string(out) != fmt.Sprintln(size) {
		t.Errorf("%s, %v", out, err)
	}
	settled(func() int64 { return usedBy(t, m) })
	calls, err := stop()
	if err != nil {
		t.Fatal(err)
	}
	writes := calls["pwrite64"] + calls["pwritev"] + calls["pwritev2"]
	figure(t, "%d MiB: %d pwritev, %d pwrite64", size>>20, calls["pwritev"], calls["pwrite64"])
	if writes > most || writes == 0 {
		t.Errorf("%d MiB were written by %d calls: %v", size>>20, writes, calls)
	}
	if used := usedBy(t, m); used < size {
		t.Errorf("%d of %d bytes are kept:\n%s", used, size, m.log)
	}
}

// TestStreamsOfAMountKeepToTheLimit fails when more whole bodies come at once from an
// origin without ranges than requests may run; or when fewer do.
func TestStreamsOfAMountKeepToTheLimit(t *testing.T) {
	t.Parallel()
	const parallelism, files, size = 2, 60, 2 << 20
	const limit = 4 * parallelism
	e := newEngineFiles(t, map[string]int{"many/00000": 1})
	var now, most atomic.Int64
	p := &pretended{dir: "many", files: files, size: size, whole: true}
	p.pace = func(w http.ResponseWriter) io.Writer { return slowly{w} }
	e.Break(func(w http.ResponseWriter, r *http.Request) bool {
		if isArtifact(r) {
			for n := now.Add(1); ; {
				if was := most.Load(); n <= was || most.CompareAndSwap(was, n) {
					break
				}
			}
			defer now.Add(-1)
		}
		return p.answer(w, r)
	}, nil)
	m := mountAt(t, e.URL, nil, "--parallelism", fmt.Sprint(parallelism))
	var wg sync.WaitGroup
	for i := range files {
		wg.Go(func() {
			out, err := output("sh", "-c", `cat "$1" | wc -c`, "sh", m.path("runs", e.run, "many", p.name(i)))
			if err != nil || string(out) != fmt.Sprintln(size) {
				t.Errorf("%s, %v", out, err)
			}
		})
	}
	wg.Wait()
	figure(t, "%d bodies at once", most.Load())
	if most.Load() != limit {
		t.Errorf("%d bodies came at once, want %d", most.Load(), limit)
	}
	if did := m.cache(); did.OriginBytes != files*size {
		t.Errorf("%+v", did)
	}
}

// slowly writes in a tenth of a second what it is given.
type slowly struct{ io.Writer }

func (s slowly) Write(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return s.Writer.Write(p)
}

// TestManyClosedFilesTakeLittleMemory fails when a mount keeps more in memory of
// files that were opened and closed than its limit allows. (Four thousand of a GiB
// here, ten thousand in a soak.)
func TestManyClosedFilesTakeLittleMemory(t *testing.T) {
	files := 4000
	if soak > 0 {
		files = 10_000
	}
	e := newEngineFiles(t, map[string]int{"many/00000": 1})
	p := &pretended{dir: "many", files: files, size: 1 << 30}
	e.Break(p.answer, nil)
	m := mountAt(t, e.URL, nil, "--memory-limit", "64MiB")
	before, begin := m.vitals(), time.Now()
	out, err := output("python3", "-c", `
import os, sys, threading
dir, n = sys.argv[1], int(sys.argv[2])
def some(first):
    for i in range(first, n, 8):
        fd = os.open(f"{dir}/{i:05}", os.O_RDONLY)
        assert len(os.pread(fd, 131072, 0)) == 131072, i
        os.close(fd)
        done.append(i)
done = []
all = [threading.Thread(target=some, args=(k,)) for k in range(8)]
for t in all: t.start()
for t in all: t.join()
print(len(done))
`, m.path("runs", e.run, "many"), fmt.Sprint(files))
	if err != nil || string(out) != fmt.Sprintln(files) {
		t.Fatalf("%s, %v", out, err)
	}
	after := m.vitals()
	figure(t, "%d files in %v: %+v, and %+v before", files, time.Since(begin), after, before)
	if after.mib > 128 {
		t.Errorf("with %d files that were read, the daemon has %d MiB", files, after.mib)
	}
}

// TestSilentOriginSlowsNoOther fails when 500 readers of an origin that does not
// answer keep a reader of another one waiting, or fail one after the other.
func TestSilentOriginSlowsNoOther(t *testing.T) {
	const readers, patience, far, each = 500, time.Second, 150 * time.Millisecond, 3
	s := shared.get(t, "server 2.22").server // where a location may name a host
	silent, healthy := proxyTo(t, s.url()), proxyTo(t, s.url())
	dirOf := func(o *count.Origin, name string) string {
		t.Helper()
		name += o.Addr() // another one each time
		id := newExperiment(t, s.url(), name, "mlflow-artifacts://"+o.Addr()+"/"+name)
		t.Cleanup(func() { // nobody could read the silent one's
			api(t, s.url(), "/api/2.0/mlflow/experiments/delete", map[string]any{"experiment_id": id})
		})
		run := finished(t, s.url(), newRun(t, s.url(), id))
		dir := filepath.Join(s.artifacts(), name, run, "artifacts", "many")
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "00000"), nil, 0o644)); err != nil {
			t.Fatal(err)
		}
		return filepath.Join("runs", run, "many")
	}
	p := &pretended{dir: "many", files: readers, size: 1 << 20}
	var asked atomic.Int64
	silent.Break(func(w http.ResponseWriter, r *http.Request) bool {
		if isArtifact(r) {
			asked.Add(1)
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		}
		return p.answer(w, r)
	}, nil)
	healthy.Break((&pretended{dir: "many", files: readers, size: 1 << 20, before: func(*http.Request) { time.Sleep(far) }}).answer, nil)
	m := mountAt(t, s.url(), nil, "--timeout", patience.String(), "--fill-limit", "0")
	quiet, loud := m.path(dirOf(silent, "silent")), m.path(dirOf(healthy, "healthy"))
	fresh := 0
	first := func() time.Duration {
		var paths []string
		for range each {
			paths = append(paths, filepath.Join(loud, p.name(fresh)))
			fresh++
		}
		return readTimed(t, paths, false, 0, func() {}).first()
	}
	if out, err := output("ls", "-l", quiet, loud); err != nil || len(lines(out)) < 2*readers {
		t.Fatal(len(lines(out)), err)
	}
	alone := first()
	c := exec.Command("python3", "-c", `
import json, os, sys, threading, time
dir, n = sys.argv[1], int(sys.argv[2])
fds = [os.open(f"{dir}/{i:05}", os.O_RDONLY) for i in range(n)]
took, gave = [0] * n, []
go = threading.Barrier(n + 1)
def read(i):
    global begin
    go.wait()
    try:
        gave.append(os.pread(fds[i], 10, 0))
    except OSError:
        pass
    took[i] = time.perf_counter() - begin
all = [threading.Thread(target=read, args=(i,)) for i in range(n)]
for t in all: t.start()
print("ready", flush=True)
sys.stdin.readline()
begin = time.perf_counter()
go.wait()
for t in all: t.join()
print(json.dumps({"Last": max(took), "Gave": len(gave)}))
`, quiet, fmt.Sprint(readers))
	in, _ := c.StdinPipe()
	pipe, _ := c.StdoutPipe()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(pipe)
	if l, err := out.ReadString('\n'); err != nil || l != "ready\n" {
		t.Fatal(l, err)
	}
	io.WriteString(in, "go\n")
	waitFor(t, "the silent origin is not asked", long, func() bool { return asked.Load() > 0 })
	beside := first()
	var x struct {
		Last float64
		Gave int
	}
	b, _ := io.ReadAll(out)
	if err := errors.Join(c.Wait(), json.Unmarshal(b, &x)); err != nil {
		t.Fatal(err)
	}
	figure(t, "a first byte takes %v alone, and %v beside %d readers of a silent origin, the last of which failed after %v", alone, beside, readers, seconds(x.Last))
	if x.Gave > 0 {
		t.Errorf("%d readers got bytes", x.Gave)
	}
	if beside > alone*13/10 {
		t.Errorf("a first byte takes %v alone, and %v beside a silent origin's readers", alone, beside)
	}
	if seconds(x.Last) > patience*3/2 {
		t.Errorf("the last reader of a silent origin fails after %v", seconds(x.Last))
	}
}
