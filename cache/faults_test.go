package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/mlflowfs/mlflowfs/cache/disk"
	"github.com/mlflowfs/mlflowfs/test/count"
)

// TestDiskThatIsWellAgainInMidReadIsRead fails when a read ends the process, or is
// wrong, because the disk's rest ends between two looks at it.
func TestDiskThatIsWellAgainInMidReadIsRead(t *testing.T) {
	t.Parallel()
	c := memoryCache(t, Options{Disk: diskAt(t, t.TempDir(), 1<<30), Memory: BlockSize})
	o := &origin{data: noise(4 * mib), validator: etag}
	key := Key{"x", 4 * mib, ""}
	take(t, c, key, o)
	f := c.Open(key, o, true)
	defer f.Close()
	wantBytes(t, f, o.data)
	rest := restsOf(c.opt.Disk)
	defer rest(0)
	r, p := rand.New(rand.NewPCG(seedOf(t), 1)), make([]byte, 100)
	for range 30_000 {
		rest(time.Duration(r.Int64N(1500)))
		off := r.Int64N(4*mib - 100)
		if _, err := f.ReadAt(t.Context(), p, off); err != nil || !bytes.Equal(p, o.data[off:off+100]) {
			t.Fatalf("100 bytes from %d: wrong ones, or %v", off, err)
		}
	}
}

// restsOf gives what has d rest for a while, as after an error of the device. In
// truth that ends by the clock, in a moment that no test could wait for.
func restsOf(d *disk.Dir) func(time.Duration) {
	rests := reflect.ValueOf(d).Elem().FieldByName("rests")
	return func(while time.Duration) {
		until := int64(0)
		if while > 0 {
			until = time.Now().Add(while).UnixNano()
		}
		for i := range rests.Len() {
			(*atomic.Int64)(unsafe.Pointer(rests.Index(i).FieldByName("until").UnsafeAddr())).Store(until)
		}
	}
}

// TestPushAtTheLastCloseIsNoFault fails when bytes that are taken for the kernel in
// the moment of the last close take the disk out of use.
func TestPushAtTheLastCloseIsNoFault(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := &origin{data: noise(8 * mib), validator: etag}
	key := Key{"x", 8 * mib, ""}
	take(t, nextProcess(t, dir, 1<<30), key, o)
	var log count.Log
	for round := range 400 {
		d, err := disk.Open(dir, disk.Options{Bound: 1 << 30, Log: slog.New(slog.NewTextHandler(&log, nil)), Patience: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		c := memoryCache(t, Options{Disk: d, Memory: BlockSize})
		f := c.Open(key, o, true)
		f.Whole = true
		f.Wake(func() {})
		readAt(t, f, 0, 10)
		c.Wait() // all of it is verified, and fresh
		pushing, pushed := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(pushed)
			close(pushing)
			for p := make([]byte, mib); ; {
				if n, _ := f.Fresh(p); n == 0 {
					return
				}
			}
		}()
		<-pushing
		for begin, until := time.Now(), time.Duration(round%100)*10*time.Microsecond; time.Since(begin) < until; {
			runtime.Gosched()
		}
		f.Close()
		<-pushed
		if !d.Takes() || log.String() != "" {
			t.Fatalf("after %d closes the disk rests: %s", round, log.String())
		}
		f = c.Open(key, o, true)
		if got := during(c, func() { readAt(t, f, 4*mib, BlockSize) }); !got.hits(1) {
			t.Fatalf("what is on the disk was fetched again: %+v; %s", got, log.String())
		}
		f.Close()
		c.Wait()
		d.Close()
	}
}

// TestAnySizeIsAnErrorAtMost fails when a size that a server lists, and that no
// file has, ends the process: by its memory, or by an overflow.
func TestAnySizeIsAnErrorAtMost(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{1 << 45, 1 << 54, 1 << 62, 1<<63 - 1} {
		for name, whole := range origins() {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				tiers(t, func(t *testing.T, newCache cacheMaker) {
					c := newCache(t, Options{Fill: 1 << 30})
					f := c.Open(Key{"x", size, ""}, sourceFunc(func(_, n int64) (*Body, error) {
						return &Body{ReadCloser: io.NopCloser(bytes.NewReader(noise(mib))), Total: -1, Whole: whole}, nil
					}), true)
					f.Whole = true
					for _, off := range []int64{0, size / 2, size - 10} {
						if n, err := f.ReadAt(t.Context(), make([]byte, 10), off); err == nil && n != 10 {
							t.Errorf("%d bytes from %d", n, off)
						}
					}
					f.Close()
					if got := take(t, c, Key{"y", mib, ""}, &origin{data: noise(mib), validator: etag}); got.bytes != mib {
						t.Errorf("another file: %+v", got)
					}
				})
			})
		}
	}
}

// TestCloseOfAHugeContentIsQuick fails when the close of a content takes the longer,
// with all readers waiting, the larger it is, and not the more there is of it.
func TestCloseOfAHugeContentIsQuick(t *testing.T) {
	t.Parallel()
	c := memoryCache(t, Options{})
	const size = 1 << 45
	for i := range 3 {
		f := c.Open(Key{fmt.Sprint(i), size, ""}, sourceFunc(func(_, n int64) (*Body, error) {
			return &Body{ReadCloser: io.NopCloser(bytes.NewReader(make([]byte, n))), Total: size}, nil
		}), false)
		readAt(t, f, 0, 10)
		c.Wait()
		begin := time.Now()
		f.Close()
		if took := time.Since(begin); took > 200*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	}
}

// TestClosedContentsKeepToTheMemoryLimit fails when what is remembered of files that
// nobody has open grows beyond the part that Options.Memory gives it.
func TestClosedContentsKeepToTheMemoryLimit(t *testing.T) { // alone: it measures memory
	const files, size = 400, 1 << 30
	c := memoryCache(t, Options{Disk: diskAt(t, t.TempDir(), 1<<40), Memory: mib, Parallel: 1})
	heap := func() int64 {
		c.Wait()
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for i := range files {
		f := c.Open(Key{fmt.Sprint(i), size, ""}, sourceFunc(func(_, n int64) (*Body, error) {
			return &Body{ReadCloser: io.NopCloser(bytes.NewReader(make([]byte, n))), Total: size, Validator: etag()}, nil
		}), true)
		readAt(t, f, 0, 10)
		f.Close()
	}
	if grown := heap() - before; grown > 4*mib {
		t.Errorf("%d closed files of 1 GiB keep %d KiB", files, grown>>10)
	}
	runtime.KeepAlive(c)
}

// TestHandlesOfOneKeyShareTheirContent fails when two handles of one key that are
// open at once have a content each, and fetch it twice: a late end of an earlier
// content, whose origin failed, must not take the new one out.
func TestHandlesOfOneKeyShareTheirContent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := memoryCache(t, Options{})
		key, o := Key{"x", BlockSize, ""}, &origin{data: noise(BlockSize), err: errors.New("the server is down")}
		f := c.Open(key, o, true)
		if _, err := f.ReadAt(t.Context(), make([]byte, 10), 0); err == nil {
			t.Error("there was nothing to read")
		}
		earlier := f.ct
		f.Close()
		g := c.Open(key, o, true)
		earlier.settle() // its last fetch ends a little later
		h := c.Open(key, o, true)
		if g.ct != h.ct {
			t.Error("two handles have a content each")
		}
		g.Close()
		h.Close()
	})
}
