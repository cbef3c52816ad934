package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// origin is a Source over known bytes, with the faults that a test asks for.
type origin struct {
	data []byte

	whole     bool            // answers every request with the whole file
	validator func() string   // of each answer
	total     int64           // claimed; 0: the truth
	cut       func(n int) int // how many of an answer's n bytes come
	extra     int             // bytes too many behind a whole body
	wait      chan struct{}   // each answer waits until it is closed
	err       error           // each answer

	asked atomic.Int64 // requests
	sent  atomic.Int64 // bytes
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
		part = append(bytes.Clone(o.data), make([]byte, o.extra)...)
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
	b.ReadCloser = io.NopCloser(io.TeeReader(bytes.NewReader(part), counter{&o.sent}))
	return b, nil
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

const mib = 1 << 20

// withDisk has small give every cache a disk tier, too.
var withDisk bool

func small(t *testing.T, opt Options) *Cache {
	t.Helper()
	opt.TempDir = t.TempDir()
	opt.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	if withDisk {
		opt.Disk = diskAt(t, t.TempDir(), 10<<30)
	}
	return New(opt)
}

func diskAt(t *testing.T, dir string, bound int64) *Disk {
	t.Helper()
	d, err := OpenDisk(dir, bound, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// What holds for memory alone holds with a disk tier below it.
func TestWithDisk(t *testing.T) {
	withDisk = true
	defer func() { withDisk = false }()
	for name, f := range map[string]func(*testing.T){
		"ManyReadersOneFetch": TestManyReadersOneFetch, "RandomReads": TestRandomReads, "SmallReadMovesLittle": TestSmallReadMovesLittle,
		"InterruptedReaderLetsGo": TestInterruptedReaderLetsGo, "BodyThatBreaksOffIsResumed": TestBodyThatBreaksOffIsResumed,
		"ShortBodyIsNeverTheFile": TestShortBodyIsNeverTheFile, "ChangedContent": TestChangedContent, "ErrorIsNotKept": TestErrorIsNotKept,
		"PanicOfASourceIsAnError": TestPanicOfASourceIsAnError, "RangesThatStop": TestRangesThatStop, "ForgottenWhileWaiting": TestForgottenWhileWaiting,
		"ContentThatMayChange": TestContentThatMayChangeGoesWithItsLastHandle,
	} {
		t.Run(name, f)
	}
}

// readAll reads the file in the kernel's pieces.
func readAll(t *testing.T, f *File) []byte {
	t.Helper()
	out := make([]byte, f.Size())
	for off := 0; off < len(out); off += 128 << 10 {
		p := out[off:min(off+128<<10, len(out))]
		if n, err := f.ReadAt(context.Background(), p, int64(off)); n != len(p) || (err != nil && err != io.EOF) {
			t.Errorf("%d bytes from %d: got %d and %v", len(p), off, n, err)
			break
		}
	}
	return out
}

// shapes are the kinds of origin that a real server can be.
func shapes(data []byte) map[string]*origin {
	return map[string]*origin{"ranged": {data: data}, "stream": {data: data, whole: true}}
}

func TestManyReadersOneFetch(t *testing.T) {
	for _, size := range []int{1, BlockSize, mib, 3*mib + 7, 40*mib + 1} {
		for name, o := range shapes(noise(size)) {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				c := small(t, Options{})
				var wg sync.WaitGroup
				for range 16 {
					wg.Go(func() {
						f := c.Open(Key{"x", int64(size), ""}, o, true)
						defer f.Close()
						if !bytes.Equal(readAll(t, f), o.data) {
							t.Error("wrong bytes")
						}
					})
				}
				wg.Wait()
				if got := o.sent.Load(); got != int64(size) {
					t.Errorf("the origin sent %d bytes for a file of %d", got, size)
				}
				if o.whole && o.asked.Load() != 1 {
					t.Errorf("a stream was asked for %d times", o.asked.Load())
				}
			})
		}
	}
}

func TestRandomReads(t *testing.T) {
	const size = 50*mib + 123
	for name, o := range shapes(noise(size)) {
		t.Run(name, func(t *testing.T) {
			// The cache holds a fifth of the file, so that blocks come and go.
			c := small(t, Options{Memory: 10 * mib})
			var wg sync.WaitGroup
			for seed := range uint64(8) {
				wg.Go(func() {
					r := rand.New(rand.NewPCG(seed, 1))
					f := c.Open(Key{"x", size, ""}, o, true)
					defer f.Close()
					buf := make([]byte, 3*mib)
					for range 30 {
						p := buf[:1+r.IntN(len(buf)-1)]
						off := r.Int64N(size + 10)
						n, err := f.ReadAt(context.Background(), p, off)
						want := o.data[min(off, size):min(off+int64(len(p)), size)]
						if n != len(want) || !bytes.Equal(p[:n], want) {
							t.Errorf("seed %d: %d bytes from %d: got %d, or other ones", seed, len(p), off, n)
						}
						if (err == io.EOF) != (n < len(p)) || (err != nil && err != io.EOF) {
							t.Errorf("seed %d: %v", seed, err)
						}
					}
				})
			}
			wg.Wait()
			if c.Held() > 10*mib {
				t.Errorf("%d bytes are held", c.Held())
			}
			if o.whole && o.asked.Load() != 1 {
				t.Errorf("the stream was asked for %d times", o.asked.Load())
			}
		})
	}
}

func TestSmallReadMovesLittle(t *testing.T) {
	o := &origin{data: make([]byte, 300*mib)}
	f := small(t, Options{}).Open(Key{"x", int64(len(o.data)), ""}, o, true)
	defer f.Close()
	if _, err := f.ReadAt(context.Background(), make([]byte, 1024), 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if got := o.sent.Load(); got > BlockSize {
		t.Errorf("1 KiB moved %d bytes", got)
	}
}

func TestInterruptedReaderLetsGo(t *testing.T) {
	for name, o := range shapes(noise(20 * mib)) {
		t.Run(name, func(t *testing.T) {
			o.wait = make(chan struct{})
			f := small(t, Options{}).Open(Key{"x", int64(len(o.data)), ""}, o, true)
			defer f.Close()
			gone := errors.New("gone")
			ctx, cancel := context.WithCancelCause(context.Background())
			time.AfterFunc(20*time.Millisecond, func() { cancel(gone) })
			if _, err := f.ReadAt(ctx, make([]byte, 10), 5*mib); !errors.Is(err, gone) {
				t.Fatalf("the reader got %v", err)
			}
			close(o.wait) // the fetch went on without it
			if !bytes.Equal(readAll(t, f), o.data) {
				t.Error("wrong bytes")
			}
			if got := o.sent.Load(); got != int64(len(o.data)) {
				t.Errorf("the origin sent %d bytes: the fetch was given up", got)
			}
		})
	}
}

func TestBodyThatBreaksOffIsResumed(t *testing.T) {
	for name, o := range shapes(noise(24 * mib)) {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int64
			o.cut = func(want int) int { // the first answers break off, later and later
				if i := n.Add(1); i <= 3 {
					return min(want, int(i)*mib*3/2)
				}
				return want
			}
			f := small(t, Options{}).Open(Key{"x", int64(len(o.data)), ""}, o, true)
			defer f.Close()
			if !bytes.Equal(readAll(t, f), o.data) {
				t.Error("wrong bytes")
			}
		})
	}
}

func TestShortBodyIsNeverTheFile(t *testing.T) {
	for _, size := range []int{mib / 2, 20 * mib} {
		for name, o := range shapes(noise(size)) {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				o.cut = func(n int) int { return n / 2 }
				if o.whole { // no Content-Length: nothing but the end of the body tells
					o.total = -1
				}
				f := small(t, Options{}).Open(Key{"x", int64(size), ""}, o, true)
				defer f.Close()
				if n, err := f.ReadAt(context.Background(), make([]byte, 10), int64(size)-10); err == nil || err == io.EOF || n != 0 {
					t.Errorf("a body of half the length gave %d bytes and %v", n, err)
				}
			})
		}
	}
}

func TestChangedContent(t *testing.T) {
	data := noise(20 * mib)
	var n atomic.Int64
	for name, o := range map[string]*origin{
		"size":                  {data: data, total: 5},
		"size of a stream":      {data: data, total: 5, whole: true},
		"longer stream":         {data: data, total: -1, whole: true, extra: 1},
		"longer small stream":   {data: data[:100], total: -1, whole: true, extra: 1},
		"validator":             {data: data, validator: func() string { return fmt.Sprint(n.Add(1)) }},
		"other bytes on resume": {data: data, whole: true, cut: func(n int) int { return n / 2 }},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "other bytes on resume" {
				first := o.cut
				o.cut = func(n int) int {
					if o.asked.Load() > 1 {
						o.data = noise(20 * mib)
						o.data[0]++
					}
					return first(n)
				}
			}
			c := small(t, Options{})
			f := c.Open(Key{"x", int64(len(o.data)), ""}, o, true)
			var err error
			for i := range int64(3) { // two answers, at least
				if _, e := f.ReadAt(context.Background(), make([]byte, 10), min(i*9*mib, f.Size()-10)); e != nil {
					err = e
				}
			}
			if err == nil { // a stream is judged at its end
				_, err = f.ReadAt(context.Background(), make([]byte, 10), f.Size()-10)
			}
			for end := time.Now().Add(3 * time.Second); err == nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				_, err = f.ReadAt(context.Background(), make([]byte, 10), 0)
			}
			if !errors.Is(err, ErrChanged) {
				t.Fatalf("got %v", err)
			}
			f.Close()
			held := func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				return len(c.contents) != 0 || c.held != 0 || files(t, c) != 0
			}
			for end := time.Now().Add(3 * time.Second); held(); time.Sleep(time.Millisecond) { // a stream drops it itself
				if time.Now().After(end) {
					t.Fatal("the changed content is still held")
				}
			}
		})
	}
}

func TestErrorIsNotKept(t *testing.T) {
	o := &origin{data: noise(10), err: errors.New("down")}
	f := small(t, Options{}).Open(Key{"x", 10, ""}, o, true)
	defer f.Close()
	if _, err := f.ReadAt(context.Background(), make([]byte, 10), 0); err == nil || err.Error() != "down" {
		t.Fatal(err)
	}
	o.err = nil
	if !bytes.Equal(readAll(t, f), o.data) {
		t.Error("wrong bytes")
	}
}

func TestPanicOfASourceIsAnError(t *testing.T) {
	o := &origin{data: noise(10), cut: func(int) int { panic("boo") }}
	f := small(t, Options{}).Open(Key{"x", 10, ""}, o, true)
	defer f.Close()
	if _, err := f.ReadAt(context.Background(), make([]byte, 10), 0); err == nil || !strings.Contains(err.Error(), "boo") {
		t.Fatal(err)
	}
}

func TestContentThatMayChangeGoesWithItsLastHandle(t *testing.T) {
	o := &origin{data: noise(3 * mib)}
	c := small(t, Options{})
	key := Key{"x", int64(len(o.data)), ""}
	a, b := c.Open(key, o, false), c.Open(key, o, false)
	readAll(t, a)
	a.Close()
	readAll(t, b)
	if o.sent.Load() != int64(len(o.data)) {
		t.Error("two handles at once did not share")
	}
	b.Close()
	b.Close() // a second Close does nothing
	if c.Held() != 0 || len(c.contents) != 0 {
		t.Errorf("%d bytes of %d contents are held", c.Held(), len(c.contents))
	}
}

// A content that is forgotten while its first answer is awaited asks no more.
func TestForgottenWhileWaiting(t *testing.T) {
	for name, o := range shapes(noise(20 * mib)) {
		o.wait = make(chan struct{})
		c := small(t, Options{})
		f := c.Open(Key{"x", int64(len(o.data)), ""}, o, false)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		if _, err := f.ReadAt(ctx, make([]byte, 10), 0); err == nil {
			t.Fatal("no wait")
		}
		cancel()
		f.Close()
		close(o.wait)
		time.Sleep(100 * time.Millisecond)
		if n := o.asked.Load(); n != 1 || c.Held() != 0 || files(t, c) != 0 {
			t.Errorf("%s: %d requests, %d bytes, %d files", name, n, c.Held(), files(t, c))
		}
	}
}

// An origin that stops to honour ranges in mid-file sends bodies that come
// whole to several fetches at once.
func TestRangesThatStop(t *testing.T) {
	o := &origin{data: noise(60*mib + 5)}
	var n atomic.Int64
	c := small(t, Options{})
	src := sourceFuncAt(func(off, size int64) (*Body, error) {
		o2 := &origin{data: o.data, whole: n.Add(1) > 2}
		return o2.ReadRange(context.Background(), off, size, "")
	})
	f := c.Open(Key{"x", int64(len(o.data)), ""}, src, true)
	if !bytes.Equal(readAll(t, f), o.data) {
		t.Error("wrong bytes")
	}
	f.Close()
	c.Wait()
}

type sourceFuncAt func(off, n int64) (*Body, error)

func (f sourceFuncAt) ReadRange(_ context.Context, off, n int64, _ string) (*Body, error) {
	return f(off, n)
}

// files is how many contents the disk tier of c has.
func files(t *testing.T, c *Cache) int {
	if c.opt.Disk == nil {
		return 0
	}
	found, _, err := c.opt.Disk.scan()
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

func TestStreamInATemporaryFile(t *testing.T) {
	dir := t.TempDir()
	data := noise(20 * mib)
	c := New(Options{TempDir: dir, Memory: 2 * mib, Linger: 50 * time.Millisecond})
	open := func(name string, o *origin) *File { return c.Open(Key{name, int64(len(data)), ""}, o, true) }
	for i := range 2 {
		o := &origin{data: data, whole: true}
		f := open(fmt.Sprint(i), o)
		readAll(t, f)
		f.Close()
		f = open(fmt.Sprint(i), o) // kept for a while after its last Close
		readAll(t, f)
		f.Close()
		if o.asked.Load() != 1 {
			t.Errorf("a stream was asked for %d times", o.asked.Load())
		}
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
	if len(left)+len(hidden) > 0 {
		t.Error("a stream's file has a name on the disk")
	}

	// A stream whose readers went is given up after a while.
	slow := &origin{data: data, whole: true}
	pr, pw := io.Pipe()
	f := open("slow", nil)
	f.ct.src = sourceFunc(func() (*Body, error) {
		slow.asked.Add(1)
		return &Body{ReadCloser: pr, Whole: true, Total: -1}, nil
	})
	go pw.Write(data[:mib])
	if _, err := f.ReadAt(context.Background(), make([]byte, 10), 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for end := time.Now().Add(3 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c.mu.Lock()
		held := c.contents[Key{"slow", int64(len(data)), ""}] != nil
		c.mu.Unlock()
		if !held {
			break
		}
		if time.Now().After(end) {
			t.Fatal("an abandoned stream goes on")
		}
	}
	if _, err := pw.Write(data); err == nil {
		t.Error("an abandoned stream's body is still open")
	}
}

type sourceFunc func() (*Body, error)

func (f sourceFunc) ReadRange(context.Context, int64, int64, string) (*Body, error) { return f() }

func TestNoRoomForAStream(t *testing.T) {
	o := &origin{data: noise(20 * mib), whole: true}
	c := New(Options{TempDir: filepath.Join(t.TempDir(), "missing")})
	f := c.Open(Key{"x", int64(len(o.data)), ""}, o, true)
	defer f.Close()
	if _, err := f.ReadAt(context.Background(), make([]byte, 10), 0); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}
