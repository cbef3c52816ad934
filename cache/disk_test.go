package cache

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"

	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// onDiskCache is a cache of a process that has just begun, on the directory.
func onDiskCache(t *testing.T, dir string, bound int64) *Cache {
	t.Helper()
	c := New(Options{Disk: diskAt(t, dir, bound), Memory: mib, TempDir: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	t.Cleanup(c.Wait)
	return c
}

// take reads a content whole, and holds it against the origin's.
func take(t *testing.T, c *Cache, key Key, o *origin) {
	t.Helper()
	f := c.Open(key, o, true)
	defer f.Close()
	if !bytes.Equal(readAll(t, f), o.data) {
		t.Error("wrong bytes")
	}
	c.Wait()
}

func etag() string { return `"v"` }

func TestDiskOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	for name, o := range shapes(noise(20*mib + 5)) {
		o.validator = etag
		key := Key{"x" + name, int64(len(o.data)), ""}
		take(t, onDiskCache(t, dir, 1<<30), key, o)
		asked := o.asked.Load()
		take(t, onDiskCache(t, dir, 1<<30), key, o)
		if o.asked.Load() != asked {
			t.Errorf("%s: %d requests by the next process", name, o.asked.Load()-asked)
		}
		// Another size, version or scope is another content.
		other := &origin{data: noise(100), validator: etag}
		for _, k := range []Key{{"x" + name, 100, ""}, {"x" + name, int64(len(o.data)), "w"}} {
			if got := onDiskCache(t, dir, 1<<30).opt.Disk.Has(k); got != 0 {
				t.Errorf("%v has %d bytes", k, got)
			}
		}
		take(t, onDiskCache(t, dir, 1<<30), Key{"x" + name, 100, ""}, other)
	}
	if st, err := os.Stat(filepath.Join(dir, diskLayout)); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// An unfinished content is taken up where a validator tells that what is
// missing is of the same one, and begun anew where none does.
func TestDiskTakesUpAnUnfinishedContent(t *testing.T) {
	for _, validated := range []bool{true, false} {
		dir := t.TempDir()
		o := &origin{data: noise(20 * mib)}
		if validated {
			o.validator = etag
		}
		key := Key{"x", int64(len(o.data)), ""}
		c := onDiskCache(t, dir, 1<<30)
		f := c.Open(key, o, true)
		if _, err := f.ReadAt(context.Background(), make([]byte, 5*mib), 0); err != nil {
			t.Fatal(err)
		}
		f.Close()
		c.Wait()
		before := o.sent.Load()
		take(t, onDiskCache(t, dir, 1<<30), key, o)
		got, want := o.sent.Load()-before, key.Size
		if validated {
			want -= before
		}
		if got != want {
			t.Errorf("validated %v: %d bytes came after the restart, and not %d", validated, got, want)
		}
	}
}

// A validator that is on the disk and is no more is a changed content, once.
func TestDiskOfAnotherVersion(t *testing.T) {
	dir := t.TempDir()
	o := &origin{data: noise(4 * mib), validator: etag}
	key := Key{"x", int64(len(o.data)), ""}
	c := onDiskCache(t, dir, 1<<30)
	f := c.Open(key, o, true)
	f.ReadAt(context.Background(), make([]byte, mib), 0)
	f.Close()
	c.Wait()
	changed := &origin{data: bytes.Clone(o.data), validator: func() string { return `"w"` }}
	changed.data[0]++
	c = onDiskCache(t, dir, 1<<30)
	f = c.Open(key, changed, true)
	if _, err := f.ReadAt(context.Background(), make([]byte, 10), 3*mib); err == nil {
		t.Error("blocks of two versions were mixed")
	}
	f.Close()
	take(t, c, key, changed)
}

// Whatever a crash, a power loss or another hand does to the files of an entry,
// the bytes are right and the damage is fetched again.
func TestDamagedDisk(t *testing.T) {
	const size = 4*mib + 77
	for name, damage := range map[string]func(data, record string) error{
		"a bit of a block":        func(data, _ string) error { return flipBit(data, mib+5) },
		"a bit of the last block": func(data, _ string) error { return flipBit(data, size-1) },
		"a block of zeros": func(data, _ string) error {
			return write(data, 2*mib, make([]byte, BlockSize))
		},
		"all zeros":                  func(data, _ string) error { return write(data, 0, make([]byte, size)) },
		"a bit of the record's head": func(_, rec string) error { return flipBit(rec, 20) },
		"a bit of a sum":             func(_, rec string) error { return flipBit(rec, headSize+8*3) },
		"a bit of a sum's sum":       func(_, rec string) error { return flipBit(rec, headSize+8*3+6) },
		"two marks exchanged": func(_, rec string) error {
			b, err := os.ReadFile(rec)
			if err != nil {
				return err
			}
			return write(rec, headSize, append(bytes.Clone(b[headSize+8:headSize+16]), b[headSize:headSize+8]...))
		},
		"half a record":      func(_, rec string) error { return os.Truncate(rec, headSize+8*7+3) },
		"half a head":        func(_, rec string) error { return os.Truncate(rec, 100) },
		"an empty record":    func(_, rec string) error { return os.Truncate(rec, 0) },
		"no record":          func(_, rec string) error { return os.Remove(rec) },
		"a shorter file":     func(data, _ string) error { return os.Truncate(data, size/2) },
		"a longer file":      func(data, _ string) error { return os.Truncate(data, size+1) },
		"no file":            func(data, _ string) error { return os.Remove(data) },
		"another's record":   func(_, rec string) error { return write(rec, int64(len(recordMagic)), []byte("ff")) },
		"a record of noise":  func(_, rec string) error { return write(rec, 0, noise(headSize+8*33)) },
		"a file without use": func(data, _ string) error { return os.WriteFile(filepath.Join(filepath.Dir(data), "what"), nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := &origin{data: noise(size), validator: etag}
			key := Key{"x", size, ""}
			c := onDiskCache(t, dir, 1<<30)
			take(t, c, key, o)
			p := c.opt.Disk.path(c.opt.Disk.name(key))
			if err := damage(p, p+recordExt); err != nil {
				t.Fatal(err)
			}
			before := o.sent.Load()
			c = onDiskCache(t, dir, 1<<30)
			take(t, c, key, o)
			again := o.sent.Load() - before
			if whole := strings.HasPrefix(name, "a bit of a") || name == "a block of zeros" || name == "a file without use"; whole && again > BlockSize {
				t.Errorf("%d bytes were fetched again", again)
			}
			// And the mended entry serves the next process.
			before = o.sent.Load()
			take(t, onDiskCache(t, dir, 1<<30), key, o)
			if o.sent.Load() != before {
				t.Error("the damage was not mended on the disk")
			}
		})
	}
}

func flipBit(path string, off int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		return err
	}
	b[0] ^= 16
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

// Backing is given out when every block was written by this process or held
// against its checksum, and not before.
func TestBacking(t *testing.T) {
	dir := t.TempDir()
	o := &origin{data: noise(4*mib + 1), validator: etag}
	key := Key{"x", int64(len(o.data)), ""}
	c := onDiskCache(t, dir, 1<<30)
	f := c.Open(key, o, true)
	if f.Backing() != nil {
		t.Error("there is nothing yet")
	}
	readAll(t, f)
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

	// What another process wrote must be looked at first.
	if err := flipBit(b.Name(), 3*mib); err != nil {
		t.Fatal(err)
	}
	c = onDiskCache(t, dir, 1<<30)
	f = c.Open(key, o, true)
	defer f.Close()
	if f.Backing() != nil {
		t.Error("nobody has verified it")
	}
	if !bytes.Equal(readAll(t, f), o.data) {
		t.Error("wrong bytes")
	}
	c.Wait()
	if f.Backing() == nil {
		t.Error("all of it was read, and the damage mended")
	}
}

// What another process wrote is held against its checksums behind the first
// touch of a file that is read whole: the rest is told of as fresh, the next
// open may have the file itself, and the origin is asked for what is damaged
// alone.
func TestVerifiedAhead(t *testing.T) {
	dir := t.TempDir()
	o := &origin{data: noise(16*mib + 1), validator: etag}
	key := Key{"x", int64(len(o.data)), ""}
	c := onDiskCache(t, dir, 1<<30)
	take(t, c, key, o)
	c.Wait()
	path := c.opt.Disk.path(c.opt.Disk.name(key))
	if err := flipBit(path, 9*mib); err != nil {
		t.Fatal(err)
	}
	o.sent.Store(0)
	for _, whole := range []bool{false, true} {
		c = onDiskCache(t, dir, 1<<30)
		f := c.Open(key, o, true)
		var told atomic.Int64
		f.Wake(func() { told.Add(1) })
		f.Whole = whole
		readAt(t, f, 5*mib, 10)
		c.Wait()
		if !whole {
			if f.Backing() != nil || told.Load() > 0 || o.sent.Load() > 0 {
				t.Errorf("one read at random had the whole file verified, told of %d blocks, or %d bytes fetched", told.Load(), o.sent.Load())
			}
			f.Close()
			continue
		}
		if f.Backing() != nil || told.Load() < blocksOf(key.Size)-3 {
			t.Errorf("the damage was not seen, or blocks told of are only %d", told.Load())
		}
		if got := readAll(t, f); !bytes.Equal(got, o.data) {
			t.Error("wrong bytes")
		}
		c.Wait()
		if f.Backing() == nil || o.sent.Load() != BlockSize {
			t.Errorf("it is not whole, or the origin sent %d bytes for one damaged block", o.sent.Load())
		}
		f.Close()
	}
}

// Several processes use one directory at once.
func TestDiskIsShared(t *testing.T) {
	dir := t.TempDir()
	const size = 3 * mib
	var wg sync.WaitGroup
	for p := range 4 {
		c := onDiskCache(t, dir, 20*mib) // of 24: there is eviction, too
		for range 2 {
			wg.Go(func() {
				for round := range 6 {
					i := (round + p) % 8
					o := &origin{data: noise(size + i), validator: etag}
					f := c.Open(Key{fmt.Sprint(i), int64(len(o.data)), ""}, o, true)
					if !bytes.Equal(readAll(t, f), o.data) {
						t.Error("wrong bytes")
					}
					f.Close()
				}
			})
		}
	}
	wg.Wait()
}

// What one process has brought, another that has the content open finds.
func TestDiskIsSharedWhileOpen(t *testing.T) {
	dir := t.TempDir()
	o := &origin{data: noise(8 * mib), validator: etag}
	key := Key{"x", int64(len(o.data)), ""}
	a, b := onDiskCache(t, dir, 1<<30), onDiskCache(t, dir, 1<<30)
	fa, fb := a.Open(key, o, true), b.Open(key, o, true)
	defer fa.Close()
	defer fb.Close()
	fb.ReadAt(context.Background(), make([]byte, 10), 0)
	fa.ReadAt(context.Background(), make([]byte, 10), 0)
	b.Wait()
	a.Wait()
	readAll(t, fa)
	a.Wait()
	before := o.sent.Load()
	readAll(t, fb)
	if got := o.sent.Load() - before; got > 0 {
		t.Errorf("%d bytes were fetched that lay on the disk", got)
	}
}

func usage(t *testing.T, dir string) (n int64) {
	t.Helper()
	filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			if st, err := e.Info(); err == nil {
				n += onDisk(st)
			}
		}
		return nil
	})
	return n
}

func TestDiskKeepsItsBound(t *testing.T) {
	dir := t.TempDir()
	const bound = 16 * mib
	const inFlight = 32 * BlockSize // what the requests at once may bring beyond it
	c := onDiskCache(t, dir, bound)
	keyOf := func(i int) Key { return Key{fmt.Sprint(i), 2*mib + int64(i), ""} }
	originOf := func(i int) *origin { return &origin{data: noise(2*mib + i), validator: etag} }
	if err := c.opt.Disk.Pin(keyOf(0), false); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		take(t, c, keyOf(i), originOf(i))
		if i == 25 { // used again: it is not the oldest any more
			take(t, c, keyOf(20), originOf(20))
		}
		if got := usage(t, dir); got > bound+inFlight {
			t.Fatalf("%d bytes on disk after %d contents, for a bound of %d", got, i+1, bound)
		}
	}
	has := func(i int) bool { return c.opt.Disk.Has(keyOf(i)) == keyOf(i).Size }
	if !has(0) {
		t.Error("what was pinned is gone")
	}
	if !has(29) || !has(20) || has(5) || has(21) {
		t.Errorf("kept: 29 %v, 20 %v, 5 %v, 21 %v", has(29), has(20), has(5), has(21))
	}
	if got, want := c.opt.Disk.Used(), usage(t, dir); got < want-mib || got > want+mib {
		t.Errorf("counted %d, and it takes %d", got, want)
	}
	if err := c.opt.Disk.Pin(keyOf(0), true); err != nil {
		t.Fatal(err)
	}
	for i := 30; i < 40; i++ {
		take(t, c, keyOf(i), originOf(i))
	}
	if has(0) {
		t.Error("what was unpinned is there for ever")
	}

	// One content larger than the cache: as much of it as there is room for.
	o := &origin{data: noise(40 * mib), validator: etag}
	take(t, c, Key{"large", int64(len(o.data)), ""}, o)
	if got := usage(t, dir); got > bound+inFlight {
		t.Errorf("%d bytes on disk after a content larger than the bound of %d", got, bound)
	}
}

func TestEvictedWhileOpen(t *testing.T) {
	dir := t.TempDir()
	c := onDiskCache(t, dir, 1<<30)
	o := &origin{data: noise(8 * mib), validator: etag}
	key := Key{"x", int64(len(o.data)), ""}
	f := c.Open(key, o, true)
	defer f.Close()
	readAll(t, f)
	c.Wait()
	if n, err := c.opt.Disk.Evict(key); err != nil || n < key.Size {
		t.Errorf("%d bytes freed, %v", n, err)
	}
	if !bytes.Equal(readAll(t, f), o.data) {
		t.Error("wrong bytes")
	}
	if o.sent.Load() != key.Size {
		t.Error("what was open was fetched again")
	}
	f.Close()
	f = c.Open(key, o, true)
	defer f.Close()
	if f.Backing() != nil {
		t.Error("a new handle has the file that was removed")
	}
	if !bytes.Equal(readAll(t, f), o.data) {
		t.Error("wrong bytes")
	}
}

// What another process has evicted while this one has it open takes no more
// bytes: they would be on the disk and count for nobody.
func TestEvictedEntryTakesNoMore(t *testing.T) {
	dir := t.TempDir()
	a, b := onDiskCache(t, dir, 1<<30), onDiskCache(t, dir, 1<<30)
	o := &origin{data: noise(8 * mib), validator: etag}
	key := Key{"x", int64(len(o.data)), ""}
	f := a.Open(key, o, true)
	f.ReadAt(context.Background(), make([]byte, 10), 0)
	a.Wait()
	if _, err := b.opt.Disk.Evict(key); err != nil {
		t.Fatal(err)
	}
	used := a.opt.Disk.Used()
	if !bytes.Equal(readAll(t, f), o.data) {
		t.Error("wrong bytes")
	}
	f.Close()
	a.Wait()
	if got := a.opt.Disk.Used() - used; got > 0 {
		t.Errorf("%d bytes were counted", got)
	}
	take(t, a, key, o) // and a new handle begins anew
	if got := a.opt.Disk.Has(key); got != key.Size {
		t.Errorf("%d bytes are on the disk", got)
	}
}

// A disk that fails is done without.
func TestDiskThatFails(t *testing.T) {
	dir := t.TempDir()
	c := onDiskCache(t, dir, 1<<30)
	o := &origin{data: noise(8 * mib), validator: etag}
	key := Key{"x", int64(len(o.data)), ""}
	f := c.Open(key, o, true)
	defer f.Close()
	f.ReadAt(context.Background(), make([]byte, mib), 0)
	c.Wait()
	f.ct.disk.data.Close() // every read and write of it fails from here on
	if !bytes.Equal(readAll(t, f), o.data) {
		t.Error("wrong bytes")
	}
}

func TestDiskOpenToOthersIsRefused(t *testing.T) {
	dir := t.TempDir()
	diskAt(t, dir, 1<<30)
	if err := os.Chmod(filepath.Join(dir, diskLayout), 0o755); err != nil {
		t.Fatal(err)
	}
	if d, err := OpenDisk(dir, 1<<30, ""); err == nil {
		d.Close()
		t.Error("a directory that others may read was taken")
	}
}

// Files that are not the cache's stay, however old and whatever needs room.
func TestDiskLeavesOthersFilesAlone(t *testing.T) {
	dir := t.TempDir()
	c := onDiskCache(t, dir, 16*mib)
	var others []string
	for _, name := range []string{"notes", "ab/notes", "ab/" + strings.Repeat("0", 61), "a/b/c"} {
		p := filepath.Join(dir, diskLayout, name)
		os.MkdirAll(filepath.Dir(p), 0o700)
		if err := os.WriteFile(p, noise(mib), 0o600); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-time.Hour)
		os.Chtimes(p, old, old)
		others = append(others, p)
	}
	orphan := filepath.Join(dir, diskLayout, "ab", strings.Repeat("0", 62))
	if err := os.WriteFile(orphan, noise(100), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	os.Chtimes(orphan, old, old)
	for i := range 10 {
		o := &origin{data: noise(4*mib + i), validator: etag}
		take(t, c, Key{fmt.Sprint(i), int64(len(o.data)), ""}, o)
	}
	for _, p := range others {
		if _, err := os.Stat(p); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(orphan); err == nil {
		t.Error("a file of the cache's own that has no record stays for ever")
	}
}

func TestNoSecretOnDisk(t *testing.T) {
	dir := t.TempDir()
	c := onDiskCache(t, dir, 1<<30)
	o := &origin{data: noise(100), validator: etag}
	take(t, c, Key{"https://user:secret@host/x?sig=secret", 100, ""}, o)
	filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil || bytes.Contains(b, []byte("secret")) || strings.Contains(p, "secret") {
			t.Errorf("%s: %v", p, err)
		}
		return nil
	})
}

// A bit that turns in any byte of what a cache has on disk makes no wrong byte:
// what it is in is fetched anew.
func TestAnyBitTurns(t *testing.T) {
	o := &origin{data: noise(1500), validator: etag}
	key := Key{"x", int64(len(o.data)), ""}
	dir := t.TempDir()
	one := func() []byte {
		d := diskAt(t, dir, 1<<30)
		c := New(Options{Disk: d, Memory: mib})
		f := c.Open(key, o, true)
		b := readAll(t, f)
		f.Close()
		c.Wait()
		d.Close()
		return b
	}
	one()
	turned := 0
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasSuffix(p, ".lock") {
			return err
		}
		whole, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		for at := 0; at < len(whole); at += 1 + len(whole)/2000 {
			b, err := os.ReadFile(p)
			if err != nil || at >= len(b) {
				break // it was taken away
			}
			b[at] ^= 1 << (at % 8)
			if err := os.WriteFile(p, b, 0o600); err != nil {
				return err
			}
			turned++
			if !bytes.Equal(one(), o.data) {
				t.Errorf("%s, byte %d: wrong bytes", p, at)
			}
		}
		return nil
	})
	if err != nil || turned < len(o.data) {
		t.Errorf("%d bits turned, %v", turned, err)
	}
}
