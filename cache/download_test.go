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

	"github.com/cespare/xxhash/v2"

	"github.com/mlflowfs/mlflowfs/cache/disk"
	"github.com/mlflowfs/mlflowfs/cache/limit"
)

// large is the size up to which a file has no record.
const large = disk.PartBytes

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
	sum, crc := md5.Sum(data), crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
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
	for _, size := range []int{0, 1, 1000, large, large + 1, 2*large + 7} {
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
					most := int64(size)/(2*mib) + 3 // head, tail, and what is between
					if whole {
						most = 1
					}
					if s.asked.Load() > most || s.sent.Load() != int64(size) {
						t.Errorf("%d requests and %d bytes, want at most %d, and %d", s.asked.Load(), s.sent.Load(), most, size)
					}
				})
			})
		}
	}
}

// TestDownloadResumesBrokenAnswers fails when a connection that breaks ends a
// download, gives a wrong byte, or has more sent again than a block of a range:
// whole bodies come from the start.
func TestDownloadResumesBrokenAnswers(t *testing.T) {
	t.Parallel()
	const size = 2*large + 100
	const cut = large + 5 // of a whole body
	for name, c := range map[string]struct {
		whole       bool
		breaks      int64
		at          int64 // bytes that come of an answer
		least, most int64 // bytes that are sent
	}{
		"ranged": {false, 5, 1<<20 + 1, size + 1, size + 5*BlockSize},
		"stream": {true, 2, cut, size + 2*cut, size + 2*cut},
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
				if n := s.sent.Load(); n < c.least || n > c.most {
					t.Errorf("%d bytes were sent, want %d to %d", n, c.least, c.most)
				}
			})
		})
	}
}

// partOf gives the files of the only download in dir that was interrupted, and how
// many bytes the next one need not ask for.
func partOf(t *testing.T, d *Downloader, dir string, key Key) (data, record string, there int64) {
	t.Helper()
	for _, n := range left(t, dir) {
		switch filepath.Ext(n) {
		case ".part":
			data = n
		case ".rec":
			record = n
		default:
			t.Fatalf("left is %s", n)
		}
	}
	p, err := disk.OpenPart(d.Root, data, record)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	f, err := p.Find(disk.Key(key))
	if err != nil || f == nil {
		t.Fatal("nothing is there to be resumed", err)
	}
	defer f.Close()
	return filepath.Join(dir, data), filepath.Join(dir, record), f.Bytes()
}

// TestInterruptedDownloadIsResumed fails when a download that was interrupted
// fetches blocks again that it has, takes up ones that were changed on the disk
// or are of another content, or leaves a credential in its files.
func TestInterruptedDownloadIsResumed(t *testing.T) {
	t.Parallel()
	const size = 2*large + 9
	data := noise(size)
	other := bytes.Clone(data)
	other[0]++
	key := Key{"https://host/x?sig=s3cret", size, ""}
	for name, c := range map[string]struct {
		meanwhile func(part, record string) error
		data      []byte // that the origin has then
		validator string
		again     int64 // bytes that are there and of no use; -1: all
	}{
		"as it was":       {func(_, _ string) error { return nil }, data, "v1", 0},
		"changed on disk": {func(part, _ string) error { return flipBit(part, BlockSize+5) }, data, "v1", BlockSize},
		"marks changed":   {func(_, record string) error { return flipBit(record, headSize+8+3) }, data, "v1", BlockSize},
		"head changed":    {func(_, record string) error { return flipBit(record, 20) }, data, "v1", -1},
		"cut on disk":     {func(part, _ string) error { return os.Truncate(part, 100) }, data, "v1", -1},
		"no record":       {func(_, record string) error { return os.Remove(record) }, data, "v1", -1},
		"another content": {func(_, _ string) error { return nil }, other, "v2", -1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				d, dir, came := downloader(t)
				errGone := errors.New("gone")
				s := newStore(data)
				s.fail = func(off int64) error {
					if off >= large {
						return errGone
					}
					return nil
				}
				if err := d.Download(t.Context(), key, s, "f"); !errors.Is(err, errGone) {
					t.Fatal(err)
				}
				part, record, there := partOf(t, d, dir, key)
				if there < large-BlockSize {
					t.Errorf("%d bytes were kept of %d", there, s.sent.Load())
				}
				for _, f := range []string{part, record} {
					if b, err := os.ReadFile(f); err != nil || bytes.Contains(b, []byte("s3cret")) {
						t.Errorf("%s holds what its location does: %v", f, err)
					}
				}
				if err := c.meanwhile(part, record); err != nil {
					t.Fatal(err)
				}
				want := size - there + c.again
				if c.again < 0 {
					want = size
				}

				came.Store(0)
				s = newStore(c.data)
				s.validator = c.validator
				err := d.Download(t.Context(), key, s, "f")
				got, rerr := os.ReadFile(filepath.Join(dir, "f"))
				if err != nil || rerr != nil || !bytes.Equal(got, c.data) || len(left(t, dir)) != 1 {
					t.Errorf("%v, %v, %v", err, rerr, left(t, dir))
				}
				if n := s.sent.Load(); n != want || came.Load() != size {
					t.Errorf("%d bytes were sent, want %d; progress says %d", n, want, came.Load())
				}
			})
		})
	}
}

// TestWrongContentIsNeverDownloaded fails when a file that is not what the
// origin says of it gets its final name, or stays beside it.
func TestWrongContentIsNeverDownloaded(t *testing.T) {
	t.Parallel()
	const size = large + 1 // two pieces: what comes could be resumed
	wrong := uint32(1)
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

// TestCompleteDownloadIsAskedFor fails when a download that was killed
// behind its last block is taken for whole though its origin has another content
// now, or is fetched again though it has not.
func TestCompleteDownloadIsAskedFor(t *testing.T) {
	t.Parallel()
	const size = large + 9
	for name, c := range map[string]struct {
		validator string
		sent      int64
	}{"as it was": {"v1", BlockSize}, "another content": {"v2", size}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				d, dir, came := downloader(t)
				s := newStore(noise(size))
				killed := map[string][]byte{} // the files, as a kill leaves them
				d.Progress = func(n int64) {
					if came.Add(n) < size {
						return
					}
					synctest.Wait() // all is written
					for _, f := range left(t, dir) {
						killed[f], _ = os.ReadFile(filepath.Join(dir, f))
					}
				}
				key := Key{"x", size, ""}
				if err := d.Download(t.Context(), key, s, "f"); err != nil || len(killed) != 2 {
					t.Fatal(err, len(killed))
				}
				for f, b := range killed {
					if err := os.WriteFile(filepath.Join(dir, f), b, 0o600); err != nil {
						t.Fatal(err)
					}
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

// TestDownloadThatCantBeWrittenSaysSo fails when a download whose file can't be
// made ends well, or does not tell why.
func TestDownloadThatCantBeWrittenSaysSo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d, dir, _ := downloader(t)
		s := newStore(noise(2 * large))
		blocked := fmt.Sprintf(".mlflowfs-%016x.rec", xxhash.Sum64String("f"))
		if err := os.MkdirAll(filepath.Join(dir, blocked, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		err := d.Download(t.Context(), Key{"x", 2 * large, ""}, s, "f")
		if _, serr := os.Stat(filepath.Join(dir, "f")); err == nil || serr == nil || !strings.Contains(err.Error(), blocked) {
			t.Errorf("%v, %v", err, left(t, dir))
		}
	})
}
