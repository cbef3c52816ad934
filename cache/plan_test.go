package cache

import (
	"bytes"
	"context"
	"io"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestGateLetsUrgentTicketsFirst(t *testing.T) {
	g := gate{free: 1}
	first := g.queue(false)
	<-first.ready
	a, b, c, d := g.queue(false), g.queue(false), g.queue(true), g.queue(false)
	g.hurry(d)
	for i, want := range []*ticket{c, d, a, b} {
		g.leave()
		select {
		case <-want.ready:
		default:
			t.Fatalf("number %d is not let in", i)
		}
	}
	g.leave()
	if g.free != 1 || len(g.urgent)+len(g.later) != 0 {
		t.Errorf("%d are free, %d wait", g.free, len(g.urgent)+len(g.later))
	}
}

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

func (r *recorded) asked() [][2]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}

// planned is a handle on 32 MiB.
func planned(t *testing.T, opt Options) (*Cache, *File, *recorded) {
	opt.Disk = diskAt(t, t.TempDir(), 1<<30)
	c := small(t, opt)
	r := &recorded{origin: origin{data: noise(32 * mib), validator: etag}}
	f := c.Open(Key{"x", 32 * mib, ""}, r, true)
	t.Cleanup(func() {
		f.Close()
		c.Wait()
	})
	return c, f, r
}

func readAt(t *testing.T, f *File, off int64, n int) {
	t.Helper()
	if _, err := f.ReadAt(context.Background(), make([]byte, n), off); err != nil && err != io.EOF {
		t.Fatal(err)
	}
}

// A file that is read whole comes whole after one touch: each block once, the
// head and the tail before the rest.
func TestFillBeginsWithHeadAndTail(t *testing.T) {
	_, f, r := planned(t, Options{Fill: 1 << 30, Parallel: 1})
	f.Whole = true
	readAt(t, f, 16*mib, 10)
	for end := time.Now().Add(5 * time.Second); r.sent.Load() < 32*mib; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes came", r.sent.Load())
		}
	}
	f.ct.c.Wait()
	spans := r.asked()
	last := int64(32*mib/BlockSize - 1)
	at := func(b int64) int {
		return slices.IndexFunc(spans, func(s [2]int64) bool { return s[0] <= b && b <= s[1] })
	}
	if at(0) > 1 || at(last) > 2 {
		t.Errorf("the head was asked for as number %d and the tail as number %d: %v", at(0), at(last), spans)
	}
	if r.sent.Load() != 32*mib {
		t.Errorf("%d bytes came", r.sent.Load())
	}
	if f.Backing() == nil {
		t.Error("it is not complete")
	}
}

func TestReadsInManyPlacesFill(t *testing.T) {
	for _, c := range []struct {
		name string
		fill int64
		want bool
	}{{"fill", 1 << 30, true}, {"no fill", 0, false}, {"too large to fill", 32*mib - 1, false}} {
		_, f, r := planned(t, Options{Fill: c.fill})
		for i := range int64(places) {
			readAt(t, f, (20-4*i)*mib, 10)
		}
		for end := time.Now().Add(3 * time.Second); c.want && r.sent.Load() < 32*mib && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond)
		if got := r.sent.Load(); (got == 32*mib) != c.want || (!c.want && got > places*BlockSize) {
			t.Errorf("%s: %d bytes came", c.name, got)
		}
	}
	// What nothing keeps is not filled beyond what memory holds.
	r := &recorded{origin: origin{data: noise(32 * mib)}}
	f := small(t, Options{Fill: 1 << 30, Memory: 16 * mib}).Open(Key{"x", 32 * mib, ""}, r, true)
	defer f.Close()
	f.Whole = true
	readAt(t, f, 16*mib, 10)
	time.Sleep(100 * time.Millisecond)
	if got := r.sent.Load(); got > mib {
		t.Errorf("%d bytes came for a memory of 16 MiB", got)
	}
}

// The C library copies a large piece of a map from its end: a reader that goes
// backwards is no reader in order.
func TestBackwardsFills(t *testing.T) {
	_, f, r := planned(t, Options{Fill: 1 << 30})
	last := int64(20 * mib / BlockSize)
	for i := range int64(5) {
		readAt(t, f, (last-i)*BlockSize, BlockSize)
	}
	f.ct.c.Wait()
	if got := r.sent.Load(); got != 32*mib {
		t.Errorf("%d bytes came", got)
	}
	_, f, _ = planned(t, Options{Fill: 1 << 30})
	for _, i := range []int64{0, 1, 3, 2, 4, 6, 5, 7, 9, 8, 10} { // as they come through the kernel
		readAt(t, f, i*BlockSize, BlockSize)
	}
	f.ct.c.mu.Lock()
	if f.ct.plan.jumps > 0 {
		t.Error("reads a little out of order count as jumps")
	}
	f.ct.c.mu.Unlock()
}

// A seek forward within the window costs nothing, and the window is bounded.
func TestWindow(t *testing.T) {
	_, f, r := planned(t, Options{})
	for i := range int64(8) {
		readAt(t, f, i*BlockSize, BlockSize)
	}
	f.ct.c.Wait()
	came := r.sent.Load()
	if came <= 8*BlockSize || came > 32*mib {
		t.Errorf("%d bytes came", came)
	}
	asked := len(r.asked())
	readAt(t, f, came-2*BlockSize, BlockSize)
	f.ct.c.mu.Lock()
	jumps := f.ct.plan.jumps
	f.ct.c.mu.Unlock()
	if jumps > 0 {
		t.Error("a seek within the window counts as a jump")
	}
	for _, s := range r.asked()[asked:] {
		if s[0]*BlockSize < came {
			t.Errorf("blocks %v were asked for, which were there", s)
		}
	}
}

// What comes unasked is told of and given once, and it is right.
func TestFresh(t *testing.T) {
	_, f, r := planned(t, Options{Fill: 1 << 30})
	woken := make(chan struct{}, 1)
	f.Wake(func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	})
	f.Whole = true
	readAt(t, f, 5*mib, 10)
	seen := make([]bool, 32*mib/BlockSize)
	buf := make([]byte, mib)
	total := 0
	for end := time.After(5 * time.Second); total < 32*mib-(1+vicinity)*BlockSize; {
		n, off := f.Fresh(buf)
		if n == 0 {
			select {
			case <-woken:
				continue
			case <-end:
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
}

// What no program waits for is fetched behind what one does.
func TestLaterReadsWait(t *testing.T) {
	o := &origin{data: noise(mib), wait: make(chan struct{}), validator: etag}
	c := small(t, Options{Requests: 1})
	var mu sync.Mutex
	var order []string
	var wg sync.WaitGroup
	begin := func(name string, later bool) {
		f := c.Open(Key{name, mib, ""}, sourceFuncAt(func(off, n int64) (*Body, error) {
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
		time.Sleep(20 * time.Millisecond)
	}
	begin("first", true)
	begin("later", true)
	begin("wanted", true)
	begin("urgent", false)
	begin("wanted", false) // a program joins what was begun for nobody
	close(o.wait)
	wg.Wait()
	if want := []string{"first", "urgent", "wanted", "later"}; !slices.Equal(order, want) {
		t.Errorf("they were asked for as %v, and not as %v", order, want)
	}
}
