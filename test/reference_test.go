package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
	"github.com/mlflowfs/mlflowfs/test/fault"
)

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
			all.add(one)
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
			holdReference(t, row.origin, row.way, flags[row.way], seed, length(6*time.Second, 0.45/float64(len(referenceRows))))
		})
	}
}

// leastFaults and leastOps are how much a row of the reference model must have
// held: less has tested nothing.
const leastFaults, leastOps = 20, 500

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
	met := func() (n int) {
		for _, c := range machines {
			n += c.Met.Of()
		}
		return n
	}
	got := reference(t, mounted, o.truth, seed, 4, 1_000_000_000, limit, false)
	for more := 0; more < 6 && (met() < leastFaults || got.Ops < leastOps) && !t.Failed(); more++ { // a slow machine does less in that time
		got.add(reference(t, mounted, o.truth, seed+uint64(more)<<16, 4, 1_000_000_000, limit, false))
	}
	broken := met()
	for _, c := range machines {
		t.Log("faults:", &c.Met)
		c.Begin(0)
	}
	figure(t, "%d operations under %d faults, the longest %v, errors %v", got.Ops, broken, got.Worst.Round(time.Millisecond), got.Errors)
	if broken < leastFaults || got.Ops < leastOps {
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
