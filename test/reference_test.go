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

// reference has processes do a job, the i-th of them on the i-th of mounts, and
// fails the test for what is wrong: j names neither mount nor process. It gives
// what they found, together. Where that is not enough, as on a slow machine, they
// go on.
func reference(t *testing.T, j job, mounts []string, processes int, enough func(found) bool) found {
	t.Helper()
	all := found{Errors: map[string]int{}}
	for round := 0; round == 0 || round < 7 && enough != nil && !enough(all) && !t.Failed(); round++ {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range processes {
			mine := j
			mine.Mount, mine.Seed = mounts[i%len(mounts)], j.Seed+uint64(round)<<16+uint64(i)<<32
			wg.Go(func() {
				one, err := mine.done()
				mu.Lock()
				defer mu.Unlock()
				if err != nil || one.Wrong != "" {
					t.Errorf("process %d: %s %v", i, one.Wrong, err)
				}
				all.add(one)
			})
		}
		wg.Wait()
		j.For = min(j.For, 6*time.Second)
	}
	return all
}

// done has a process of its own do the job.
func (j job) done() (f found, err error) {
	spec, err := json.Marshal(j)
	if err != nil {
		return f, err
	}
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), asWorker+"="+string(spec))
	var errs bytes.Buffer
	c.Stderr = &errs
	kill := time.AfterFunc(j.For+2*time.Minute, func() { c.Process.Kill() })
	defer kill.Stop()
	out, err := c.Output()
	if err == nil {
		err = json.Unmarshal(out, &f)
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, tail(errs.String()))
	}
	return f, err
}

// chaotic is an origin that is broken at will.
type chaotic struct {
	*bytesOf
	env     []string     // of a mount
	over    *fault.Chaos // of TLS; nil: none
	proxies []*count.Origin
}

// newChaotic makes a finished run with a random tree of artifacts, on a kind of
// server, which may be one "by TLS".
func newChaotic(t *testing.T, kind string, seed uint64) *chaotic {
	t.Helper()
	kind, byTLS := strings.CutSuffix(kind, " by TLS")
	c := &chaotic{bytesOf: newBytesOf(t, kind)}
	grow(t, c.truth, seed, 48<<20)
	filepath.WalkDir(c.truth, func(p string, e fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(c.truth, p); err == nil && !e.IsDir() {
			c.put(rel, p)
		}
		return err
	})
	c.proxies = []*count.Origin{c.counted}
	if c.uri != c.counted.URL { // the bytes come from another host
		p := proxyTo(t, c.uri)
		c.uri, c.proxies = p.URL, append(c.proxies, p)
	}
	if byTLS {
		c.over = fault.NewChaos(seed, c.isBytes)
		address, ca, stop, err := fault.OverTLS(c.counted, c.over)
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
var impatient = []string{"MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR=0.02", "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER=0", "MLFLOW_HTTP_REQUEST_MAX_RETRIES=2", "MLFLOW_HTTP_REQUEST_TIMEOUT=3"}

// referenceRows are the origins and the ways to cache that TestReferenceModel holds; the
// last ones in a soak alone.
var referenceRows = []struct {
	origin, way string
	soak        bool
}{
	{"server 3.17", "disk", false}, {"server 3.17", "two daemons", false}, {"server 2.22", "memory", false}, {"S3", "two daemons", false},
	{presigned, "disk", false}, {"server 3.17 by TLS", "disk", false},
	{"server 3.17", "memory", true}, {"server 2.22", "disk", true}, {"server 2.22", "two daemons", true}, {"S3", "disk", true}, {"S3", "memory", true},
	{presigned, "memory", true}, {"server 3.17 by TLS", "memory", true}, {"server 1.30", "disk", true}, {"server 1.30", "memory", true},
}

// TestReferenceModel fails when a mount gives a wrong byte, a short read, a name
// too many or one too few, whatever its origin does; when an operation takes
// longer than the patience of a mount allows; or when a mount is not well again
// after its origin is.
func TestReferenceModel(t *testing.T) {
	t.Parallel()
	flags := map[string][]string{
		"disk": {"--cache-size", "24MiB"}, "memory": {"--cache-dir", "none", "--memory-limit", "64MiB"}, "two daemons": {"--cache-size", "16MiB"},
	}
	for i, row := range referenceRows {
		if row.soak && soak == 0 {
			continue
		}
		t.Run(row.origin+" "+row.way, func(t *testing.T) {
			if soak == 0 {
				t.Parallel()
			}
			holdReference(t, row.origin, row.way, flags[row.way], seedOf(t)+uint64(i), length(6*time.Second, 0.45/float64(len(referenceRows))))
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
		mounted = append(mounted, m.path(o.run))
		waitFor(t, "the run", long, func() bool { _, err := os.Stat(m.path(o.run)); return err == nil })
	}
	var machines []*fault.Chaos
	for i, p := range o.proxies {
		machines = append(machines, unleash(t, p, seed+uint64(i), 0.4, o.isBytes))
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
	got := reference(t, job{Truth: o.truth, Seed: seed, For: limit}, mounted, 4, func(f found) bool { return met() >= leastFaults && f.Ops >= leastOps })
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
		t.Log(tail(m.log.String()))
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
