package test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// idleFiles are those of a run that is over, which are replaced all the same, by
// others of the same size, while nobody has them open: who mends a run does that.
// Two daemons on one cache show them.
type idleFiles struct {
	*engineFiles
	t       *testing.T
	r       *rand.Rand
	env     []string
	mounts  [2]*mount
	version uint32
	did     map[string]int
	mixed   []string // reads from one open file that were not of one version
}

const idleSize, idleNames = 2<<20 + 4096, 200

// put replaces a file, in one step.
func (x *idleFiles) put(name string) {
	x.t.Helper()
	x.version++
	aside := filepath.Join(x.dir, "..", "aside")
	if err := errors.Join(os.WriteFile(aside, patchwork(x.version, idleSize), 0o644), os.Rename(aside, filepath.Join(x.dir, name))); err != nil {
		x.t.Fatal(err)
	}
}

// read reads n bytes of a file from an offset on, from one open, piece by piece.
func (x *idleFiles) read(m *mount, name string, off, n int64) {
	x.t.Helper()
	f, err := os.Open(m.path("runs", x.run, name))
	if err != nil {
		x.t.Fatalf("%v\n%s", err, tail(m.log.String()))
	}
	defer f.Close()
	if x.r.IntN(4) == 0 { // the kernel lets go of a part of what it has
		unix.Fadvise(int(f.Fd()), x.r.Int64N(idleSize), idleSize/2, unix.FADV_DONTNEED)
	}
	version, wrong := uint32(0), ""
	for end := min(off+n, idleSize); off < end && wrong == ""; {
		buf := make([]byte, min(int64([]int{4096, 128 << 10, 1 << 20}[x.r.IntN(3)]), end-off))
		got, err := f.ReadAt(buf, off)
		if errors.Is(err, syscall.ESTALE) {
			x.did["stale"]++
			return
		}
		if err != nil && err != io.EOF || got < len(buf) {
			wrong = fmt.Sprintf("%d bytes of %d from %d, %v", got, len(buf), off, err)
			break
		}
		v, _, m := oneVersion(buf, off, version)
		if version = v; m != nil {
			wrong = m.What
		}
		off += int64(got)
	}
	x.did["reads"]++
	if wrong != "" {
		x.mixed = append(x.mixed, name+": "+wrong)
	} else if version == x.version {
		x.did["newest"]++
	}
}

func (x *idleFiles) command(args ...string) {
	x.t.Helper()
	x.did[args[0]]++
	if _, err := command(x.t, x.env, args...); err != nil {
		x.t.Fatalf("%v: %v", args, err)
	}
}

// round has a daemon read a part of a file, or all of it; then the file is replaced,
// while nobody has it open, and somebody meets that: the other daemon, who evicts
// it, who warms it, some of these, or nobody. Then both read it.
func (x *idleFiles) round(name string) {
	x.t.Helper()
	first, second := x.mounts[0], x.mounts[1]
	if x.r.IntN(2) == 0 {
		first, second = second, first
	}
	x.put(name)
	for range 1 + x.r.IntN(2) {
		x.read(first, name, x.r.Int64N(idleSize/4096)*4096, 4096+x.r.Int64N(idleSize/2))
	}
	if x.r.IntN(4) == 0 {
		x.read(second, name, 0, x.r.Int64N(idleSize))
	}
	first.atRest()
	second.atRest()
	x.put(name)
	x.did["replaced"]++
	uri := "runs:/" + x.run + "/" + name
	for range 1 + x.r.IntN(2) {
		switch x.r.IntN(5) {
		case 0:
			x.command("evict", uri)
		case 1:
			x.command("evict", uri)
			x.command("warm", "--quiet", uri)
		case 2, 3: // the first read may be stale
			x.read(second, name, 0, idleSize)
			x.read(second, name, 0, idleSize)
		}
	}
	for _, m := range []*mount{first, first, second} {
		x.read(m, name, 0, idleSize)
	}
}

// TestReplacedFilesDoNotMix fails when one open file of a run that is over reads as
// bytes of two versions: it was replaced, by another of the same size, while nobody
// had it open, and a second daemon on the cache met that, or somebody evicted it,
// or warmed it again, whether its server gives validators, and ranges, or neither.
// (Some seconds here; in a soak ten thousand reads.)
func TestReplacedFilesDoNotMix(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ bare, whole bool }{
		"validators and ranges": {},
		"no validators":         {bare: true},
		"no ranges":             {whole: true},
		"neither":               {bare: true, whole: true},
	} {
		t.Run(name, func(t *testing.T) {
			if soak == 0 {
				t.Parallel()
			}
			x := &idleFiles{engineFiles: newEngineFiles(t, map[string]int{"d/f": 1}), t: t, r: rand.New(rand.NewPCG(seedOf(t), 21)), did: map[string]int{}}
			x.Break(func(_ http.ResponseWriter, r *http.Request) bool {
				if c.whole {
					r.Header.Del("Range")
				}
				return false
			}, func(r *http.Response) error {
				if c.bare && isArtifact(r.Request) {
					r.Header.Del("ETag")
					r.Header.Del("Last-Modified")
				}
				return nil
			})
			for i := range idleNames {
				p := filepath.Join(x.dir, fmt.Sprint("f", i))
				if err := errors.Join(os.WriteFile(p, nil, 0o644), os.Truncate(p, idleSize)); err != nil { // a hole
					t.Fatal(err)
				}
			}
			x.env = []string{"MLFLOWFS_CACHE_DIR=" + t.TempDir(), "MLFLOW_TRACKING_URI=" + x.URL}
			for i, flags := range [][]string{{"--fill-limit", "0"}, nil} {
				x.mounts[i] = mountAt(t, x.URL, x.env, append(flags, "--metadata-ttl", "1s", "--memory-limit", "64MiB")...)
			}
			reads := 60
			if soak > 0 {
				reads = 2500
			}
			end := time.Now().Add(length(3*time.Second, 0.02))
			for i := 0; time.Now().Before(end) || x.did["reads"] < reads; i++ {
				x.round(fmt.Sprint("f", i%idleNames))
			}
			figure(t, "%d reads of %d versions through two mounts, not of one version: %d; %v", x.did["reads"], x.version, len(x.mixed), x.did)
			if len(x.mixed) > 0 {
				t.Errorf("%d of %d reads were not of one version:\n%.3000q", len(x.mixed), x.did["reads"], x.mixed)
			}
			if x.did["evict"] == 0 || x.did["warm"] == 0 || x.did["newest"] < 10 {
				t.Errorf("too little was tried: %v", x.did)
			}
		})
	}
}
