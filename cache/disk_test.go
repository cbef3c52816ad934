package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// TestDiskOutlivesTheProcess fails when what one process has fetched is fetched
// again by the next, or is taken for another file, or may be read by others.
func TestDiskOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	for name, whole := range origins() {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				dir := t.TempDir()
				o := &origin{data: noise(20*mib + 5), whole: whole, validator: etag}
				key := Key{"x", int64(len(o.data)), ""}
				take(t, nextProcess(t, dir, 1<<30), key, o)
				if got := take(t, nextProcess(t, dir, 1<<30), key, o); !got.diskHits(disk.BlocksOf(key.Size)) {
					t.Errorf("the next process: %+v", got)
				}
				// Another size, version or scope is another content.
				for _, k := range []Key{{"x", 100, ""}, {"x", key.Size, "w"}} {
					if got := nextProcess(t, dir, 1<<30).opt.Disk.Has(disk.Key(k)); got != 0 {
						t.Errorf("%v has %d bytes", k, got)
					}
				}
				scoped, err := disk.Open(dir, disk.Options{Bound: 1 << 30, Scope: "scope"})
				if err != nil {
					t.Fatal(err)
				}
				defer scoped.Close()
				if got := scoped.Has(disk.Key(key)); got != 0 {
					t.Errorf("another scope has %d bytes", got)
				}
				other := &origin{data: noise(100), validator: etag}
				if got, want := take(t, nextProcess(t, dir, 1<<30), Key{"x", 100, ""}, other), (counts{misses: 1, requests: 1, bytes: 100}); got != want {
					t.Errorf("another size: %+v, want %+v", got, want)
				}
				if st, err := os.Stat(filepath.Join(dir, disk.Layout)); err != nil {
					t.Error(err)
				} else if st.Mode().Perm() != 0o700 {
					t.Errorf("the directory has mode %v", st.Mode())
				}
			})
		})
	}
}

// TestDiskTakesUpAnUnfinishedContent fails when a file that an earlier process
// has fetched a part of is fetched from its beginning, though a validator tells
// that what is missing is of the same content; or is not, where none does.
func TestDiskTakesUpAnUnfinishedContent(t *testing.T) {
	t.Parallel()
	const size, part = 20 * mib, 5 * mib
	for name, c := range map[string]struct {
		validator func() string
		missing   int64
	}{
		"validator":    {etag, size - part},
		"no validator": {nil, size},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				dir := t.TempDir()
				o := &origin{data: noise(size), validator: c.validator}
				key := Key{"x", size, ""}
				first := nextProcess(t, dir, 1<<30)
				f := first.Open(key, o, true)
				if got := during(first, func() { readAt(t, f, 0, part) }); got.bytes != part {
					t.Errorf("a part: %+v", got)
				}
				f.Close()
				before := o.sent.Load()
				got := take(t, nextProcess(t, dir, 1<<30), key, o)
				if sent := o.sent.Load() - before; got.bytes != c.missing || sent != c.missing {
					t.Errorf("%d bytes came after the restart, want %d: %+v", sent, c.missing, got)
				}
				if there := (size - c.missing) / BlockSize; got.memory+got.disk < there {
					t.Errorf("%d blocks were there: %+v", there, got)
				}
			})
		})
	}
}

// TestDiskOfAnotherVersionIsNotMixedIn fails when blocks of an old version that
// are on disk are given together with those of the new one, or when the new one
// can't be read after that was found, once.
func TestDiskOfAnotherVersionIsNotMixedIn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := t.TempDir()
		o := &origin{data: noise(4 * mib), validator: etag}
		key := Key{"x", int64(len(o.data)), ""}
		c := nextProcess(t, dir, 1<<30)
		f := c.Open(key, o, true)
		readAt(t, f, 0, mib)
		f.Close()
		c.Wait()
		changed := &origin{data: bytes.Clone(o.data), validator: func() string { return `"w"` }}
		changed.data[0]++
		c = nextProcess(t, dir, 1<<30)
		f = c.Open(key, changed, true)
		if _, err := f.ReadAt(context.Background(), make([]byte, 10), 3*mib); err == nil {
			t.Error("blocks of two versions were mixed")
		}
		f.Close()
		if got := take(t, c, key, changed); got.bytes != key.Size {
			t.Errorf("the new version: %+v", got)
		}
		if got := take(t, nextProcess(t, dir, 1<<30), key, changed); !got.diskHits(disk.BlocksOf(key.Size)) {
			t.Errorf("the new version, read by the next process: %+v", got)
		}
	})
}

// TestSlowOriginsBlocksReachTheDisk fails when blocks of an origin that is slow are
// gathered for a large write while seconds pass: a kill loses them.
func TestSlowOriginsBlocksReachTheDisk(t *testing.T) {
	for name, whole := range origins() {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				dir := t.TempDir()
				o := &origin{data: noise(mib), whole: whole, validator: etag, pause: time.Second}
				key := Key{"x", mib, ""}
				f := nextProcess(t, dir, 1<<30).Open(key, o, true)
				defer f.Close()
				for came := int64(1); came <= 5; came++ {
					readAt(t, f, (came-1)*BlockSize, BlockSize)
					synctest.Wait()
					if kept := diskAt(t, dir, 1<<30).Has(disk.Key(key)); kept < (came-1)*BlockSize {
						t.Errorf("of %d blocks that came in as many seconds, %d bytes are on the disk", came, kept)
					}
				}
			})
		})
	}
}

// TestDiskIsShared fails when several processes that use one directory at once,
// which is too small for what they read, get a wrong byte, or leave it so that
// it keeps nothing any more.
func TestDiskIsShared(t *testing.T) {
	t.Parallel() // in no bubble: what was used longest ago goes by the system's time
	dir := t.TempDir()
	const size = 3 * mib
	const bound = 20 * mib // of 24: there is eviction, too
	keyOf := func(i int) Key { return Key{fmt.Sprint(i), size + int64(i), ""} }
	originOf := func(i int) *origin { return &origin{data: noise(size + i), validator: etag} }
	var wg sync.WaitGroup
	var caches []*Cache
	for p := range 4 {
		c := nextProcess(t, dir, bound)
		caches = append(caches, c)
		for range 2 {
			wg.Go(func() {
				for round := range 6 {
					i := (round + p) % 8
					f := c.Open(keyOf(i), originOf(i), true)
					wantBytes(t, f, noise(size+i))
					f.Close()
				}
			})
		}
	}
	wg.Wait()
	for _, c := range caches { // none of them evicts behind what is read now
		c.Wait()
		c.opt.Disk.Close()
	}
	last := memoryCache(t, Options{Disk: diskAt(t, dir, bound), Memory: mib, Requests: 1})
	take(t, last, keyOf(0), originOf(0))
	if got := take(t, nextProcess(t, dir, bound), keyOf(0), originOf(0)); !got.diskHits(disk.BlocksOf(size)) {
		t.Errorf("it is not kept any more: %+v", got)
	}
}

// TestDiskIsSharedWhileOpen fails when a process that has a file open fetches
// what another one has brought meanwhile.
func TestDiskIsSharedWhileOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := t.TempDir()
		o := &origin{data: noise(8 * mib), validator: etag}
		key := Key{"x", int64(len(o.data)), ""}
		a, b := nextProcess(t, dir, 1<<30), nextProcess(t, dir, 1<<30)
		fa, fb := a.Open(key, o, true), b.Open(key, o, true)
		defer fa.Close()
		defer fb.Close()
		readAt(t, fb, 0, 10)
		readAt(t, fa, 0, 10)
		b.Wait()
		a.Wait()
		wantBytes(t, fa, o.data)
		a.Wait()
		before := o.sent.Load()
		got := during(b, func() { wantBytes(t, fb, o.data) })
		if sent := o.sent.Load() - before; sent > 0 || got.requests > 0 || got.disk == 0 {
			t.Errorf("%d bytes were fetched that were on the disk: %+v", sent, got)
		}
		if got := during(b, func() { wantBytes(t, fb, o.data) }); !got.diskHits(disk.BlocksOf(key.Size)) {
			t.Errorf("read again: %+v", got)
		}
	})
}

// TestDiskOpenToOthersIsRefused fails when the cache takes a directory that
// other users may read, who would see every file of the mount.
func TestDiskOpenToOthersIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	diskAt(t, dir, 1<<30)
	if err := os.Chmod(filepath.Join(dir, disk.Layout), 0o755); err != nil {
		t.Fatal(err)
	}
	if d, err := disk.Open(dir, disk.Options{Bound: 1 << 30}); err == nil {
		d.Close()
		t.Error("a directory that others may read was taken")
	}
}

// TestNoSecretOnDisk fails when the cache writes to its disk, in a name or in a
// file, the credentials that are in the address of what it keeps.
func TestNoSecretOnDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := &origin{data: noise(100), validator: etag}
	key := Key{"https://user:secret@host/x?sig=secret", 100, ""}
	take(t, nextProcess(t, dir, 1<<30), key, o)
	if got := take(t, nextProcess(t, dir, 1<<30), key, o); !got.diskHits(1) {
		t.Errorf("it is not on the disk: %+v", got)
	}
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

// TestFileThatWasWrittenToIsVerifiedAgain fails when a file of the cache that
// another hand wrote to, while this process had it closed, gives a wrong byte,
// or is given away without a look at it.
func TestFileThatWasWrittenToIsVerifiedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := t.TempDir()
		c := nextProcess(t, dir, 1<<30)
		o := &origin{data: noise(4 * mib), validator: etag}
		key := Key{"x", int64(len(o.data)), ""}
		take(t, c, key, o)
		p, _ := filesOf(t, dir, 0)
		if err := errors.Join(flipBit(p, 5), os.Chtimes(p, time.Unix(1, 0), time.Unix(1, 0))); err != nil {
			t.Fatal(err)
		}
		wantOneDamaged(t, c, key, o)
	})
}

// TestDiskTakesAsMuchAsItHolds fails when a cache with room for a file evicts
// another, or counts bytes that are not there.
func TestDiskTakesAsMuchAsItHolds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := t.TempDir()
		c := nextProcess(t, dir, 16*mib)
		for _, location := range []string{"a", "b"} {
			take(t, c, Key{location, 6 * mib, ""}, &origin{data: noise(6 * mib), validator: etag})
		}
		for _, location := range []string{"a", "b"} {
			if got := c.opt.Disk.Has(disk.Key(Key{location, 6 * mib, ""})); got != 6*mib {
				t.Errorf("%d bytes of %s are kept", got, location)
			}
		}
		if got, want := c.opt.Disk.Used(), usage(t, dir); got > want+mib {
			t.Errorf("counted %d, and it takes %d", got, want)
		}
	})
}
