package cache

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// usage is the disk that the files below dir take, in bytes.
func usage(t *testing.T, dir string) (n int64) {
	t.Helper()
	filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			if st, err := e.Info(); err == nil {
				n += st.Sys().(*syscall.Stat_t).Blocks * 512
			}
		}
		return nil
	})
	return n
}

// wantUsage fails the test when the files below dir take more than most bytes.
func wantUsage(t *testing.T, dir string, most int64) {
	t.Helper()
	if got := usage(t, dir); got > most {
		t.Fatalf("%d bytes are on disk, want %d at most", got, most)
	}
}

// load is how many requests of a cache run at once, and how many bytes they may
// bring beyond the disk's bound.
type load struct {
	requests int
	over     int64
}

// loads are that of a cache which does one thing after the other, and keeps
// exactly what was used last, and the usual one, which is less exact.
func loads() map[string]load {
	return map[string]load{"one request at a time": {1, 2 * BlockSize}, "many at once": {32, manyOver}}
}

const manyOver = 256 << 10

// TestDiskKeepsItsBound fails when the cache takes more of the disk than it was
// given, or counts it wrongly; removes what was used a moment ago or what is
// pinned; or never removes what is pinned no more.
func TestDiskKeepsItsBound(t *testing.T) {
	t.Parallel()
	const bound = 16 * mib
	for name, c := range loads() {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // in no bubble: what was used longest ago goes by the system's time
			dir := t.TempDir()
			cache := memoryCache(t, Options{Disk: diskAt(t, dir, bound), Memory: mib, Requests: c.requests})
			kept := cache.opt.Disk
			keyOf := func(i int) Key { return Key{fmt.Sprint(i), 2*mib + int64(i), ""} }
			takeOne := func(i int) counts {
				return take(t, cache, keyOf(i), &origin{data: noise(2*mib + i), validator: etag})
			}
			has := func(i int) bool { return kept.Has(disk.Key(keyOf(i))) == keyOf(i).Size }
			if err := kept.Pin(disk.Key(keyOf(0)), false); err != nil {
				t.Fatal(err)
			}
			for i := range 30 {
				takeOne(i)
				if i == 25 { // used again: it is not the oldest any more
					_, record := filesOf(t, dir, keyOf(20).Size)
					ago := time.Now().Add(-time.Minute)
					if err := os.Chtimes(record, ago, ago); err != nil {
						t.Fatal(err)
					}
					if got := takeOne(20); c.requests == 1 && !got.diskHits(disk.BlocksOf(keyOf(20).Size)) {
						t.Errorf("content 20 was read again: %+v", got)
					}
				}
				wantUsage(t, dir, bound+c.over)
			}
			if got := takeOne(0); !has(0) || !got.diskHits(disk.BlocksOf(keyOf(0).Size)) {
				t.Errorf("what was pinned was read again: %+v", got)
			}
			if has(5) || has(21) || (c.requests == 1 && !(has(29) && has(20))) {
				t.Errorf("kept: 29 %v, 20 %v, 5 %v, 21 %v", has(29), has(20), has(5), has(21))
			}
			if got, want := kept.Used(), usage(t, dir); got < want-c.over || got > want+c.over {
				t.Errorf("counted %d, and it takes %d", got, want)
			}
			if err := kept.Pin(disk.Key(keyOf(0)), true); err != nil {
				t.Fatal(err)
			}
			for i := 30; i < 40; i++ {
				takeOne(i)
				wantUsage(t, dir, bound+c.over)
			}
			if c.requests == 1 && has(0) {
				t.Error("what was unpinned is there for ever")
			}
		})
	}
}

// TestContentLargerThanTheDiskKeepsItsBound fails when a file that is larger
// than the whole cache takes more of the disk than the cache was given, or when
// no part of it is kept. Requests come one at a time: many at once are not held
// to the bound here.
func TestContentLargerThanTheDiskKeepsItsBound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := t.TempDir()
		const bound = 16 * mib
		c := memoryCache(t, Options{Disk: diskAt(t, dir, bound), Memory: mib, Requests: 1})
		for i, size := range []int{14 * mib, 40 * mib} { // the first one goes
			key := Key{fmt.Sprint(i), int64(size), ""}
			take(t, c, key, &origin{data: noise(size), validator: etag})
			wantUsage(t, dir, bound+2*BlockSize)
			if got := c.opt.Disk.Has(disk.Key(key)); got < min(key.Size, bound/2) {
				t.Errorf("%d bytes of %d are on the disk", got, size)
			}
		}
	})
}

// TestEvictedFileStaysReadable fails when a program that reads a file gets
// errors, wrong bytes or a second download because the file was evicted, or
// when who opens it anew gets the file that was removed.
func TestEvictedFileStaysReadable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := nextProcess(t, t.TempDir(), 1<<30)
		o := &origin{data: noise(8 * mib), validator: etag}
		key := Key{"x", int64(len(o.data)), ""}
		f := c.Open(key, o, true)
		defer f.Close()
		wantBytes(t, f, o.data)
		c.Wait()
		if n, err := c.opt.Disk.Evict(disk.Key(key)); err != nil || n < key.Size {
			t.Errorf("%d bytes freed, %v", n, err)
		}
		if got := during(c, func() { wantBytes(t, f, o.data) }); !got.diskHits(disk.BlocksOf(key.Size)) {
			t.Errorf("what was open was read again: %+v", got)
		}
		f.Close()
		f = c.Open(key, o, true)
		defer f.Close()
		if f.Backing() != nil {
			t.Error("a new handle has the file that was removed")
		}
		if got := during(c, func() { wantBytes(t, f, o.data) }); got.bytes == 0 {
			t.Errorf("opened anew: %+v", got)
		}
	})
}

// TestEvictedEntryTakesNoMore fails when bytes are written to a file that
// another process has evicted while this one has it open: they would be on the
// disk and count for nobody.
func TestEvictedEntryTakesNoMore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := t.TempDir()
		a, b := nextProcess(t, dir, 1<<30), nextProcess(t, dir, 1<<30)
		o := &origin{data: noise(8 * mib), validator: etag}
		key := Key{"x", int64(len(o.data)), ""}
		f := a.Open(key, o, true)
		readAt(t, f, 0, 10)
		a.Wait()
		if _, err := b.opt.Disk.Evict(disk.Key(key)); err != nil {
			t.Fatal(err)
		}
		used := a.opt.Disk.Used()
		wantBytes(t, f, o.data)
		f.Close()
		a.Wait()
		if got := a.opt.Disk.Used() - used; got > 0 {
			t.Errorf("%d bytes were counted", got)
		}
		take(t, a, key, o) // and a new handle begins anew
		if got := a.opt.Disk.Has(disk.Key(key)); got != key.Size {
			t.Errorf("%d bytes are on the disk", got)
		}
		if got := take(t, nextProcess(t, dir, 1<<30), key, o); !got.diskHits(disk.BlocksOf(key.Size)) {
			t.Errorf("the next process: %+v", got)
		}
	})
}

// TestDiskLeavesOthersFilesAlone fails when the cache, to make room, removes
// files that are not its own, however old; or when a file of its own that has
// no record stays for ever.
func TestDiskLeavesOthersFilesAlone(t *testing.T) {
	t.Parallel() // in no bubble: what was used longest ago goes by the system's time
	dir := t.TempDir()
	const bound = 8 * mib
	c := nextProcess(t, dir, bound)
	leave := func(name string) string {
		t.Helper()
		p := filepath.Join(dir, disk.Layout, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, noise(mib), 0o600); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(p, old, old); err != nil {
			t.Fatal(err)
		}
		return p
	}
	var others []string
	for _, name := range []string{"notes", "ab/notes", "ab/" + strings.Repeat("0", 61), "a/b/c"} {
		others = append(others, leave(name))
	}
	orphan := leave("ab/" + strings.Repeat("0", 62) + ".0123456789abcdef")
	for i := range 6 { // three times what there is room for
		o := &origin{data: noise(4*mib + i), validator: etag}
		take(t, c, Key{fmt.Sprint(i), int64(len(o.data)), ""}, o)
	}
	if got := c.opt.Disk.Used(); got > bound+manyOver {
		t.Errorf("%d bytes are used, for a bound of %d", got, bound)
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

// TestRoomIsCountedOnce fails when what a file takes on the disk is counted twice: then
// files leave a cache that is half empty.
func TestRoomIsCountedOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := nextProcess(t, dir, 1<<30)
	o := &origin{data: noise(4 * mib), validator: etag}
	take(t, c, Key{"x", 4 * mib, ""}, o)
	c.Wait()
	if used, most := c.opt.Disk.Used(), int64(4*mib+64<<10); used < 4*mib || used > most {
		t.Errorf("%d bytes are counted for a file of 4 MiB", used)
	}
}
