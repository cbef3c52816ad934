package cache

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// TestDamagedDiskIsAMiss fails when a file of the cache that was damaged,
// whatever a crash, a power loss or another hand did to it, gives a wrong byte,
// has more fetched again than what is damaged, or is not mended for the next
// process.
func TestDamagedDiskIsAMiss(t *testing.T) {
	t.Parallel()
	const size = 4*mib + 77
	const all = size
	for name, c := range map[string]struct {
		damage  func(data, record string) error
		again   int64 // bytes that are fetched again
		damaged int64 // contents that are found damaged when their blocks are read
	}{
		"a bit of a block":           {func(data, _ string) error { return flipBit(data, mib+5) }, BlockSize, 1},
		"a bit of the last block":    {func(data, _ string) error { return flipBit(data, size-1) }, size % BlockSize, 1},
		"a block of zeros":           {func(data, _ string) error { return write(data, 2*mib, make([]byte, BlockSize)) }, BlockSize, 1},
		"all zeros":                  {func(data, _ string) error { return write(data, 0, make([]byte, size)) }, all, 1},
		"a bit of the record's head": {func(_, rec string) error { return flipBit(rec, 20) }, all, 0},
		"a bit of a sum":             {func(_, rec string) error { return flipBit(rec, headSize+8*3) }, BlockSize, 0},
		"a bit of a sum's sum":       {func(_, rec string) error { return flipBit(rec, headSize+8*3+6) }, BlockSize, 0},
		"two marks exchanged": {func(_, rec string) error {
			b, err := os.ReadFile(rec)
			if err != nil {
				return err
			}
			return write(rec, headSize, append(bytes.Clone(b[headSize+8:headSize+16]), b[headSize:headSize+8]...))
		}, 2 * BlockSize, 0},
		"half a record":      {func(_, rec string) error { return os.Truncate(rec, headSize+8*7+3) }, size - 7*BlockSize, 0},
		"half a head":        {func(_, rec string) error { return os.Truncate(rec, 100) }, all, 0},
		"an empty record":    {func(_, rec string) error { return os.Truncate(rec, 0) }, all, 0},
		"no record":          {func(_, rec string) error { return os.Remove(rec) }, all, 0},
		"a shorter file":     {func(data, _ string) error { return os.Truncate(data, 2*mib) }, size - 2*mib, 1},
		"a longer file":      {func(data, _ string) error { return os.Truncate(data, size+1) }, all, 0},
		"no file":            {func(data, _ string) error { return os.Remove(data) }, all, 0},
		"another's record":   {func(_, rec string) error { return write(rec, 11, []byte("ff")) }, all, 0},
		"a record of noise":  {func(_, rec string) error { return write(rec, 0, noise(headSize+8*33)) }, all, 0},
		"a file without use": {func(data, _ string) error { return os.WriteFile(filepath.Join(filepath.Dir(data), "what"), nil, 0o600) }, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				dir := t.TempDir()
				o := &origin{data: noise(size), validator: etag}
				key := Key{"x", size, ""}
				first := nextProcess(t, dir, 1<<30)
				take(t, first, key, o)
				if err := c.damage(filesOf(t, dir, 0)); err != nil {
					t.Fatal(err)
				}
				got := take(t, nextProcess(t, dir, 1<<30), key, o)
				if got.bytes != c.again || got.damaged != c.damaged || (got.requests == 0) != (c.again == 0) {
					t.Errorf("%+v; want %d bytes of the origin, and %d damaged", got, c.again, c.damaged)
				}
				if got := take(t, nextProcess(t, dir, 1<<30), key, o); !got.diskHits(disk.BlocksOf(size)) {
					t.Errorf("the damage was not mended for the next process: %+v", got)
				}
			})
		})
	}
}

// TestAnyTurnedBitIsAMiss fails when a bit that turns in any byte of what the
// cache has on disk gives a wrong byte, or is not mended.
func TestAnyTurnedBitIsAMiss(t *testing.T) {
	bubble(t, func(t *testing.T) {
		// One short block: its record and its sum are those of any.
		o := &origin{data: noise(200), validator: etag}
		key := Key{"x", int64(len(o.data)), ""}
		dir := t.TempDir()
		read := func() counts {
			d := diskAt(t, dir, 1<<30)
			defer d.Close()
			return take(t, New(Options{Disk: d, Memory: mib}), key, o)
		}
		read()
		turned := 0
		err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			whole, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			want := counts{misses: 1, requests: 1, bytes: key.Size} // the record says that there is nothing
			switch {
			case filepath.Base(p) == "usage" || filepath.Base(p) == "index": // they are made anew
				want = counts{disk: 1}
			case len(whole) == len(o.data):
				want.disk, want.damaged = 1, 1 // it is looked at first
			}
			for at := range len(whole) {
				if err := flipBits(p, int64(at), 1<<(at%8)); err != nil {
					return err
				}
				turned++
				if got := read(); got != want {
					t.Errorf("%s, byte %d: %+v, want %+v", p, at, got, want)
				}
			}
			if got := read(); !got.diskHits(1) {
				t.Errorf("%s was not mended: %+v", p, got)
			}
			return nil
		})
		if err != nil || turned < 200+520+64 {
			t.Errorf("%d bits turned, %v", turned, err)
		}
	})
}

func first(a, _ string) string { return a }

func flipBit(path string, off int64) error { return flipBits(path, off, 16) }

// flipBits turns the bits of mask in the byte at off.
func flipBits(path string, off int64, mask byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		return err
	}
	b[0] ^= mask
	_, err = f.WriteAt(b, off)
	return err
}

func write(path string, off int64, b []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(b, off)
	return err
}

// TestBackingIsGivenWhenVerified fails when a program gets a cache file from
// the kernel (passthrough, mmap) of which a block is missing, damaged or not
// verified yet, or never gets one that is complete.
func TestBackingIsGivenWhenVerified(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := t.TempDir()
		o := &origin{data: noise(4*mib + 1), validator: etag}
		key := Key{"x", int64(len(o.data)), ""}
		c := nextProcess(t, dir, 1<<30)
		f := c.Open(key, o, true)
		if f.Backing() != nil {
			t.Error("there is nothing yet")
		}
		wantBytes(t, f, o.data)
		c.Wait()
		b := f.Backing()
		if b == nil {
			t.Fatal("it was verified while it came")
		}
		if got, err := os.ReadFile(b.Name()); err != nil || !bytes.Equal(got, o.data) {
			t.Errorf("the file is not the content: %v", err)
		}
		f.Close()
		f = c.Open(key, o, true)
		if f.Backing() == nil {
			t.Error("it was known, and is not any more")
		}
		f.Close()

		// What another process wrote must be looked at first. The damage is in
		// the block that is read before any is verified ahead.
		if err := flipBit(b.Name(), 5); err != nil {
			t.Fatal(err)
		}
		c = nextProcess(t, dir, 1<<30)
		f = c.Open(key, o, true)
		defer f.Close()
		if f.Backing() != nil {
			t.Error("nobody has verified it")
		}
		if got := during(c, func() { wantBytes(t, f, o.data) }); got.damaged != 1 || got.requests != 1 || got.bytes != BlockSize {
			t.Errorf("one block is damaged: %+v", got)
		}
		if f.Backing() == nil {
			t.Error("all of it was read, and the damage mended")
		}
	})
}

// TestWholeFileIsVerifiedAhead fails when a file of another process that is read
// whole is not held against its checksums behind the first touch: a program
// would wait for that at each block, and the next open would not get the file
// itself. What is damaged, and nothing else, is fetched again; and a read at
// random verifies no more than itself.
func TestWholeFileIsVerifiedAhead(t *testing.T) {
	t.Parallel()
	for name, whole := range map[string]bool{"whole": true, "at random": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				dir := t.TempDir()
				o := &origin{data: noise(16*mib + 1), validator: etag}
				key := Key{"x", int64(len(o.data)), ""}
				c := nextProcess(t, dir, 1<<30)
				take(t, c, key, o)
				if err := flipBit(first(filesOf(t, dir, 0)), 9*mib); err != nil {
					t.Fatal(err)
				}
				c = nextProcess(t, dir, 1<<30)
				f := c.Open(key, o, true)
				defer f.Close()
				var told atomic.Int64
				f.Wake(func() { told.Add(1) })
				f.Whole = whole
				touch := during(c, func() {
					if _, err := f.ReadAt(context.Background(), make([]byte, 10), 5*mib); err != nil {
						t.Error(err)
					}
				})
				if f.Backing() != nil || touch.requests > 0 {
					t.Errorf("behind the first touch: %+v", touch)
				}
				if !whole {
					if touch.damaged > 0 || told.Load() > 0 {
						t.Errorf("a read at random verified the whole file, or told of %d blocks: %+v", told.Load(), touch)
					}
					return
				}
				if touch.damaged != 1 || told.Load() < disk.BlocksOf(key.Size)-3 {
					t.Errorf("the damage was not seen, or only %d blocks were told of: %+v", told.Load(), touch)
				}
				rest := during(c, func() { wantBytes(t, f, o.data) })
				if rest.requests != 1 || rest.bytes != BlockSize || rest.disk == 0 || rest.damaged > 0 {
					t.Errorf("one block is damaged: %+v", rest)
				}
				if f.Backing() == nil {
					t.Error("it was read whole, and is not given")
				}
			})
		})
	}
}

// TestVerifiersShareTheWork fails when a block is verified ahead by two at once, so that
// several take as long as one.
func TestVerifiersShareTheWork(t *testing.T) {
	t.Parallel()
	const size = 2 * mib
	dir := t.TempDir()
	o := &origin{data: noise(size), validator: etag}
	key := Key{"x", size, ""}
	take(t, nextProcess(t, dir, 1<<30), key, o)
	c := nextProcess(t, dir, 1<<30)
	f := c.Open(key, o, true)
	defer f.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	f.ct.ahead.whole.was = true
	seen := map[int64]bool{}
	for range size / BlockSize {
		i, ok := f.ct.nextUnverified()
		if !ok || seen[i] {
			t.Fatalf("block %d is given, %v, behind %v", i, ok, seen)
		}
		seen[i] = true
		f.ct.ahead.claimed = append(f.ct.ahead.claimed, i)
	}
	if i, ok := f.ct.nextUnverified(); ok {
		t.Errorf("block %d is given twice", i)
	}
}

// TestFileDamagedWhileClosedIsAMiss fails when a file of the cache that was damaged
// while nobody had it open is read without a check by the process that wrote it, or
// given away without one.
func TestFileDamagedWhileClosedIsAMiss(t *testing.T) {
	t.Parallel()
	const size = 4 * mib
	dir := t.TempDir()
	c := nextProcess(t, dir, 1<<30) // which has room for 1 MiB in memory
	o := &origin{data: noise(size), validator: etag}
	key := Key{"x", size, ""}
	take(t, c, key, o)
	c.Wait()
	path, _ := filesOf(t, dir, 0)
	if err := flipBit(path, 5); err != nil { // long out of memory
		t.Fatal(err)
	}
	later := time.Now().Add(time.Second) // the clock of files is coarse
	if err := os.Chtimes(path, later, later); err != nil {
		t.Fatal(err)
	}
	wantOneDamaged(t, c, key, o)
}

// wantOneDamaged opens a content that has one damaged block on the disk: nobody
// has it yet as a file, and that block alone is fetched.
func wantOneDamaged(t *testing.T, c *Cache, key Key, o *origin) {
	t.Helper()
	f := c.Open(key, o, true)
	if f.Backing() != nil {
		t.Error("nobody has verified it")
	}
	f.Close()
	if got := take(t, c, key, o); got.damaged != 1 || got.bytes != BlockSize {
		t.Errorf("one block is damaged: %+v", got)
	}
}
