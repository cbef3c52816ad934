package cache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// at is a Source of an origin.
type at struct {
	Source
	origin string
}

func (a at) Origin() string { return a.origin }

// tooLate is the error of a source that was waited for long enough.
type tooLate struct{}

func (tooLate) Error() string { return "no answer" }
func (tooLate) Timeout() bool { return true }

// TestSilentOriginStarvesNobody fails when readers of an origin that does not answer
// keep those of another one waiting, or fail one after the other.
func TestSilentOriginStarvesNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const patience = time.Second
		c := memoryCache(t, Options{})
		silent := at{sourceFunc(func(int64, int64) (*Body, error) {
			time.Sleep(patience)
			return nil, tooLate{}
		}), "silent"}
		begin := time.Now()
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() {
				f := c.Open(Key{fmt.Sprint(i), 10 * mib, ""}, silent, true)
				defer f.Close()
				if _, err := f.ReadAt(context.Background(), make([]byte, 10), 0); err == nil {
					t.Error("a silent origin gave bytes")
				}
				if took := time.Since(begin); took > patience*3/2 {
					t.Errorf("a reader fails after %v", took)
				}
			})
		}
		time.Sleep(patience / 10)
		healthy := &origin{data: noise(mib), validator: etag}
		f := c.Open(Key{"healthy", mib, ""}, at{healthy, "healthy"}, true)
		wantBytes(t, f, healthy.data)
		f.Close()
		if took := time.Since(begin); took > patience/10 {
			t.Errorf("the healthy origin's bytes came after %v", took)
		}
		wg.Wait()
	})
}

// TestStreamsKeepToTheLimit fails when more whole bodies come at once from an origin
// without ranges than requests may run; or when one that ended keeps its place.
func TestStreamsKeepToTheLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const limit, files, size = 8, 60, 2 * mib
		c := memoryCache(t, Options{Requests: limit})
		var now, most atomic.Int64
		src := at{sourceFunc(func(int64, int64) (*Body, error) {
			most.Store(max(most.Load(), now.Add(1)))
			return &Body{Whole: true, Total: size, ReadCloser: &slowBody{bytes.NewReader(noise(size)), &now}}, nil
		}), "stream"}
		var wg sync.WaitGroup
		for i := range files {
			wg.Go(func() {
				f := c.Open(Key{fmt.Sprint(i), size, ""}, src, true)
				defer f.Close()
				wantBytes(t, f, noise(size))
			})
		}
		wg.Wait()
		c.Wait()
		if most.Load() != limit || now.Load() != 0 {
			t.Errorf("%d bodies came at once, want %d; %d are left", most.Load(), limit, now.Load())
		}
	})
}

// slowBody is a body that takes its time, and is counted until it is closed.
type slowBody struct {
	io.Reader
	open *atomic.Int64
}

func (b *slowBody) Read(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return b.Reader.Read(p)
}

func (b *slowBody) Close() error {
	if b.open != nil {
		b.open.Add(-1)
		b.open = nil
	}
	return nil
}
