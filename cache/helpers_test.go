package cache

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mlflowfs/mlflowfs/cache/disk"
	"go.uber.org/goleak"
)

// TestMain fails the package when a test leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mib = 1 << 20

// bubble runs test beside others, with a clock of its own that moves on only
// when all of its goroutines wait (testing/synctest): a backoff takes no time,
// no load makes the disk slow, and a wait that nothing can end fails at once.
//
// The files of a test have the time of the system, which is later: what is
// about their age or their order runs outside, or sets their times.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, test)
}

// cacheMaker makes an empty cache on one of the tiers.
type cacheMaker func(t *testing.T, opt Options) *Cache

// tiers runs a test of what holds for memory alone and with a disk below it:
// once for each, in a bubble.
func tiers(t *testing.T, test func(t *testing.T, newCache cacheMaker)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) {
		bubble(t, func(t *testing.T) { test(t, memoryCache) })
	})
	t.Run("disk", func(t *testing.T) {
		bubble(t, func(t *testing.T) { test(t, diskCache) })
	})
}

// everyOrigin runs test on both tiers, with each kind of origin.
func everyOrigin(t *testing.T, data []byte, test func(t *testing.T, newCache cacheMaker, o *origin)) {
	t.Helper()
	for name, whole := range origins() {
		t.Run(name, func(t *testing.T) {
			tiers(t, func(t *testing.T, newCache cacheMaker) { test(t, newCache, &origin{data: data, whole: whole}) })
		})
	}
}

// origins are the kinds that a real server can be: one honours ranges, the
// other answers every request with the whole file.
func origins() map[string]bool { return map[string]bool{"ranged": false, "stream": true} }

// memoryCache is a cache without a disk.
func memoryCache(t *testing.T, opt Options) *Cache {
	t.Helper()
	if opt.TempDir == "" {
		opt.TempDir = t.TempDir()
	}
	opt.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	c := New(opt)
	t.Cleanup(c.Wait)
	return c
}

// diskCache is a cache with an empty disk, which has room for everything.
func diskCache(t *testing.T, opt Options) *Cache {
	t.Helper()
	opt.Disk = diskAt(t, t.TempDir(), 10<<30)
	return memoryCache(t, opt)
}

// nextProcess is the cache of a process that has just begun, on the directory.
// It holds 8 blocks in memory: the rest of what it reads again is on disk.
func nextProcess(t *testing.T, dir string, bound int64) *Cache {
	t.Helper()
	return memoryCache(t, Options{Disk: diskAt(t, dir, bound), Memory: mib})
}

func diskAt(t *testing.T, dir string, bound int64) *disk.Dir {
	t.Helper()
	d, err := disk.Open(dir, disk.Options{
		Bound: bound, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Patience: time.Minute, // a busy test machine is no broken disk
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// filesOf are the files of the only content below dir, or of the one that has
// size bytes.
func filesOf(t *testing.T, dir string, size int64) (data, record string) {
	t.Helper()
	filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(p) != ".rec" {
			return nil
		}
		found, _ := filepath.Glob(strings.TrimSuffix(p, ".rec") + ".????????????????")
		for _, f := range found {
			if st, err := os.Stat(f); err == nil && (size == 0 || st.Size() == size) {
				data, record = f, p
			}
		}
		return nil
	})
	if data == "" {
		t.Fatalf("no content of %d bytes lies below %s", size, dir)
	}
	return data, record
}

const headSize = 512 // of a record; see cache/disk

// origin is a Source over known bytes, with the faults that a test asks for.
type origin struct {
	data []byte

	whole     bool            // answers every request with the whole file
	validator func() string   // of each answer
	total     int64           // claimed; 0: the truth
	cut       func(n int) int // how many of an answer's n bytes come
	extra     int             // bytes too many behind a whole body
	wait      chan struct{}   // each answer waits until it is closed
	pause     time.Duration   // before each read of a body
	err       error           // each answer

	asked atomic.Int64 // requests
	sent  atomic.Int64 // bytes
}

// paused is a body that comes slowly.
type paused struct {
	io.Reader
	pause time.Duration
}

func (p paused) Read(b []byte) (int, error) {
	time.Sleep(p.pause)
	return p.Reader.Read(b)
}

func (o *origin) ReadRange(_ context.Context, off, n int64, _ string) (*Body, error) {
	o.asked.Add(1)
	if o.wait != nil {
		<-o.wait
	}
	if o.err != nil {
		return nil, o.err
	}
	part := o.data[off : off+n]
	if o.whole {
		part = append(o.data[:len(o.data):len(o.data)], make([]byte, o.extra)...)
	}
	b := &Body{Whole: o.whole, Total: o.total}
	if b.Total == 0 {
		b.Total = int64(len(o.data))
	}
	if o.validator != nil {
		b.Validator = o.validator()
	}
	if o.cut != nil {
		part = part[:o.cut(len(part))]
	}
	b.ReadCloser = io.NopCloser(io.TeeReader(paused{bytes.NewReader(part), o.pause}, counter{&o.sent}))
	return b, nil
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// sourceFunc is a Source that a function is.
type sourceFunc func(off, n int64) (*Body, error)

func (f sourceFunc) ReadRange(_ context.Context, off, n int64, _ string) (*Body, error) {
	return f(off, n)
}

func etag() string { return `"v"` }

// noise gives the first n bytes of a fixed random sequence. All tests share
// them: who changes one clones them first.
func noise(n int) []byte { return allNoise()[:n:n] }

var allNoise = sync.OnceValue(func() []byte {
	b := make([]byte, 48*mib)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
})

// seedOf is the seed of a test's random numbers, which a failure names:
// MLFLOWFS_SEED, or 1.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	v := os.Getenv("MLFLOWFS_SEED")
	if v == "" {
		v = "1"
	}
	seed, err := strconv.ParseUint(v, 10, 32)
	if err != nil {
		t.Fatalf("MLFLOWFS_SEED=%q: %v", v, err)
	}
	return seed
}

// wantBytes reads the file from its beginning, a block at a time, as the kernel
// does, and compares it with data.
func wantBytes(t *testing.T, f *File, data []byte) {
	t.Helper()
	if f.Size() != int64(len(data)) {
		t.Errorf("the file has %d bytes, want %d", f.Size(), len(data))
	}
	p := make([]byte, BlockSize)
	for off := 0; off < len(data); off += BlockSize {
		want := data[off:min(off+BlockSize, len(data))]
		n, err := f.ReadAt(context.Background(), p[:len(want)], int64(off))
		if err != nil && err != io.EOF {
			t.Errorf("%d bytes from %d: %v", len(want), off, err)
			return
		}
		if !bytes.Equal(p[:n], want) {
			t.Errorf("%d bytes from %d: got %d, or wrong ones", len(want), off, n)
			return
		}
	}
}

func readAt(t *testing.T, f *File, off int64, n int) {
	t.Helper()
	if _, err := f.ReadAt(context.Background(), make([]byte, n), off); err != nil && err != io.EOF {
		t.Errorf("%d bytes from %d: %v", n, off, err)
	}
}

// take opens a content, compares all of it with what the origin has, closes
// it, and tells how it was read.
func take(t *testing.T, c *Cache, key Key, o *origin) counts {
	t.Helper()
	f := c.Open(key, o, true)
	defer f.Close()
	return during(c, func() { wantBytes(t, f, o.data) })
}

// counts are those of Cache.Stats that tell how something was read.
type counts struct {
	memory, disk, misses int64 // blocks
	damaged              int64 // contents
	requests, bytes      int64 // of the origin
}

// during gives what the cache counts while do runs and until all fetches have
// ended that it began.
func during(c *Cache, do func()) counts {
	c.Wait()
	a := c.Stats()
	do()
	c.Wait()
	b := c.Stats()
	return counts{
		b.MemoryHits - a.MemoryHits, b.DiskHits - a.DiskHits, b.Misses - a.Misses,
		b.Damaged - a.Damaged,
		b.OriginRequests - a.OriginRequests, b.OriginBytes - a.OriginBytes,
	}
}

// hits tells whether n blocks were wanted and each was in memory or on disk,
// undamaged: the origin was not asked.
func (n counts) hits(blocks int64) bool {
	return n == counts{memory: n.memory, disk: blocks - n.memory}
}

// diskHits tells whether these were hits, some of them on disk.
func (n counts) diskHits(blocks int64) bool { return n.hits(blocks) && n.disk > 0 }

// memoryHits tells whether these were hits, all of them in memory.
func (n counts) memoryHits(blocks int64) bool { return n.hits(blocks) && n.disk == 0 }
