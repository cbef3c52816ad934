package cache

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
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
	return &Downloader{Root: root, Parallel: 3, Slots: make(chan struct{}, 4), Progress: func(n int64) { came.Add(n) }}, dir, came
}

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

func TestDownload(t *testing.T) {
	for _, size := range []int{0, 1, 1000, pieceSize, pieceSize + 1, 3*pieceSize + 7} {
		for _, whole := range []bool{false, true} {
			data := noise(size)
			s := newStore(data)
			s.whole = whole
			d, dir, came := downloader(t)
			if err := os.WriteFile(filepath.Join(dir, "f"), []byte("an older file"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := d.Download(t.Context(), Key{"x", int64(size), ""}, s, "f"); err != nil {
				t.Errorf("%d bytes, whole %v: %v", size, whole, err)
				continue
			}
			got, err := os.ReadFile(filepath.Join(dir, "f"))
			if err != nil || !bytes.Equal(got, data) || len(left(t, dir)) != 1 || came.Load() != int64(size) {
				t.Errorf("%d bytes, whole %v: %v, %v is there, progress says %d", size, whole, err, left(t, dir), came.Load())
			}
			if whole && size > 0 && s.asked.Load() != 1 {
				t.Errorf("a whole body was asked for %d times", s.asked.Load())
			}
		}
	}
}

// Answers that break off are taken up where they ended; whole ones from the
// start.
func TestDownloadOfBrokenAnswers(t *testing.T) {
	for _, whole := range []bool{false, true} {
		data := noise(2*pieceSize + 100)
		s := newStore(data)
		s.whole = whole
		var cuts atomic.Int64
		s.cut = func(int64) int64 {
			if cuts.Add(1) > 5 {
				return -1
			}
			return 3<<20 + cuts.Load()
		}
		d, dir, came := downloader(t)
		if whole {
			s.cut = func(int64) int64 {
				if cuts.Add(1) > 2 {
					return -1
				}
				return pieceSize + 5
			}
		}
		err := d.Download(t.Context(), Key{"x", int64(len(data)), "v1"}, s, "f")
		got, rerr := os.ReadFile(filepath.Join(dir, "f"))
		if err != nil || rerr != nil || !bytes.Equal(got, data) || came.Load() != int64(len(data)) {
			t.Errorf("whole %v: %v, %v, progress says %d of %d", whole, err, rerr, came.Load(), len(data))
		}
	}
}

// What was there whole when a download ended is not asked for again, unless
// it was changed on the disk, or is of another content.
func TestDownloadGoesOn(t *testing.T) {
	data := noise(4*pieceSize + 9)
	key := Key{"https://host/x?sig=s3cret", int64(len(data)), ""}
	errGone := errors.New("gone")
	begun := func(d *Downloader) {
		t.Helper()
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
	}
	for name, c := range map[string]struct {
		meanwhile func(part string)
		store     *store
		most      int64 // bytes that may be sent
	}{
		"as it was":       {func(string) {}, newStore(data), 3*pieceSize + 9},
		"changed on disk": {func(part string) { flip(t, part, 5) }, newStore(data), 4*pieceSize + 9},
		"cut on disk":     {func(part string) { os.Truncate(part, 100) }, newStore(data), 5 * pieceSize},
		"another content": {func(string) {}, newStore(noise(len(data) + 1)[1:]), 5 * pieceSize},
	} {
		t.Run(name, func(t *testing.T) {
			d, dir, came := downloader(t)
			begun(d)
			names := left(t, dir)
			if len(names) != 1 || !strings.HasPrefix(names[0], ".mlflowfs-") {
				t.Fatal(names)
			}
			if part, err := os.ReadFile(filepath.Join(dir, names[0])); err != nil || bytes.Contains(part, []byte("s3cret")) {
				t.Errorf("the partial file holds what its location does: %v", err)
			}
			c.meanwhile(filepath.Join(dir, names[0]))
			came.Store(0)
			if name == "another content" {
				c.store.validator = "v2"
			}
			err := d.Download(t.Context(), key, c.store, "f")
			got, rerr := os.ReadFile(filepath.Join(dir, "f"))
			if err != nil || rerr != nil || !bytes.Equal(got, c.store.data) || len(left(t, dir)) != 1 {
				t.Errorf("%v, %v, %v", err, rerr, left(t, dir))
			}
			if n := c.store.sent.Load(); n > c.most || came.Load() != key.Size {
				t.Errorf("%d bytes were sent, at most %d should be; progress says %d", n, c.most, came.Load())
			}
		})
	}
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// What is not what the origin says never gets the final name.
func TestDownloadOfWrongContent(t *testing.T) {
	data := noise(2 * pieceSize)
	wrong := crc32.Checksum([]byte("x"), castagnoli)
	for name, c := range map[string]struct {
		bend func(*store)
		want error
	}{
		"an MD5":    {func(s *store) { s.sums = Sums{MD5: make([]byte, 16)} }, ErrDamaged},
		"a CRC32C":  {func(s *store) { s.sums = Sums{CRC32C: &wrong} }, ErrDamaged},
		"a size":    {func(s *store) { s.data = s.data[1:] }, ErrChanged},
		"too long":  {func(s *store) { s.whole, s.data = true, append(s.data, 1) }, ErrChanged},
		"a version": {func(s *store) { s.validator = "v2" }, ErrChanged},
	} {
		d, dir, _ := downloader(t)
		s := newStore(bytes.Clone(data))
		c.bend(s)
		if err := d.Download(t.Context(), Key{"x", int64(len(data)), "v1"}, s, "f"); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if names := left(t, dir); len(names) > 0 {
			t.Errorf("%s: left is %v", name, names)
		}
	}
}

// Two downloads of one file at once do not mix.
func TestDownloadTwice(t *testing.T) {
	d, dir, _ := downloader(t)
	s := newStore(noise(100))
	s.wait = make(chan struct{})
	key := Key{"x", 100, ""}
	first := make(chan error)
	go func() { first <- d.Download(context.Background(), key, s, "f") }()
	for s.asked.Load() == 0 {
	}
	if err := d.Download(t.Context(), key, s, "f"); err == nil || !strings.Contains(err.Error(), "another mlflowfs") {
		t.Error(err)
	}
	close(s.wait)
	if err := <-first; err != nil || len(left(t, dir)) != 1 {
		t.Error(err, left(t, dir))
	}
}
