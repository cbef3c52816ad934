package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// TestManyReadersOneFetch fails when programs that read one file at the same
// time have bytes of it fetched more than once, or when who reads it again has
// to wait for the origin.
func TestManyReadersOneFetch(t *testing.T) {
	t.Parallel()
	// Files of one request (wholeFetch), of several, and streams that memory
	// does not hold (inMemory).
	for _, size := range []int{1, BlockSize, mib, 3*mib + 7, 17*mib + 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			everyOrigin(t, noise(size), func(t *testing.T, newCache cacheMaker, o *origin) {
				c := newCache(t, Options{})
				key := Key{"x", int64(size), ""}
				var wg sync.WaitGroup
				for range 8 {
					wg.Go(func() {
						f := c.Open(key, o, true)
						defer f.Close()
						wantBytes(t, f, o.data)
					})
				}
				wg.Wait()
				if got := o.sent.Load(); got != int64(size) {
					t.Errorf("the origin sent %d bytes for a file of %d", got, size)
				}
				if got := o.asked.Load(); (o.whole || size <= wholeFetch) && got != 1 {
					t.Errorf("the origin was asked %d times, want 1", got)
				}
				if got := c.Stats(); got.OriginRequests != o.asked.Load() || got.OriginBytes != o.sent.Load() {
					t.Errorf("the cache counts %d requests and %d bytes, and not %d and %d", got.OriginRequests, got.OriginBytes, o.asked.Load(), o.sent.Load())
				}
				if got := take(t, c, key, o); !got.memoryHits(disk.BlocksOf(key.Size)) {
					t.Errorf("read again: %+v", got)
				}
			})
		})
	}
}

// TestRandomReadsGiveTheRightBytes fails when reads of any place and length, by
// several programs at once, give a wrong byte or a wrong end while blocks leave
// memory for others; when memory holds more than it may; or when a block that
// is on disk is fetched again.
func TestRandomReadsGiveTheRightBytes(t *testing.T) {
	t.Parallel()
	const size = 24*mib + 123   // more than inMemory: a stream needs a file
	const memory = 5 * mib      // a fifth of it, so that blocks come and go
	const longest = 3 * mib / 2 // of a read
	everyOrigin(t, noise(size), func(t *testing.T, newCache cacheMaker, o *origin) {
		seed := seedOf(t)
		c := newCache(t, Options{Memory: memory})
		var wg sync.WaitGroup
		for reader := range uint64(8) {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(seed, reader))
				f := c.Open(Key{"x", size, ""}, o, true)
				defer f.Close()
				buf := make([]byte, longest)
				for range 20 {
					p := buf[:1+r.IntN(len(buf))]
					off := r.Int64N(size + 10)
					n, err := f.ReadAt(context.Background(), p, off)
					want := o.data[min(off, size):min(off+int64(len(p)), size)]
					if n != len(want) || !bytes.Equal(p[:n], want) {
						t.Errorf("seed %d, reader %d: %d bytes from %d: got %d, or wrong ones", seed, reader, len(p), off, n)
					}
					if (err == io.EOF) != (n < len(p)) || (err != nil && err != io.EOF) {
						t.Errorf("seed %d, reader %d: %d bytes from %d: %v", seed, reader, len(p), off, err)
					}
				}
			})
		}
		wg.Wait()
		c.Wait()
		got := c.Stats()
		if got.Memory > memory || got.Evicted == 0 {
			t.Errorf("seed %d: %d bytes are held, %d blocks left", seed, got.Memory, got.Evicted)
		}
		hasFile := c.opt.Disk != nil || o.whole
		if (got.DiskHits > 0) != hasFile || got.MemoryHits == 0 || got.Damaged > 0 {
			t.Errorf("seed %d: %+v", seed, got)
		}
		if sent := o.sent.Load(); hasFile && sent > size {
			t.Errorf("seed %d: the origin sent %d bytes for a file of %d", seed, sent, size)
		}
		if o.whole && got.OriginRequests != 1 {
			t.Errorf("seed %d: a stream was asked for %d times", seed, got.OriginRequests)
		}
	})
}

// TestSmallReadMovesLittle fails when a program that reads the first bytes of a
// large file has more than one block fetched.
func TestSmallReadMovesLittle(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, newCache cacheMaker) {
		o := &origin{data: noise(20 * mib)} // too large for one request (wholeFetch)
		c := newCache(t, Options{})
		f := c.Open(Key{"x", int64(len(o.data)), ""}, o, true)
		defer f.Close()
		read := func() { readAt(t, f, 0, 1024) }
		if got, want := during(c, read), (counts{misses: 1, requests: 1, bytes: BlockSize}); got != want {
			t.Errorf("1 KiB: %+v, want %+v", got, want)
		}
		if got := o.sent.Load(); got > BlockSize {
			t.Errorf("1 KiB moved %d bytes", got)
		}
		if got := during(c, read); !got.memoryHits(1) {
			t.Errorf("1 KiB again: %+v", got)
		}
	})
}

// TestInterruptedReaderLetsGo fails when a program that is interrupted (Ctrl-C)
// waits on for an origin that does not answer, or when what it asked for is
// given up and fetched again for the next one.
func TestInterruptedReaderLetsGo(t *testing.T) {
	t.Parallel()
	everyOrigin(t, noise(20*mib), func(t *testing.T, newCache cacheMaker, o *origin) {
		o.wait = make(chan struct{})
		c := newCache(t, Options{})
		f := c.Open(Key{"x", int64(len(o.data)), ""}, o, true)
		defer f.Close()
		gone := errors.New("gone")
		ctx, cancel := context.WithTimeoutCause(context.Background(), time.Second, gone)
		defer cancel()
		if _, err := f.ReadAt(ctx, make([]byte, 10), 5*mib); !errors.Is(err, gone) {
			t.Fatalf("the reader got %v", err)
		}
		if got := c.Stats(); got.Fetches != 1 || len(got.Transfers) != 1 {
			t.Errorf("the fetch does not go on: %+v", got)
		}
		close(o.wait)
		wantBytes(t, f, o.data)
		c.Wait()
		if got := o.sent.Load(); got != int64(len(o.data)) {
			t.Errorf("the origin sent %d bytes: the fetch was given up", got)
		}
		if got := o.asked.Load(); o.whole && got != 1 {
			t.Errorf("a stream was asked for %d times", got)
		}
		if got := during(c, func() { readAt(t, f, 5*mib, 10) }); !got.memoryHits(1) {
			t.Errorf("what it asked for, read again: %+v", got)
		}
	})
}

// TestBodyThatBreaksOffIsResumed fails when a connection that breaks in the
// middle of an answer fails a read, or has more fetched again than the block
// that it broke in.
func TestBodyThatBreaksOffIsResumed(t *testing.T) {
	t.Parallel()
	everyOrigin(t, noise(24*mib), func(t *testing.T, newCache cacheMaker, o *origin) {
		const breaks = 3
		o.cut = func(want int) int { // the first answers break off, a stream's later and later
			if i := o.asked.Load(); i <= breaks {
				return int(i)*mib + 100
			}
			return want
		}
		c := newCache(t, Options{})
		f := c.Open(Key{"x", int64(len(o.data)), ""}, o, true)
		defer f.Close()
		got := make([]byte, len(o.data))
		if n, err := f.ReadAt(context.Background(), got, 0); n != len(got) || err != nil || !bytes.Equal(got, o.data) {
			t.Errorf("got %d bytes, or wrong ones, and %v", n, err)
		}
		if got := o.asked.Load(); got != breaks+1 {
			t.Errorf("the origin was asked %d times, want %d", got, breaks+1)
		}
		if got := o.sent.Load(); !o.whole && got > int64(len(o.data))+breaks*BlockSize {
			t.Errorf("the origin sent %d bytes for a file of %d", got, len(o.data))
		}
		if got := during(c, func() { wantBytes(t, f, o.data) }); !got.memoryHits(f.Size() / BlockSize) {
			t.Errorf("read again: %+v", got)
		}
	})
}

// TestShortBodyIsNeverTheFile fails when an answer that ends too early is given
// to a program as a shorter file, or as its end.
func TestShortBodyIsNeverTheFile(t *testing.T) {
	t.Parallel()
	for _, size := range []int{mib / 2, 20 * mib} { // in memory, and in a file
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			everyOrigin(t, noise(size), func(t *testing.T, newCache cacheMaker, o *origin) {
				o.cut = func(n int) int { return n / 2 }
				if o.whole { // no Content-Length: nothing but the end of the body tells
					o.total = -1
				}
				c := newCache(t, Options{})
				f := c.Open(Key{"x", int64(size), ""}, o, true)
				defer f.Close()
				for range 2 {
					got := during(c, func() {
						if n, err := f.ReadAt(context.Background(), make([]byte, 10), int64(size)-10); err == nil || err == io.EOF || n != 0 {
							t.Errorf("a body of half the length gave %d bytes and %v", n, err)
						}
					})
					if got.memory+got.disk > 0 || got.requests < maxTries {
						t.Errorf("it was not tried %d times: %+v", maxTries, got)
					}
				}
			})
		})
	}
}

// TestChangedContentIsAnError fails when a file that changes at its origin while
// a program reads it gives bytes of two versions, or stays in the cache.
func TestChangedContentIsAnError(t *testing.T) {
	t.Parallel()
	data, other := noise(20*mib), bytes.Clone(noise(20*mib))
	other[0]++
	half := func(n int) int { return n / 2 }
	for name, newOrigin := range map[string]func() *origin{
		"size":                func() *origin { return &origin{data: data, total: 5} },
		"size of a stream":    func() *origin { return &origin{data: data, total: 5, whole: true} },
		"longer stream":       func() *origin { return &origin{data: data, total: -1, whole: true, extra: 1} },
		"longer small stream": func() *origin { return &origin{data: data[:100], total: -1, whole: true, extra: 1} },
		"validator": func() *origin {
			o := &origin{data: data}
			o.validator = func() string { return fmt.Sprint(o.asked.Load()) }
			return o
		},
		"other bytes on resume": func() *origin {
			o := &origin{data: data, whole: true}
			o.cut = func(n int) int {
				o.data = other // of the next answer
				return half(n)
			}
			return o
		},
	} {
		t.Run(name, func(t *testing.T) {
			tiers(t, func(t *testing.T, newCache cacheMaker) {
				o := newOrigin()
				c := newCache(t, Options{})
				f := c.Open(Key{"x", int64(len(o.data)), ""}, o, true)
				read := func(off int64) error {
					_, err := f.ReadAt(context.Background(), make([]byte, 10), off)
					return err
				}
				for i := range int64(3) { // two answers, at least
					if err := read(min(i*9*mib, f.Size()-10)); err != nil && !errors.Is(err, ErrChanged) {
						t.Errorf("got %v", err)
					}
				}
				c.Wait() // a stream is judged at its end
				got := during(c, func() {
					if err := read(0); !errors.Is(err, ErrChanged) {
						t.Errorf("got %v", err)
					}
				})
				if got != (counts{}) {
					t.Errorf("the changed content was read: %+v", got)
				}
				f.Close()
				if c.Held() != 0 || len(c.contents) != 0 || files(t, c) != 0 {
					t.Errorf("the changed content is still held: %d bytes, %d contents, %d files", c.Held(), len(c.contents), files(t, c))
				}
			})
		})
	}
}

// files is how many contents the disk of c has.
func files(t *testing.T, c *Cache) int {
	t.Helper()
	if c.opt.Disk == nil {
		return 0
	}
	found, err := filepath.Glob(filepath.Join(c.opt.Disk.Path(), "??", "*.rec"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// TestErrorIsNotKept fails when a file can't be read after its origin has come
// back.
func TestErrorIsNotKept(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, newCache cacheMaker) {
		o := &origin{data: noise(10), err: errors.New("down")}
		c := newCache(t, Options{})
		f := c.Open(Key{"x", 10, ""}, o, true)
		defer f.Close()
		if _, err := f.ReadAt(context.Background(), make([]byte, 10), 0); err == nil || err.Error() != "down" {
			t.Fatal(err)
		}
		c.Wait()
		o.err = nil
		if got, want := during(c, func() { wantBytes(t, f, o.data) }), (counts{misses: 1, requests: 1, bytes: 10}); got != want {
			t.Errorf("read again: %+v, want %+v", got, want)
		}
		if got := c.Stats(); got.OriginFailures != 1 {
			t.Errorf("%d failures, want 1", got.OriginFailures)
		}
	})
}

// TestPanicOfASourceIsAnError fails when a fault in the code that reads from an
// origin ends the process, and with it the mount, or spoils the file for later.
func TestPanicOfASourceIsAnError(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, newCache cacheMaker) {
		o := &origin{data: noise(10), cut: func(int) int { panic("boo") }}
		c := newCache(t, Options{})
		f := c.Open(Key{"x", 10, ""}, o, true)
		defer f.Close()
		if _, err := f.ReadAt(context.Background(), make([]byte, 10), 0); err == nil || !strings.Contains(err.Error(), "boo") {
			t.Fatal(err)
		}
		c.Wait()
		o.cut = nil
		if got, want := during(c, func() { wantBytes(t, f, o.data) }), (counts{misses: 1, requests: 1, bytes: 10}); got != want {
			t.Errorf("read again: %+v, want %+v", got, want)
		}
	})
}

// TestContentThatMayChangeGoesWithItsLastHandle fails when a file whose origin
// can't tell its versions apart is given from the cache to who opens it anew,
// or is fetched twice for who has it open.
func TestContentThatMayChangeGoesWithItsLastHandle(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, newCache cacheMaker) {
		o := &origin{data: noise(3 * mib)}
		c := newCache(t, Options{})
		key := Key{"x", int64(len(o.data)), ""}
		blocks := disk.BlocksOf(key.Size)
		a, b := c.Open(key, o, false), c.Open(key, o, false)
		wantBytes(t, a, o.data)
		a.Close()
		if got := during(c, func() { wantBytes(t, b, o.data) }); !got.memoryHits(blocks) || o.sent.Load() != key.Size {
			t.Errorf("two handles at once did not share: %+v", got)
		}
		b.Close()
		b.Close() // a second Close does nothing
		if c.Held() != 0 || len(c.contents) != 0 || files(t, c) != 0 {
			t.Errorf("%d bytes of %d contents and %d files are held", c.Held(), len(c.contents), files(t, c))
		}
		f := c.Open(key, o, false)
		defer f.Close()
		if got := during(c, func() { wantBytes(t, f, o.data) }); got.bytes != key.Size {
			t.Errorf("opened anew: %+v", got)
		}
	})
}

// TestForgottenContentAsksNoMore fails when a file that its reader has closed
// is fetched on, or kept, though nobody may have it from the cache.
func TestForgottenContentAsksNoMore(t *testing.T) {
	t.Parallel()
	everyOrigin(t, noise(20*mib), func(t *testing.T, newCache cacheMaker, o *origin) {
		o.wait = make(chan struct{})
		c := newCache(t, Options{})
		f := c.Open(Key{"x", int64(len(o.data)), ""}, o, false)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := f.ReadAt(ctx, make([]byte, 10), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("the reader got %v", err)
		}
		f.Close()
		close(o.wait)
		c.Wait()
		if n := o.asked.Load(); n != 1 || c.Held() != 0 || files(t, c) != 0 {
			t.Errorf("%d requests, %d bytes and %d files are held", n, c.Held(), files(t, c))
		}
	})
}

// TestOthersWaitOnWhenOneIsInterrupted fails when programs that are killed, or wait
// no longer, end the wait of another one for the same block, or have that block
// fetched twice.
func TestOthersWaitOnWhenOneIsInterrupted(t *testing.T) {
	t.Parallel()
	everyOrigin(t, noise(20*mib), func(t *testing.T, newCache cacheMaker, o *origin) {
		o.wait = make(chan struct{})
		f := newCache(t, Options{}).Open(Key{"x", int64(len(o.data)), ""}, o, true)
		defer f.Close()
		const off = 5 * mib
		got := make([]byte, 100)
		gone, came := make(chan error, 1), make(chan error, 1)
		read := func(ctx context.Context, p []byte, end chan error) {
			_, err := f.ReadAt(ctx, p, off)
			end <- err
		}
		ctx, cancel := context.WithCancel(context.Background())
		go read(ctx, make([]byte, 10), gone)
		go read(context.Background(), got, came)
		synctest.Wait() // both wait for the block
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("the interrupted one got %v", err)
		}
		ctx, cancel = context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := f.ReadAt(ctx, make([]byte, 10), off); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the one that waited no longer got %v", err)
		}
		close(o.wait)
		if err := <-came; err != nil || !bytes.Equal(got, o.data[off:off+100]) {
			t.Errorf("the other one got %v", err)
		}
		if n := o.asked.Load(); n != 1 {
			t.Errorf("one block was asked for %d times", n)
		}
	})
}
