package cache

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/mlflowfs/mlflowfs/cache/limit"
)

// store is a source with a validator, sums and faults.
type store struct {
	origin
	validator string
	sums      Sums
	fail      func(off int64) error // before an answer
	cut       func(off int64) int64 // how much of an answer comes; -1 all
}

func (s *store) ReadRange(ctx context.Context, off, n int64, validator string) (*Body, error) {
	if validator != "" && validator != s.validator {
		return nil, ErrChanged
	}
	if s.fail != nil {
		if err := s.fail(off); err != nil {
			return nil, err
		}
	}
	b, err := s.origin.ReadRange(ctx, off, n, validator)
	if err != nil {
		return nil, err
	}
	b.Validator, b.Sums = s.validator, s.sums
	if s.cut != nil {
		if at := s.cut(off); at >= 0 {
			b.ReadCloser = struct {
				io.Reader
				io.Closer
			}{io.LimitReader(b.ReadCloser, at), b.ReadCloser}
		}
	}
	return b, nil
}

func newStore(data []byte) *store {
	sum, crc := md5.Sum(data), crc32.Checksum(data, castagnoli)
	return &store{origin: origin{data: data}, validator: "v1", sums: Sums{MD5: sum[:], CRC32C: &crc}}
}

// downloader downloads into a directory of its own.
func downloader(t *testing.T) (d *Downloader, dir string, came *atomic.Int64) {
	t.Helper()
	dir = t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	came = &atomic.Int64{}
	return &Downloader{Root: root, Parallel: 3, Limit: limit.New(4, 4), Progress: func(n int64) { came.Add(n) }}, dir, came
}

// left are the names in dir.
func left(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestDownloadGivesTheWholeFile fails when a downloaded file has a wrong byte
// or length, leaves another file beside it, is asked for twice, or when the
// progress bar does not end at its size.
func TestDownloadGivesTheWholeFile(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 1000, pieceSize, pieceSize + 1, 2*pieceSize + 7} { // up to three pieces: the first alone, then all others
		for name, whole := range origins() {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					data := noise(size)
					s := newStore(data)
					s.whole = whole
					d, dir, came := downloader(t)
					if err := os.WriteFile(filepath.Join(dir, "f"), []byte("an older file"), 0o644); err != nil {
						t.Fatal(err)
					}
					if err := d.Download(t.Context(), Key{"x", int64(size), ""}, s, "f"); err != nil {
						t.Fatal(err)
					}
					got, err := os.ReadFile(filepath.Join(dir, "f"))
					if err != nil || !bytes.Equal(got, data) || len(left(t, dir)) != 1 || came.Load() != int64(size) {
						t.Errorf("%v, %v is there, progress says %d", err, left(t, dir), came.Load())
					}
					requests := int64(size+pieceSize-1) / pieceSize
					if whole {
						requests = min(requests, 1)
					}
					if s.asked.Load() != requests || s.sent.Load() != int64(size) {
						t.Errorf("%d requests and %d bytes, want %d and %d", s.asked.Load(), s.sent.Load(), requests, size)
					}
				})
			})
		}
	}
}

// TestDownloadResumesBrokenAnswers fails when a connection that breaks ends a
// download, gives a wrong byte, or has more sent again than a stream needs:
// ranges go on where they ended, whole bodies from the start.
func TestDownloadResumesBrokenAnswers(t *testing.T) {
	t.Parallel()
	const size = 2*pieceSize + 100
	const cut = pieceSize + 5 // of a whole body
	for name, c := range map[string]struct {
		whole          bool
		breaks         int64
		at             int64 // bytes that come of an answer
		requests, sent int64
	}{
		"ranged": {false, 5, 3<<20 + 1, 3 + 5, size},
		"stream": {true, 2, cut, 1 + 2, size + 2*cut},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newStore(noise(size))
				s.whole = c.whole
				s.cut = func(int64) int64 {
					if s.asked.Load() > c.breaks {
						return -1
					}
					return c.at
				}
				d, dir, came := downloader(t)
				d.Parallel = 1 // each of the first answers breaks
				err := d.Download(t.Context(), Key{"x", size, "v1"}, s, "f")
				got, rerr := os.ReadFile(filepath.Join(dir, "f"))
				if err != nil || rerr != nil || !bytes.Equal(got, s.data) || came.Load() != size {
					t.Errorf("%v, %v, progress says %d of %d", err, rerr, came.Load(), size)
				}
				if s.asked.Load() != c.requests || s.sent.Load() != c.sent {
					t.Errorf("%d requests and %d bytes, want %d and %d", s.asked.Load(), s.sent.Load(), c.requests, c.sent)
				}
			})
		})
	}
}

// TestInterruptedDownloadIsResumed fails when a download that was interrupted
// fetches pieces again that it has, takes up ones that were changed on the disk
// or are of another content, or leaves a credential in its partial file.
func TestInterruptedDownloadIsResumed(t *testing.T) {
	t.Parallel()
	const size = 2*pieceSize + 9 // three pieces: two come before the interruption
	data := noise(size)
	other := bytes.Clone(data)
	other[0]++
	key := Key{"https://host/x?sig=s3cret", size, ""}
	for name, c := range map[string]struct {
		meanwhile func(part string) error
		data      []byte // that the origin has then
		validator string
		sent      int64 // bytes, by the second download
	}{
		"as it was":       {func(string) error { return nil }, data, "v1", 9},
		"changed on disk": {func(part string) error { return flipBit(part, 5) }, data, "v1", pieceSize + 9},
		"cut on disk":     {func(part string) error { return os.Truncate(part, 100) }, data, "v1", size},
		"another content": {func(string) error { return nil }, other, "v2", size},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				d, dir, came := downloader(t)
				errGone := errors.New("gone")
				s := newStore(data)
				s.fail = func(off int64) error {
					if off == 2*pieceSize {
						return errGone
					}
					return nil
				}
				d.Parallel = 1
				if err := d.Download(t.Context(), key, s, "f"); !errors.Is(err, errGone) {
					t.Fatal(err)
				}
				names := left(t, dir)
				if len(names) != 1 || !strings.HasPrefix(names[0], ".mlflowfs-") {
					t.Fatal(names)
				}
				part := filepath.Join(dir, names[0])
				if b, err := os.ReadFile(part); err != nil || bytes.Contains(b, []byte("s3cret")) {
					t.Errorf("the partial file holds what its location does: %v", err)
				}
				if err := c.meanwhile(part); err != nil {
					t.Fatal(err)
				}

				came.Store(0)
				s = newStore(c.data)
				s.validator = c.validator
				err := d.Download(t.Context(), key, s, "f")
				got, rerr := os.ReadFile(filepath.Join(dir, "f"))
				if err != nil || rerr != nil || !bytes.Equal(got, c.data) || len(left(t, dir)) != 1 {
					t.Errorf("%v, %v, %v", err, rerr, left(t, dir))
				}
				if n := s.sent.Load(); n != c.sent || came.Load() != size {
					t.Errorf("%d bytes were sent, want %d; progress says %d", n, c.sent, came.Load())
				}
			})
		})
	}
}

// TestWrongContentIsNeverDownloaded fails when a file that is not what the
// origin says of it gets its final name, or stays beside it.
func TestWrongContentIsNeverDownloaded(t *testing.T) {
	t.Parallel()
	const size = pieceSize + 1 // two pieces: what comes could be resumed
	wrong := crc32.Checksum([]byte("x"), castagnoli)
	for name, c := range map[string]struct {
		bend func(*store)
		want error
	}{
		"an MD5":    {func(s *store) { s.sums = Sums{MD5: make([]byte, 16)} }, ErrDamaged},
		"a CRC32C":  {func(s *store) { s.sums = Sums{CRC32C: &wrong} }, ErrDamaged},
		"a size":    {func(s *store) { s.data = s.data[1:] }, ErrChanged},
		"too long":  {func(s *store) { s.whole, s.extra, s.total = true, 1, -1 }, ErrChanged},
		"a version": {func(s *store) { s.validator = "v2" }, ErrChanged},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				d, dir, _ := downloader(t)
				s := newStore(noise(size))
				c.bend(s)
				if err := d.Download(t.Context(), Key{"x", size, "v1"}, s, "f"); !errors.Is(err, c.want) {
					t.Errorf("got %v", err)
				}
				if names := left(t, dir); len(names) > 0 {
					t.Errorf("left is %v", names)
				}
			})
		})
	}
}

// TestDownloadsOfOneFileDoNotMix fails when two downloads of one file at once
// write into each other's file.
func TestDownloadsOfOneFileDoNotMix(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d, dir, _ := downloader(t)
		s := newStore(noise(100))
		s.wait = make(chan struct{})
		key := Key{"x", 100, ""}
		first := make(chan error)
		go func() { first <- d.Download(t.Context(), key, s, "f") }()
		synctest.Wait() // until it waits for the answer
		if err := d.Download(t.Context(), key, s, "f"); err == nil || !strings.Contains(err.Error(), "another mlflowfs") {
			t.Error(err)
		}
		close(s.wait)
		if err := <-first; err != nil || len(left(t, dir)) != 1 || s.asked.Load() != 1 {
			t.Errorf("%v, %v, %d requests", err, left(t, dir), s.asked.Load())
		}
	})
}

// TestFinishedPiecesAreAskedAfter fails when a download that was killed
// after its last piece gives the file that was there then, though the origin has
// another by now.
func TestFinishedPiecesAreAskedAfter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const size = 2*pieceSize + 9
		data := noise(size)
		other := bytes.Clone(data)
		other[0]++
		key := Key{"x", size, ""}
		d, dir, _ := downloader(t)
		d.Parallel = 1
		var part string
		var killed []byte // the partial file, as a kill leaves it when all pieces are there
		first := newStore(data)
		last := sourceFunc(func(off, n int64) (*Body, error) {
			b, err := first.ReadRange(t.Context(), off, n, "")
			if err == nil && off == 2*pieceSize { // its body is closed when all is noted
				b.ReadCloser = closing{b.ReadCloser, func() {
					part = filepath.Join(dir, left(t, dir)[0])
					killed, _ = os.ReadFile(part)
				}}
			}
			return b, err
		})
		if err := d.Download(t.Context(), key, last, "f"); err != nil || len(killed) <= size {
			t.Fatalf("%v, %d bytes", err, len(killed))
		}
		if err := os.WriteFile(part, killed, 0o600); err != nil {
			t.Fatal(err)
		}
		s := newStore(other)
		s.validator = "v2"
		if err := d.Download(t.Context(), key, s, "f"); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || !bytes.Equal(got, other) {
			t.Errorf("it is not what the origin has, %v", err)
		}
	})
}

// closing is a body that tells when it is closed.
type closing struct {
	io.ReadCloser
	closed func()
}

func (c closing) Close() error {
	c.closed()
	return c.ReadCloser.Close()
}

// TestCompleteDownloadIsAskedFor fails when a download that was interrupted
// behind its last piece is taken for whole though its origin has another content
// now, or is fetched again though it has not.
func TestCompleteDownloadIsAskedFor(t *testing.T) {
	t.Parallel()
	const size = pieceSize + 9
	for name, c := range map[string]struct {
		validator string
		sent      int64
	}{"as it was": {"v1", pieceSize}, "another content": {"v2", size}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				d, dir, came := downloader(t)
				s := newStore(noise(size))
				ctx, cancel := context.WithCancel(t.Context())
				d.Progress = func(n int64) {
					if came.Add(n) == size { // the last bytes came, and the checksum is waited for
						cancel()
						synctest.Wait()
					}
				}
				key := Key{"x", size, ""}
				if err := d.Download(ctx, key, s, "f"); !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				d.Progress = nil
				s = newStore(noise(size + 1)[1:])
				if c.validator == "v1" {
					s = newStore(noise(size))
				}
				s.validator = c.validator
				if err := d.Download(t.Context(), key, s, "f"); err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(dir + "/f"); err != nil || string(got) != string(s.data) {
					t.Errorf("%d bytes, %v: not what the origin has now", len(got), err)
				}
				if n := s.sent.Load(); n != c.sent {
					t.Errorf("%d bytes were sent, want %d", n, c.sent)
				}
			})
		})
	}
}
