package cache

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// recorded is an origin that keeps what it was asked for.
type recorded struct {
	origin
	mu    sync.Mutex // guards spans
	spans [][2]int64 // first and last block
}

func (r *recorded) ReadRange(ctx context.Context, off, n int64, v string) (*Body, error) {
	r.mu.Lock()
	r.spans = append(r.spans, [2]int64{off / BlockSize, (off + n - 1) / BlockSize})
	r.mu.Unlock()
	return r.origin.ReadRange(ctx, off, n, v)
}

// since are the requests after the first n.
func (r *recorded) since(n int) [][2]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans[n:])
}

const (
	planSize   = 32 * mib
	planBlocks = planSize / BlockSize
)

// planned is a handle on planSize bytes.
func planned(t *testing.T, newCache cacheMaker, opt Options) (*Cache, *File, *recorded) {
	t.Helper()
	c := newCache(t, opt)
	r := &recorded{origin: origin{data: noise(planSize), validator: etag}}
	f := c.Open(Key{"x", planSize, ""}, r, true)
	t.Cleanup(func() { f.Close() })
	return c, f, r
}

// TestFillBeginsWithHeadAndTail fails when a file that is read whole does not
// come whole after one touch, each block once; or when its head and its tail,
// where most formats have their index, come after the rest.
func TestFillBeginsWithHeadAndTail(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, f, r := planned(t, diskCache, Options{Fill: 1 << 30, Parallel: 1})
		f.Whole = true
		if got := during(c, func() { readAt(t, f, 16*mib, 10) }); got.misses != 1 || got.bytes != planSize {
			t.Errorf("one touch: %+v", got)
		}
		spans := r.since(0)
		at := func(b int64) int {
			return slices.IndexFunc(spans, func(s [2]int64) bool { return s[0] <= b && b <= s[1] })
		}
		if at(0) > 1 || at(planBlocks-1) > 2 {
			t.Errorf("the head was asked for as number %d and the tail as number %d: %v", at(0), at(planBlocks-1), spans)
		}
		if f.Backing() == nil {
			t.Error("it is not complete")
		}
		if got := during(c, func() { wantBytes(t, f, r.data) }); !got.hits(planBlocks) {
			t.Errorf("read after it came: %+v", got)
		}
	})
}

// TestReadsInManyPlacesFill fails when a file that is read in many distinctRegions is
// fetched a block at a time for each of them; or is fetched whole where that is
// not wanted, or where nothing would keep it.
func TestReadsInManyPlacesFill(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		newCache cacheMaker
		opt      Options
		fills    bool
	}{
		"fill":                      {diskCache, Options{Fill: 1 << 30}, true},
		"no fill":                   {diskCache, Options{}, false},
		"too large to fill":         {diskCache, Options{Fill: planSize - 1}, false},
		"fill in memory":            {memoryCache, Options{Fill: 1 << 30, Memory: 2 * planSize}, true},
		"too large to keep in half": {memoryCache, Options{Fill: 1 << 30, Memory: 2*planSize - 1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				cache, f, r := planned(t, c.newCache, c.opt)
				got := during(cache, func() {
					for i := range int64(distinctRegions) {
						readAt(t, f, (20-4*i)*mib, 10)
					}
				})
				want := int64(distinctRegions * BlockSize)
				if c.fills {
					want = planSize
				}
				if got.bytes != want || r.sent.Load() != want {
					t.Errorf("%d bytes were sent, want %d: %+v", r.sent.Load(), want, got)
				}
				if !c.fills {
					return
				}
				if got := during(cache, func() { wantBytes(t, f, r.data) }); !got.hits(planBlocks) {
					t.Errorf("read after it came: %+v", got)
				}
			})
		})
	}
}

// TestBackwardsReadsFill fails when a reader that goes backwards, as the C
// library does where it copies a large piece of a map from its end, is taken
// for one that reads in order; or when reads that come a little out of order
// through the kernel are not.
func TestBackwardsReadsFill(t *testing.T) {
	t.Parallel()
	t.Run("backwards", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			c, f, _ := planned(t, diskCache, Options{Fill: 1 << 30})
			const last = 20 * mib / BlockSize
			got := during(c, func() {
				for i := range int64(5) {
					readAt(t, f, (last-i)*BlockSize, BlockSize)
				}
			})
			if got.bytes != planSize {
				t.Errorf("it is not filled: %+v", got)
			}
		})
	})
	t.Run("out of order", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			c, f, _ := planned(t, diskCache, Options{Fill: 1 << 30})
			for _, i := range []int64{0, 1, 3, 2, 4, 6, 5, 7, 9, 8, 10} {
				readAt(t, f, i*BlockSize, BlockSize)
			}
			c.Wait()
			if jumps(f) > 0 {
				t.Error("reads a little out of order count as jumps")
			}
		})
	})
}

// jumps is how many reads of the file followed on none.
func jumps(f *File) int {
	f.ct.c.mu.Lock()
	defer f.ct.c.mu.Unlock()
	return f.ct.ahead.whole.jumps
}

// TestSeekWithinTheWindowCostsNothing fails when a reader in order has nothing
// fetched ahead of it, or too much; or when a seek forward to what was fetched
// waits, counts as a jump, or has it fetched again.
func TestSeekWithinTheWindowCostsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const read = 8 // blocks
		c, f, r := planned(t, diskCache, Options{})
		got := during(c, func() {
			for i := range int64(read) {
				readAt(t, f, i*BlockSize, BlockSize)
			}
		})
		came := got.bytes
		if came <= read*BlockSize || came > planSize {
			t.Errorf("%d blocks were read in order: %+v", read, got)
		}
		asked := len(r.since(0))
		if got := during(c, func() { readAt(t, f, came-2*BlockSize, BlockSize) }); got.memory+got.disk != 1 || got.misses > 0 {
			t.Errorf("a seek within the window: %+v", got)
		}
		if jumps(f) > 0 {
			t.Error("a seek within the window counts as a jump")
		}
		for _, s := range r.since(asked) {
			if s[0]*BlockSize < came {
				t.Errorf("blocks %v were asked for, which were there", s)
			}
		}
	})
}

// TestFreshBlocksAreGivenOnce fails when blocks that came before a program
// asked for them are not given to who pushes them to the kernel, are given
// twice, or have a wrong byte.
func TestFreshBlocksAreGivenOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, f, r := planned(t, diskCache, Options{Fill: 1 << 30})
		woken := make(chan struct{}, 1)
		f.Wake(func() {
			select {
			case woken <- struct{}{}:
			default:
			}
		})
		f.Whole = true
		readAt(t, f, 5*mib, 10)
		seen := make([]bool, planBlocks)
		buf := make([]byte, mib)
		for total := 0; total < planSize-(1+vicinity)*BlockSize; {
			n, off := f.Fresh(buf)
			if n == 0 {
				select {
				case <-woken:
					continue
				case <-time.After(time.Minute): // of the bubble's clock: nothing comes any more
					t.Fatalf("%d bytes were given", total)
				}
			}
			if !bytes.Equal(buf[:n], r.data[off:off+int64(n)]) {
				t.Fatalf("wrong bytes at %d", off)
			}
			for b := off / BlockSize; b*BlockSize < off+int64(n); b++ {
				if seen[b] {
					t.Errorf("block %d was given twice", b)
				}
				seen[b] = true
			}
			total += n
		}
		if seen[5*mib/BlockSize] {
			t.Error("what was read was given, too")
		}
		c.Wait()
		if got := c.Stats(); got.OriginBytes != planSize || got.Misses != 1 || got.MemoryHits+got.DiskHits > 0 {
			t.Errorf("what was pushed counts as read: %+v", got)
		}
	})
}

// TestLaterReadsWait fails when what no program waits for is fetched before
// what one does.
func TestLaterReadsWait(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, newCache cacheMaker) {
		o := &origin{data: noise(mib), wait: make(chan struct{}), validator: etag}
		c := newCache(t, Options{Requests: 1})
		var mu sync.Mutex
		var order []string
		var wg sync.WaitGroup
		begin := func(name string, later bool) {
			f := c.Open(Key{name, mib, ""}, sourceFunc(func(off, n int64) (*Body, error) {
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				return o.ReadRange(context.Background(), off, n, "")
			}), true)
			f.Later = later
			wg.Go(func() {
				defer f.Close()
				readAt(t, f, 0, 10)
			})
			synctest.Wait() // until it waits for the origin, or for its turn
		}
		begin("first", true)
		begin("later", true)
		begin("wanted", true)
		begin("urgent", false)
		begin("wanted", false) // a program joins what was begun for nobody
		close(o.wait)
		wg.Wait()
		c.Wait()
		if want := []string{"first", "urgent", "wanted", "later"}; !slices.Equal(order, want) {
			t.Errorf("they were asked for as %v, and not as %v", order, want)
		}
		// Only what a program waits for counts.
		if got := c.Stats(); got.Misses != 2 || got.MemoryHits+got.DiskHits != 0 || got.OriginRequests != 4 {
			t.Errorf("%+v", got)
		}
	})
}

// TestDenseRegionComesWhole fails when small reads at random that come near each other are
// each a request, of an origin that is near and fast; or when more than each needs is asked
// for where it is not, nothing keeps it, nothing near was wanted, or reads are large; or
// when what came in vain counts as wanted.
func TestDenseRegionComesWhole(t *testing.T) {
	t.Parallel()
	small, wide := regions[1].blocks, regions[0].blocks
	for name, c := range map[string]struct {
		newCache cacheMaker
		wait     time.Duration
		reads    []int64 // blocks
		n        int     // bytes of each read
		blocks   int64   // that come
	}{
		"near":            {diskCache, time.Millisecond, []int64{20, 18}, 10, small},
		"soon more":       {diskCache, time.Millisecond, []int64{20, 18, 50, 2}, 10, wide},
		"far":             {diskCache, 20 * time.Millisecond, []int64{20, 18, 50}, 10, 3},
		"thin":            {diskCache, time.Millisecond, []int64{20, 18, 50}, 10, 3},
		"in vain":         {diskCache, time.Millisecond, []int64{20, 18, 50}, 10, small + 1},
		"memory alone":    {memoryCache, time.Millisecond, []int64{20, 18}, 10, 2},
		"another region":  {diskCache, time.Millisecond, []int64{20, 40}, 10, 2},
		"the file's last": {diskCache, time.Millisecond, []int64{20, planBlocks - 1}, 10, 2},
		"large reads":     {diskCache, time.Millisecond, []int64{20, 24}, 2 * BlockSize, 4},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				cache := c.newCache(t, Options{})
				o := &origin{data: noise(planSize), validator: etag}
				if name == "thin" {
					o.pause = regionFor / 4
				}
				f := cache.Open(Key{"x", planSize, ""}, sourceFunc(func(off, n int64) (*Body, error) {
					time.Sleep(c.wait)
					return o.ReadRange(t.Context(), off, n, "")
				}), true)
				defer f.Close()
				got := during(cache, func() {
					for _, i := range c.reads {
						p, off := make([]byte, c.n), i*BlockSize
						if _, err := f.ReadAt(t.Context(), p, off); err != nil || !bytes.Equal(p, o.data[off:off+int64(c.n)]) {
							t.Error("wrong bytes", err)
						}
					}
				})
				if got.bytes != c.blocks*BlockSize || o.sent.Load() != got.bytes {
					t.Errorf("%+v", got)
				}
				if c.blocks == wide {
					if got := during(cache, func() { readAt(t, f, 40*BlockSize, 10) }); !got.hits(1) {
						t.Errorf("read after it came: %+v", got)
					}
				}
			})
		})
	}
}
