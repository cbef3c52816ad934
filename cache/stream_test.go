package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// TestStreamLeavesNoFile fails when a file that comes as one stream leaves its
// temporary file behind, is asked for twice, or is kept for ever without a
// disk.
func TestStreamLeavesNoFile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := t.TempDir()
		c := memoryCache(t, Options{TempDir: dir, Memory: 2 * mib})
		for i := range 2 {
			o := &origin{data: noise(20 * mib), whole: true}
			key := Key{fmt.Sprint(i), int64(len(o.data)), ""}
			if got := take(t, c, key, o); got.requests != 1 || got.bytes != key.Size {
				t.Errorf("a stream was read: %+v", got)
			}
			f := c.Open(key, o, true) // kept for a while after its last Close
			if got := during(c, func() { wantBytes(t, f, o.data) }); !got.diskHits(disk.BlocksOf(key.Size)) {
				t.Errorf("a stream was read again: %+v", got)
			}
			if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
				t.Errorf("a stream's file has a name on the disk: %v, %v", names, err)
			}
			f.Close()
		}
		time.Sleep(c.opt.Linger + time.Second) // of the bubble's clock
		if got := c.Stats(); got.Memory > 0 || len(c.contents) > 0 {
			t.Errorf("%d bytes of %d streams are held", got.Memory, len(c.contents))
		}
	})
}

// TestAbandonedStreamIsGivenUp fails when a stream goes on for ever after its
// last reader has gone.
func TestAbandonedStreamIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := memoryCache(t, Options{})
		data := noise(20 * mib)
		key := Key{"x", int64(len(data)), ""}
		pr, pw := io.Pipe()
		f := c.Open(key, sourceFunc(func(int64, int64) (*Body, error) {
			return &Body{ReadCloser: pr, Whole: true, Total: -1}, nil
		}), true)
		go pw.Write(data[:mib])
		readAt(t, f, 0, 10)
		f.Close()
		time.Sleep(c.opt.Linger - time.Second) // of the bubble's clock
		if got := c.Stats(); len(got.Transfers) != 1 {
			t.Errorf("the stream does not go on for %v: %+v", c.opt.Linger, got)
		}
		time.Sleep(2 * time.Second)
		if _, err := pw.Write(data); err == nil {
			t.Error("an abandoned stream's body is still open")
		}
		c.Wait()
		if len(c.contents) > 0 {
			t.Error("an abandoned stream is still held")
		}
	})
}

// TestStreamWithoutAFileIsAnError fails when a stream that finds no place for
// its temporary file gives bytes, or hangs, and does not tell why.
func TestStreamWithoutAFileIsAnError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := &origin{data: noise(20 * mib), whole: true}
		c := memoryCache(t, Options{TempDir: filepath.Join(t.TempDir(), "missing")})
		f := c.Open(Key{"x", int64(len(o.data)), ""}, o, true)
		defer f.Close()
		if _, err := f.ReadAt(context.Background(), make([]byte, 10), 0); !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	})
}

// TestRangesMayStopInMidFile fails when an origin that stops to honour ranges
// while a file is read, so that whole bodies come to several fetches at once,
// gives a wrong byte or a file that is not kept.
func TestRangesMayStopInMidFile(t *testing.T) {
	t.Parallel()
	tiers(t, func(t *testing.T, newCache cacheMaker) {
		const places = 4
		data := noise(24*mib + 5) // more than inMemory: a stream needs a file
		var n atomic.Int64
		all := make(chan struct{}) // closed when all have asked
		src := sourceFunc(func(off, size int64) (*Body, error) {
			o := &origin{data: data}
			if n.Add(1) > 1 {
				o.whole, o.wait = true, all
			}
			return o.ReadRange(context.Background(), off, size, "")
		})
		c := newCache(t, Options{})
		f := c.Open(Key{"x", int64(len(data)), ""}, src, true)
		defer f.Close()
		readAt(t, f, 0, 10)
		var wg sync.WaitGroup
		for i := range int64(places) {
			wg.Go(func() { readAt(t, f, (20-5*i)*mib, 10) })
		}
		synctest.Wait()
		if got := n.Load(); got != 1+places {
			t.Errorf("the origin was asked %d times, want %d", got, 1+places)
		}
		close(all)
		wg.Wait()
		wantBytes(t, f, data)
		if got := during(c, func() { wantBytes(t, f, data) }); !got.memoryHits(disk.BlocksOf(f.Size())) || n.Load() != 1+places {
			t.Errorf("read again: %+v", got)
		}
	})
}
