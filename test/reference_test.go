package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
	"github.com/mlflowfs/mlflowfs/test/fault"
)

// The reference model: what a mount shows is held against the known files by
// processes that do, at random, all that a program does with a read-only
// filesystem, while the origin is broken under it. An operation may fail with
// an error; it may not give a wrong byte, a short read, a name too many or one
// too few.

// asWorker is the variable that makes this test program one such process.
const asWorker = "MLFLOWFS_TEST_WORKER"

// job is what such a process is to do, as JSON in asWorker.
type job struct {
	Mount, Truth string // directories
	Seed         uint64
	Ops          int           // how many operations
	For          time.Duration // and how long, at most
	Replaced     bool          // the files are patchworks, and are replaced all the time
}

// found is what it says when it is done.
type found struct {
	Ops    int
	Errors map[string]int // by operation and errno
	Worst  time.Duration  // the longest operation
	Wrong  string
	Mixed  []string // reads of replaced files that were not of one version
}

func actAsWorker(spec string) {
	var j job
	if err := json.Unmarshal([]byte(spec), &j); err != nil {
		panic(err)
	}
	if j.Replaced {
		actOnReplaced(j)
		return
	}
	w := &worker{job: j, r: rand.New(rand.NewPCG(j.Seed, 2)), names: map[string][]string{}}
	out := found{Errors: map[string]int{}}
	if err := w.learn(); err != nil {
		out.Wrong = err.Error()
	}
	debug.SetPanicOnFault(true) // a map that can't be filled is a SIGBUS
	end := time.Now().Add(j.For)
	for out.Wrong == "" && out.Ops < j.Ops && time.Now().Before(end) {
		begin := time.Now()
		op, wrong, err := w.step()
		out.Ops++
		out.Worst = max(out.Worst, time.Since(begin))
		if wrong != "" {
			out.Wrong = fmt.Sprintf("operation %d: %s", out.Ops, wrong)
		}
		if err != nil {
			var no syscall.Errno
			errors.As(err, &no)
			out.Errors[op+" "+no.Error()]++
			if !slices.Contains([]syscall.Errno{syscall.EIO, syscall.ESTALE, syscall.EACCES, syscall.ENOENT}, no) || (no == syscall.ENOENT && op != "pread" && op != "map" && op != "whole") {
				out.Wrong = fmt.Sprintf("operation %d: %s: %v", out.Ops, op, err)
			}
		}
	}
	json.NewEncoder(os.Stdout).Encode(out)
}

// worker is such a process's mind.
type worker struct {
	job
	r     *rand.Rand
	dirs  []string
	files []string
	data  [][]byte            // of the files
	names map[string][]string // of a directory
	open  []opened
}

type opened struct {
	f    *os.File
	file int
}

// learn reads the truth.
func (w *worker) learn() error {
	return filepath.WalkDir(w.Truth, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(w.Truth, p)
		if err != nil {
			return err
		}
		if rel != "." {
			w.names[filepath.Dir(rel)] = append(w.names[filepath.Dir(rel)], e.Name())
		}
		if e.IsDir() {
			w.dirs = append(w.dirs, rel)
			return nil
		}
		b, err := os.ReadFile(p)
		w.files, w.data = append(w.files, rel), append(w.data, b)
		return err
	})
}

func (w *worker) at(rel string) string { return filepath.Join(w.Mount, rel) }

// span is a random piece of a file, that may reach beyond its end.
func (w *worker) span(size int) (off, n int) {
	n = []int{1, 100, 4096, 60_000, 131_072, 131_073, 1 << 20}[w.r.IntN(7)]
	switch w.r.IntN(4) {
	case 0:
		off = max(size-n/2, 0)
	case 1:
		off = 0
	default:
		off = w.r.IntN(size + 1)
	}
	return off, n
}

// step does one operation: what it was, what is wrong, and its error.
func (w *worker) step() (op, wrong string, err error) {
	k := w.r.IntN(len(w.files))
	file, want := w.files[k], w.data[k]
	switch n := w.r.IntN(100); {
	case n < 15:
		st, err := os.Lstat(w.at(file))
		if err == nil && (st.IsDir() || st.Size() != int64(len(want))) {
			wrong = fmt.Sprintf("%s has %d bytes, and not %d", file, st.Size(), len(want))
		}
		return "stat", wrong, err
	case n < 20:
		dir := w.dirs[w.r.IntN(len(w.dirs))]
		st, err := os.Lstat(w.at(dir))
		if err == nil && !st.IsDir() {
			wrong = dir + " is no directory"
		}
		return "stat", wrong, err
	case n < 25:
		name := file + []string{"x", ".", "/x", "~"}[w.r.IntN(4)]
		_, err := os.Lstat(w.at(name))
		if err == nil {
			wrong = name + " is there"
		}
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) {
			err = nil
		}
		return "absent", wrong, err
	case n < 35:
		dir := w.dirs[w.r.IntN(len(w.dirs))]
		entries, err := os.ReadDir(w.at(dir))
		if err == nil {
			var got []string
			for _, e := range entries {
				got = append(got, e.Name())
			}
			if !slices.Equal(got, w.names[dir]) {
				wrong = fmt.Sprintf("%s holds %q, and not %q", dir, got, w.names[dir])
			}
		}
		return "list", wrong, err
	case n < 50:
		f, err := os.Open(w.at(file))
		if err == nil {
			w.open = append(w.open, opened{f, k})
		}
		if len(w.open) > 12 {
			w.shut(0)
		}
		return "open", "", err
	case n < 55 && len(w.open) > 0:
		w.shut(w.r.IntN(len(w.open)))
		return "close", "", nil
	case n < 85 && len(w.open) > 0:
		return w.pread(w.open[w.r.IntN(len(w.open))])
	case n < 95 && len(w.open) > 0:
		return w.mapped(w.open[w.r.IntN(len(w.open))])
	}
	f, err := os.Open(w.at(file))
	if err != nil {
		return "open", "", err
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if !bytes.HasPrefix(want, got) || (err == nil && len(got) != len(want)) {
		wrong = fmt.Sprintf("%s reads as %d of %d bytes%s", file, len(got), len(want), differs(want, got))
	}
	return "whole", wrong, err
}

// differs says where bytes are not those that are wanted.
func differs(want, got []byte) string {
	n := min(len(want), len(got))
	for i := range n {
		if want[i] != got[i] {
			last := n - 1
			for want[last] == got[last] {
				last--
			}
			return fmt.Sprintf(", of which those from %d to %d differ: %x… and not %x…", i, last, got[i:min(i+16, n)], want[i:min(i+16, n)])
		}
	}
	return ""
}

func (w *worker) shut(i int) {
	w.open[i].f.Close()
	w.open = slices.Delete(w.open, i, i+1)
}

func (w *worker) pread(o opened) (op, wrong string, err error) {
	want := w.data[o.file]
	off, n := w.span(len(want))
	buf := make([]byte, n)
	want = want[off:min(off+n, len(want))]
	for got := 0; ; {
		// Where a page can't be had, the kernel gives what is before it, and its
		// error to who goes on there.
		some, err := syscall.Pread(int(o.f.Fd()), buf[got:], int64(off+got))
		if err != nil {
			return "pread", "", err
		}
		if !bytes.Equal(buf[got:got+some], want[got:min(got+some, len(want))]) {
			return "pread", fmt.Sprintf("%s: %d bytes from %d%s", w.files[o.file], some, off+got, differs(want[got:], buf[got:got+some])), nil
		}
		got += some
		if some == 0 && got < len(want) {
			return "pread", fmt.Sprintf("%s ends at %d", w.files[o.file], off+got), nil
		}
		if some == 0 || got == n {
			return "pread", "", nil
		}
	}
}

func (w *worker) mapped(o opened) (op, wrong string, err error) {
	want := w.data[o.file]
	if len(want) == 0 {
		return "map", "", nil
	}
	m, err := syscall.Mmap(int(o.f.Fd()), 0, len(want), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return "map", "", err
	}
	defer syscall.Munmap(m)
	defer func() {
		if e := recover(); e != nil { // the page could not be had
			op, wrong, err = "map", "", syscall.EIO
		}
	}()
	off, n := w.span(len(want))
	end := min(off+n, len(want))
	if !bytes.Equal(m[off:end], want[off:end]) {
		wrong = fmt.Sprintf("%s: the map between %d and %d%s", w.files[o.file], off, end, differs(want[off:end], m[off:end]))
	}
	return "map", wrong, nil
}

// grow makes a random tree of files below dir, of about total bytes.
func grow(t *testing.T, dir string, seed uint64, total int) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 3))
	noise := rand.NewChaCha8([32]byte{byte(seed)})
	sizes := []int{0, 1, 1000, 4096, 131071, 131072, 131073, 300_000, 1 << 20, 3<<20 + 17}
	dirs := []string{dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for n := 0; total > 0; n++ {
		parent := dirs[r.IntN(len(dirs))]
		if r.IntN(6) == 0 {
			d := filepath.Join(parent, fmt.Sprintf("d%d", n))
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
			dirs = append(dirs, d)
			parent = d // an empty directory is none in most stores
		}
		size := sizes[r.IntN(len(sizes))]
		if n == 0 {
			size = 9<<20 + 1
		}
		b := make([]byte, size)
		noise.Read(b)
		name := fmt.Sprintf([]string{"f%d", "a b %d.txt", "é %d", "%d.safetensors"}[r.IntN(4)], n)
		if err := os.WriteFile(filepath.Join(parent, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
		total -= size + 1000
	}
}

// reference has processes hold mounts against truth, and fails the test with
// the seed for what is wrong. It gives what they found, together.
func reference(t *testing.T, mounts []string, truth string, seed uint64, processes, ops int, limit time.Duration, replaced bool) found {
	t.Helper()
	var mu sync.Mutex
	all := found{Errors: map[string]int{}}
	var wg sync.WaitGroup
	for i := range processes {
		wg.Go(func() {
			spec, _ := json.Marshal(job{mounts[i%len(mounts)], truth, seed + uint64(i)<<32, ops / processes, limit, replaced})
			c := exec.Command(os.Args[0])
			c.Env = append(os.Environ(), asWorker+"="+string(spec))
			var errs bytes.Buffer
			c.Stderr = &errs
			kill := time.AfterFunc(limit+2*time.Minute, func() { c.Process.Kill() })
			defer kill.Stop()
			out, err := c.Output()
			var one found
			if err == nil {
				err = json.Unmarshal(out, &one)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil || one.Wrong != "" {
				t.Errorf("seed %d, process %d: %s %v\n%s", seed, i, one.Wrong, err, tail(errs.String()))
			}
			all.Ops += one.Ops
			all.Mixed = append(all.Mixed, one.Mixed...)
			all.Worst = max(all.Worst, one.Worst)
			for k, n := range one.Errors {
				all.Errors[k] += n
			}
		})
	}
	wg.Wait()
	return all
}

// chaotic is an origin that is broken at will.
type chaotic struct {
	uri       string
	env       []string // of a mount
	run       string
	over      *fault.Chaos // of TLS; nil: none
	truth     string
	proxies   []*count.Origin
	artifacts func(*http.Request) bool
}

// newChaotic makes a finished run with a random tree of artifacts. The kinds are
// MLflow's releases with artifacts on their own disk, "S3" (presigned, or
// through the server), "presigned only", and "3.17 by TLS".
func newChaotic(t *testing.T, kind string, seed uint64) *chaotic {
	t.Helper()
	c := &chaotic{artifacts: isArtifact}
	const total = 48 << 20
	if kind == "S3" || kind == presigned {
		r := newS3Run(t)
		c.run, c.truth = r.id, t.TempDir()
		grow(t, c.truth, seed, total)
		filepath.WalkDir(c.truth, func(p string, e fs.DirEntry, err error) error {
			if rel, _ := filepath.Rel(c.truth, p); err == nil && !e.IsDir() {
				r.put(t, rel, p)
			}
			return err
		})
		behind := r.server.url()
		if kind == presigned {
			behind = presignedOnly(t, behind).URL
		}
		p := proxyTo(t, behind)
		c.uri, c.proxies = p.URL, []*count.Origin{p, r.store}
		c.artifacts = func(r *http.Request) bool { return isArtifact(r) || strings.HasPrefix(r.URL.Path, "/"+bucket+"/") }
		return c
	}
	version, byTLS := strings.CutSuffix(kind, " by TLS")
	s := shared.get(t, "server "+version)
	c.run = finished(t, s.uri, newRun(t, s.uri, "0"))
	c.truth = filepath.Join(s.server.artifacts(), "0", c.run, "artifacts")
	grow(t, c.truth, seed, total)
	p := proxyTo(t, s.uri)
	c.uri, c.proxies = p.URL, []*count.Origin{p}
	if byTLS {
		c.over = fault.NewChaos(seed, isArtifact)
		address, ca, stop, err := fault.OverTLS(p, c.over)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
		cert := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(cert, ca, 0o644); err != nil {
			t.Fatal(err)
		}
		c.uri, c.env = address, []string{"MLFLOW_TRACKING_SERVER_CERT_PATH=" + cert}
	}
	return c
}

// unleash begins to break a share of what p sends, until the test's end.
func unleash(t *testing.T, p *count.Origin, seed uint64, share float64, artifacts func(*http.Request) bool) *fault.Chaos {
	t.Helper()
	c := fault.Unleash(p, seed, share, artifacts)
	t.Cleanup(c.Stop)
	return c
}

// impatient makes a mount give up early, so that many faults can come.
var impatient = []string{"MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR=0.02", "MLFLOW_HTTP_REQUEST_MAX_RETRIES=2", "MLFLOW_HTTP_REQUEST_TIMEOUT=3"}

// referenceRows are the origins and the ways to cache that TestReferenceModel holds; the
// last ones in a soak alone.
var referenceRows = []struct {
	origin, way string
	soak        bool
}{
	{"3.17", "disk", false}, {"3.17", "two daemons", false}, {"2.22", "memory", false}, {"S3", "two daemons", false},
	{presigned, "disk", false}, {"3.17 by TLS", "disk", false},
	{"3.17", "memory", true}, {"2.22", "disk", true}, {"2.22", "two daemons", true}, {"S3", "disk", true}, {"S3", "memory", true},
	{presigned, "memory", true}, {"3.17 by TLS", "memory", true}, {"1.30", "disk", true}, {"1.30", "memory", true},
}

// TestReferenceModel fails when a mount gives a wrong byte, a short read, a name
// too many or one too few, whatever its origin does; when an operation takes
// longer than the patience of a mount allows; or when a mount is not well again
// after its origin is.
func TestReferenceModel(t *testing.T) {
	t.Parallel()
	first := seedOf(t)
	flags := map[string][]string{
		"disk": {"--cache-size", "24MiB"}, "memory": {"--cache-dir", "none", "--memory-limit", "64MiB"}, "two daemons": {"--cache-size", "16MiB"},
	}
	for i, row := range referenceRows {
		if row.soak && soak == 0 {
			continue
		}
		seed := first + uint64(i)
		t.Run(fmt.Sprintf("%s %s seed %d", row.origin, row.way, seed), func(t *testing.T) {
			if soak == 0 {
				t.Parallel()
			}
			holdReference(t, row.origin, row.way, flags[row.way], seed, length(6*time.Second, 0.4/float64(len(referenceRows))))
		})
	}
}

// holdReference has four processes hold mounts of a broken origin against the
// known files for a while.
func holdReference(t *testing.T, origin, way string, flags []string, seed uint64, limit time.Duration) {
	o := newChaotic(t, origin, seed)
	env := slices.Concat(o.env, impatient)
	mounts := 1
	if way == "two daemons" {
		mounts = 2
		env = append(env, "MLFLOWFS_CACHE_DIR="+t.TempDir())
	}
	var mounted []string
	var m *mount
	for range mounts {
		m = mountRaced(t, o.uri, env, append([]string{"--metadata-ttl", "1s"}, flags...)...)
		mounted = append(mounted, m.path("runs", o.run))
		waitFor(t, "the run", 10*time.Second, func() bool { _, err := os.Stat(m.path("runs", o.run)); return err == nil })
	}
	var machines []*fault.Chaos
	for i, p := range o.proxies {
		machines = append(machines, unleash(t, p, seed+uint64(i), 0.4, o.artifacts))
	}
	if o.over != nil {
		o.over.Begin(0.5)
		machines = append(machines, o.over)
	}
	got := reference(t, mounted, o.truth, seed, 4, 1_000_000_000, limit, false)
	broken := 0
	for _, c := range machines {
		broken += c.Met.Of()
		t.Log("faults:", &c.Met)
		c.Begin(0)
	}
	figure(t, "%d operations under %d faults, the longest %v, errors %v", got.Ops, broken, got.Worst.Round(time.Millisecond), got.Errors)
	if broken < 10 || got.Ops < 250 {
		t.Errorf("only %d faults in %d operations", broken, got.Ops)
	}
	if got.Worst > 30*time.Second {
		t.Errorf("an operation took %v", got.Worst)
	}
	if t.Failed() {
		t.Logf("it ran with seed %d\n%s", seed, tail(m.log.String()))
	}
	// When all is well again, all of it is right.
	waitFor(t, "the mount does not recover", 30*time.Second, func() bool {
		for _, dir := range mounted {
			if _, err := output("diff", "-r", "--no-dereference", o.truth, dir); err != nil {
				return false
			}
		}
		return true
	})
}
