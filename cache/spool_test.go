package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// pieces makes a file of data in pieces of n bytes, and counts them.
func pieces(data []byte, n int, made *atomic.Int64) Piece {
	return func(context.Context) ([]byte, bool, error) {
		at := int(made.Add(1)-1) * n
		return bytes.Clone(data[at:min(at+n, len(data))]), at+n >= len(data), nil
	}
}

// filesBelow are the names of the regular files below dir, but for a cache's own
// books.
func filesBelow(t *testing.T, dir string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && e.Name() != "lock" && !strings.HasPrefix(e.Name(), "usage") && !strings.HasPrefix(e.Name(), "index") {
			found = append(found, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// spoolCaches are caches that keep a Spool's bytes in different places.
func spoolCaches(t *testing.T) map[string]*Cache {
	t.Helper()
	open := func(bound int64) *disk.Dir {
		d, err := disk.Open(t.TempDir(), disk.Options{Bound: bound})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	return map[string]*Cache{
		"disk":       New(Options{Disk: open(1 << 30), TempDir: filepath.Join(t.TempDir(), "none")}),
		"no disk":    New(Options{TempDir: t.TempDir()}),
		"small disk": New(Options{Disk: open(1 << 20), TempDir: t.TempDir()}), // it fills up on the way
	}
}

// TestSpoolIsReadAsItIsMade fails when readers of a file that is being made, in order
// or anywhere, get other bytes than were made, or a part of them as the whole; when a
// piece is made twice, or before anybody wants it; when a file of it is found in a
// directory; or when the room that it takes is not given back.
func TestSpoolIsReadAsItIsMade(t *testing.T) {
	t.Parallel()
	const piece = 100_000
	data := noise(5 << 20)
	for name, c := range spoolCaches(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var made atomic.Int64
			s := c.NewSpool(pieces(data, piece, &made))
			p := make([]byte, piece)
			if n, err := s.ReadAt(t.Context(), p[:10], 5); n != 10 || err != nil || !bytes.Equal(p[:10], data[5:15]) || made.Load() != 1 {
				t.Fatalf("%d, %v, after %d pieces", n, err, made.Load())
			}
			var readers sync.WaitGroup
			for k := range 8 {
				readers.Go(func() {
					rnd, p := rand.New(rand.NewPCG(1, uint64(k))), make([]byte, 3*piece)
					for range 50 {
						off := rnd.IntN(len(data) + piece)
						n, err := s.ReadAt(t.Context(), p, int64(off))
						want := data[min(off, len(data)):min(off+len(p), len(data))]
						if !bytes.Equal(p[:n], want) || (err != nil) != (n < len(p)) || (err != nil && err != io.EOF) {
							t.Errorf("%d bytes of %d at %d, %v", n, len(want), off, err)
						}
					}
				})
			}
			readers.Wait()
			size, whole, err := s.Grow(t.Context(), int64(len(data)))
			if size != int64(len(data)) || !whole || err != nil || made.Load() != int64(len(data)/piece+1) {
				t.Errorf("%d bytes, %v, %v, in %d pieces", size, whole, err, made.Load())
			}
			if m := s.Memory(); m > 2*SpoolMemory {
				t.Errorf("it takes %d bytes of memory", m)
			}
			if c.opt.Disk != nil {
				if used := c.opt.Disk.Used(); used < SpoolMemory || used > c.opt.Disk.Bound() {
					t.Errorf("%d bytes of the disk are counted", used)
				}
				if f := filesBelow(t, c.opt.Disk.Path()); len(f) > 0 {
					t.Error("there are files", f)
				}
			}
			if found, err := os.ReadDir(c.opt.TempDir); len(found) > 0 || (err != nil && !errors.Is(err, fs.ErrNotExist)) {
				t.Error("there are files", found, err)
			}
			s.Close()
			if _, err := s.ReadAt(t.Context(), p, 0); err != ErrSpoolClosed {
				t.Error(err)
			}
			for c.opt.Disk != nil && c.opt.Disk.Used() >= SpoolMemory { // the last reader gives it back
				if t.Context().Err() != nil {
					t.Fatal("the room is not given back")
				}
			}
		})
	}
}

// TestSpoolWithoutRoomIsAnError fails when a file that finds no room on any disk ends
// early without an error, or when the error does not say what to do; or when one that
// needs none, for it is small, is not there.
func TestSpoolWithoutRoomIsAnError(t *testing.T) {
	t.Parallel()
	c := New(Options{TempDir: filepath.Join(t.TempDir(), "none")})
	var made atomic.Int64
	data := noise(2 * SpoolMemory)
	s := c.NewSpool(pieces(data, SpoolMemory, &made))
	defer s.Close()
	p := make([]byte, SpoolMemory)
	if _, err := s.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, data[:len(p)]) {
		t.Error(err)
	}
	if n, err := s.ReadAt(t.Context(), p, 1); n != 0 || err == nil || err == io.EOF || !strings.Contains(err.Error(), "TMPDIR") {
		t.Error(n, err)
	}
	if _, whole, err := s.Grow(t.Context(), SpoolMemory); whole || err == nil {
		t.Error(whole, err)
	}
}

// TestSpoolIsMadeForWhoWaits fails when a file is made on for a reader that has gone,
// when a reader can't be interrupted, or when what is made for nobody is not ended.
func TestSpoolIsMadeForWhoWaits(t *testing.T) {
	t.Parallel()
	c := New(Options{TempDir: t.TempDir()})
	asked, give := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	s := c.NewSpool(func(ctx context.Context) ([]byte, bool, error) {
		asked <- struct{}{}
		select {
		case <-give:
			return []byte("line\n"), false, nil
		case <-ctx.Done():
			ended <- ctx.Err()
			return nil, false, ctx.Err()
		}
	})
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, _, err := s.Grow(ctx, 1<<40)
		left <- err
	}()
	<-asked
	give <- struct{}{}
	<-asked
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	give <- struct{}{} // the page that was asked for comes, and no other
	for s.Making() {
		select {
		case <-asked:
			t.Fatal("another page is asked for")
		default:
		}
	}
	if n, whole := s.Len(); n != 10 || whole {
		t.Error(n, whole)
	}
	go s.Grow(t.Context(), 1<<40)
	<-asked
	s.Close()
	<-ended
}
