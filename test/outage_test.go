package test

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
	"github.com/mlflowfs/mlflowfs/test/fault"
)

// TestOutageShowsWhatIsKnown fails when what was listed is not shown, or what was
// read does not read bit for bit, while the server is down and the daemon is
// started again; when the server's return is not seen within 5 s; or when a
// mount with --offline sends a request.
func TestOutageShowsWhatIsKnown(t *testing.T) {
	s := shared.get(t, "server 3.17").server
	p := proxyTo(t, s.url())
	run := finished(t, s.url(), newRun(t, s.url(), "0"))
	dir := filepath.Join(s.artifacts(), "0", run, "artifacts")
	grow(t, dir, 1, 4<<20)
	model := "known " + run
	name := func(path string, in map[string]any) { api(t, s.url(), "/api/2.0/mlflow/"+path, in) }
	name("registered-models/create", map[string]any{"name": model})
	name("model-versions/create", map[string]any{"name": model, "source": "runs:/" + run, "run_id": run})
	name("registered-models/alias", map[string]any{"name": model, "alias": "champion", "version": "1"})
	cached := t.TempDir()
	env := append([]string{"MLFLOWFS_CACHE_DIR=" + cached, "MLFLOW_TRACKING_TOKEN=s3cret-token"}, fast...)
	same := func(t *testing.T, m *mount) {
		t.Helper()
		for _, at := range []string{m.path("runs", run), m.path("models", model+"@champion")} {
			// The version's own registered_model_meta is ours to add.
			if out, err := output("diff", "-r", "--exclude=registered_model_meta", dir, at); err != nil {
				t.Errorf("%s: %s, %v", at, out, err)
			}
		}
		for _, list := range []string{"runs", "experiments", "experiments/Default", "models"} {
			if out, err := output("ls", m.path(list)); err != nil || len(out) < 2 {
				t.Errorf("%s lists %q, %v", list, out, err)
			}
		}
	}
	m := mountAt(t, p.URL, env)
	same(t, m)
	settled(func() int64 { return filesBelow(cached) }) // the last answers reach the disk
	m.stop()
	p.Break(down, nil)

	begin := time.Now()
	const ttl = 300 * time.Millisecond
	m = mountAt(t, p.URL, env, "--metadata-ttl", ttl.String())
	if d := time.Since(begin); d > 3*time.Second {
		t.Errorf("a mount without its server took %v", d)
	}
	for range 2 { // the second time all lifetimes are over
		begin = time.Now()
		same(t, m)
		if d := time.Since(begin); d > 10*time.Second {
			t.Errorf("what is known took %v to show without the server", d)
		}
		time.Sleep(7 * ttl)
	}
	if n := strings.Count(m.log.String(), "what it said last is shown"); n == 0 || n > 2 {
		t.Errorf("that the server is gone is said %d times:\n%s", n, m.log)
	}
	p.Break(nil, nil)
	second := newRun(t, s.url(), "0")
	waitFor(t, "what is new is not seen when the server is back", 5*time.Second, func() bool {
		out, err := output("ls", m.path("runs"))
		return err == nil && strings.Contains(string(out), second)
	})
	m.stop()

	p.Reset()
	m = mountAt(t, p.URL, env, "--offline")
	same(t, m)
	if requests, _ := p.Reset(); len(requests) > 0 {
		t.Errorf("offline, and asked: %q", requests)
	}
	begin = time.Now()
	if _, err := output("ls", m.path("models", "other")); err == nil || time.Since(begin) > 3*time.Second {
		t.Errorf("what is not known, offline: %v after %v", err, time.Since(begin))
	}
	m.stop()

	p.Break(down, nil)
	m = mountAt(t, p.URL, env, "--stale-if-error", "1ms")
	if out, err := output("ls", m.path("runs")); err == nil {
		t.Errorf("too old, and shown: %s", out)
	}
	m.stop()
	if out, err := output("grep", "-rlE", "s3cret", cached); err == nil {
		t.Errorf("a credential is in the cache: %s", out)
	}
}

// down has a server end each connection without an answer, as where none listens.
func down(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }

// TestBlackHoleHangsNothing fails when, with the origin in a black hole, what is
// here is not shown within a second; when what is not does not end in EIO once
// the patience is over; or when a program or the unmount hangs.
func TestBlackHoleHangsNothing(t *testing.T) {
	const patience, ttl = 3 * time.Second, 300 * time.Millisecond
	e := newEngineFiles(t, map[string]int{"warm": 3 << 20, "cold": 20 << 20, "colder": 20 << 20})
	m := mountAt(t, e.URL, nil, "--timeout", patience.String(), "--metadata-ttl", ttl.String(), "--fill-limit", "0")
	e.same(t, m, "warm")
	if _, err := output("ls", "-lR", m.path("runs", e.run), m.path("experiments")); err != nil {
		t.Fatal(err)
	}
	hole := make(chan struct{})
	var once sync.Once
	open := func() { once.Do(func() { close(hole) }) }
	defer open()
	e.Break(func(w http.ResponseWriter, r *http.Request) bool {
		select {
		case <-hole:
			return false
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}, nil)
	within := func(what string, limit time.Duration, f func() error) {
		t.Helper()
		begin := time.Now()
		err := f()
		if d := time.Since(begin); d > limit || err != nil {
			t.Errorf("%s: %v, after %v", what, err, d)
		}
	}
	run := func(args ...string) func() error {
		return func() error {
			_, err := output(args[0], args[1:]...)
			return err
		}
	}
	for range 2 { // the second time all lifetimes are over
		within("a cached read", 1200*time.Millisecond, run("cat", m.path("runs", e.run, "warm")))
		within("a listing", 1200*time.Millisecond, run("ls", "-l", m.path("runs", e.run)))
		within("another listing", 1200*time.Millisecond, run("ls", m.path("experiments")))
		within("df", time.Second, run("df", m.dir))
		within("stat of the mount point", time.Second, run("stat", m.dir))
		time.Sleep(7 * ttl)
	}

	before := m.cache()
	begin := time.Now()
	_, err := read(m.path("runs", e.run, "cold"))
	if d := time.Since(begin); err == nil || !strings.Contains(err.Error(), "Input/output error") || d > patience+3*time.Second {
		t.Errorf("an uncached read: %v after %v", err, d)
	}
	if did := m.cache().Since(before); did.Misses == 0 {
		t.Errorf("it waited for nothing: %+v", did)
	}
	e.Reset()
	c := exec.Command("cat", m.path("runs", e.run, "colder"))
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the reader does not wait", long, func() bool { return len(e.Headers()) > 0 })
	begin = time.Now()
	c.Process.Kill()
	c.Wait()
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("a killed reader went after %v", d)
	}
	if left := inState(t, 'D', m.dir); left != "" {
		t.Errorf("in state D: %s", left)
	}

	// A body that falls silent in its middle ends the read, too.
	open()
	waitFor(t, "the mount does not recover", 10*time.Second, func() bool { _, err := read(m.path("runs", e.run, "colder")); return err == nil })
	e.Break(nil, func(r *http.Response) error {
		if isArtifact(r.Request) {
			fault.Stall(r, 100_000, 12*time.Second)
		}
		return nil
	})
	begin = time.Now()
	_, err = read(m.path("runs", e.run, "cold"))
	if d := time.Since(begin); err == nil || d > patience+3*time.Second {
		t.Errorf("a read of a body that falls silent: %v after %v", err, d)
	}
	within("unmount", time.Second, run("umount", m.dir))
	<-m.ended
}

// filesBelow is how many files there are below a directory.
func filesBelow(dir string) (n int64) {
	filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			n++
		}
		return nil
	})
	return n
}

// inState names processes in a state whose command line holds a text.
func inState(t *testing.T, state byte, text string) (found string) {
	t.Helper()
	for _, p := range processes() {
		if strings.Contains(p.args, text) && strings.Contains(p.file("stat"), fmt.Sprintf(") %c ", state)) {
			found += p.args + "; "
		}
	}
	return found
}

// TestAliasMovesUnderReaders fails when an open file does not keep its version
// while an alias moves under 16 readers, when a directory that was entered mixes
// two, when a move is seen later than the alias's lifetime and a second, or when
// it costs more than one request for each lifetime.
func TestAliasMovesUnderReaders(t *testing.T) {
	const ttl = 2 * time.Second
	s := shared.get(t, "server 3.17")
	p := proxyTo(t, s.uri)
	const versions = 4
	name := fmt.Sprintf("moving-%d", time.Now().UnixNano())
	post := func(path string, in map[string]any) { api(t, s.uri, "/api/2.0/mlflow/"+path, in) }
	post("registered-models/create", map[string]any{"name": name})
	for v := 1; v <= versions; v++ {
		run := finished(t, s.uri, newRun(t, s.uri, "0"))
		dir := filepath.Join(s.server.artifacts(), "0", run, "artifacts")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"MLmodel", "a", "b"} {
			if err := os.WriteFile(filepath.Join(dir, f), []byte(strings.Repeat(fmt.Sprint(v), 5000*v)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		post("model-versions/create", map[string]any{"name": name, "source": "runs:/" + run, "run_id": run})
	}
	move := func(v int) {
		post("registered-models/alias", map[string]any{"name": name, "alias": "champion", "version": fmt.Sprint(v)})
	}
	move(1)
	m := mountRaced(t, p.URL, nil, "--metadata-ttl", ttl.String())
	alias := m.path("models", name+"@champion")
	p.Reset()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var reads atomic.Int64
	begin := time.Now()
	for range 16 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				out, err := output("bash", "-c", `cd -P "$1" && exec 3<a && v=$(head -c1 MLmodel) && sleep 0.3 && for f in a b MLmodel; do head -c1 $f; done && head -c1 <&3 && basename "$(/bin/pwd -P)"`, "bash", alias)
				reads.Add(1)
				w := strings.TrimSpace(string(out))
				if err != nil || len(w) != 5 || strings.Trim(w, w[:1]) != "" {
					t.Errorf("a directory that was entered holds %q, %v", w, err)
					return
				}
			}
		})
	}
	moves := 100
	if soak > 0 {
		moves = 1000
	}
	for i := range moves {
		move(i%versions + 1)
		if i%25 == 0 { // and then it stays for a while
			at := time.Now()
			want := fmt.Sprint(i%versions + 1)
			waitFor(t, "a move is not seen", ttl+1500*time.Millisecond, func() bool { // half a second for the machine
				got, _ := os.Readlink(alias)
				return strings.HasSuffix(got, "/"+want) || got == want
			})
			t.Logf("seen after %v", time.Since(at).Round(10*time.Millisecond))
		}
	}
	lifetimes := int(time.Since(begin)/ttl) + 2
	close(stop)
	wg.Wait()
	requests, _ := p.Reset()
	if n := count.Of(requests, "registered-models/get?"); n > lifetimes {
		t.Errorf("%d requests for one alias in %d lifetimes", n, lifetimes)
	}
	figure(t, "%d moves under %d reads", moves, reads.Load())
}

// TestRotatedTokenIsTaken fails when a program sees anything of a token that is
// rotated under it, from its file when it changes or when the server refuses the
// old one; or when a refused one is not EACCES.
func TestRotatedTokenIsTaken(t *testing.T) {
	t.Parallel()
	const size = 48 << 20
	e := newEngineFiles(t, map[string]int{"big": size, "other": 1 << 20})
	file := filepath.Join(t.TempDir(), "token")
	var valid, coming atomic.Value // both are taken: who rotates is not as fast as who asks
	valid.Store("")
	rotate := func(n int) {
		token := fmt.Sprintf("s3cret-token-%d", n)
		if err := os.WriteFile(file+".new", []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		coming.Store("Bearer " + token)
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
		valid.Store("Bearer " + token)
	}
	rotate(0)
	var refused atomic.Int64
	e.Break(func(w http.ResponseWriter, r *http.Request) bool {
		if by := r.Header.Get("Authorization"); by != valid.Load() && by != coming.Load() {
			refused.Add(1)
			w.WriteHeader(401)
			return true
		}
		return false
	}, func(r *http.Response) error {
		if isArtifact(r.Request) {
			fault.Pace(r, 13<<20)
		}
		return nil
	})
	m := mountRaced(t, e.URL, fast, "--token-file", file, "--log-level", "debug", "--parallelism", "2", "--metadata-ttl", "300ms")
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.same(t, m, "big")
	}()
	for n := 1; ; n++ {
		select {
		case <-done:
			e.same(t, m, "other")
			if n < 5 || refused.Load() == 0 {
				t.Errorf("%d rotations, %d refusals: nothing was tested", n, refused.Load())
			}
			// A token that is no more: EACCES, and a word about it.
			valid.Store("Bearer none")
			coming.Store("Bearer none")
			waitFor(t, "a refused token is not EACCES", 20*time.Second, func() bool {
				_, err := output("ls", m.path("runs", e.run))
				return err != nil && strings.Contains(err.Error(), "Permission denied")
			})
			if strings.Contains(m.log.String(), "s3cret") {
				t.Errorf("a token is in the log:\n%s", m.log)
			}
			return
		case <-time.After(150 * time.Millisecond):
			rotate(n)
		}
	}
}
