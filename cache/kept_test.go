package cache

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// kept has a content in the directory, and gives what its file holds.
func kept(t *testing.T, c *Cache, key Key, src Source) (data []byte, err error) {
	t.Helper()
	there := int64(0)
	err = c.Keep(t.Context(), key, src, func(n int64) { there += n }, func(f *disk.File) error {
		data = make([]byte, key.Size)
		_, err := f.Backing().ReadAt(data, 0)
		return err
	})
	if err == nil && there != key.Size {
		t.Errorf("progress was told of %d bytes of %d", there, key.Size)
	}
	return data, err
}

// TestKeepGivesAllOfIt fails when a content that is to be kept is not whole in its
// file, of an origin with ranges or without, or is fetched by the next process.
func TestKeepGivesAllOfIt(t *testing.T) {
	t.Parallel()
	for name, whole := range origins() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const size = 3<<20 + 7
			dir := t.TempDir()
			o := &origin{data: noise(size), whole: whole, validator: etag}
			for i := range 3 {
				c := nextProcess(t, dir, 1<<30)
				key := Key{"k", size, ""}
				if data, err := kept(t, c, key, o); err != nil || string(data) != string(o.data) {
					t.Errorf("process %d: it is not whole, %v", i, err)
				}
				if n := o.sent.Load(); n != size {
					t.Errorf("process %d: %d bytes came of %d", i, n, size)
				}
				if d := during(c, func() { kept(t, c, key, o) }); !d.hits(disk.BlocksOf(size)) {
					t.Errorf("process %d, again: %+v", i, d)
				}
			}
		})
	}
}

// TestKeepBeginsAnewWhatIsShared fails when damage in a content whose file somebody has
// under another name is mended in that file, or is given.
func TestKeepBeginsAnewWhatIsShared(t *testing.T) {
	t.Parallel()
	const size = 2 << 20
	dir, own := t.TempDir(), t.TempDir()
	o := &origin{data: noise(size), validator: etag}
	key := Key{"k", size, ""}
	root, err := os.OpenRoot(own)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	share := func(f *disk.File) error { return f.PutAt(root, "mine") }
	if err := nextProcess(t, dir, 1<<30).Keep(t.Context(), key, o, func(int64) {}, share); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(own, "mine")
	b, err := os.ReadFile(mine)
	if err != nil || string(b) != string(o.data) {
		t.Fatalf("it is wrong, %v", err)
	}
	data, _ := filesOf(t, dir, size)
	b[size/2]++
	if err := errors.Join(os.Chmod(data, 0o600), os.WriteFile(data, b, 0o600), os.Chmod(data, 0o444)); err != nil {
		t.Fatal(err)
	}
	came := o.sent.Load()
	c := nextProcess(t, dir, 1<<30)
	if data, err := kept(t, c, key, o); err != nil || string(data) != string(o.data) {
		t.Errorf("it is wrong, %v", err)
	}
	if n := o.sent.Load() - came; n < size || n > size+BlockSize {
		t.Errorf("%d bytes came of %d", n, size)
	}
	if is, err := os.ReadFile(mine); err != nil || string(is) != string(b) {
		t.Errorf("a file was written to that somebody has, %v", err)
	}
}

// TestKeepSaysWhyNot fails when what the disk can't keep is not told from what the
// origin does not give.
func TestKeepSaysWhyNot(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	key := Key{"k", size, ""}
	o := &origin{data: noise(size), validator: etag}
	var not *ErrNotKept
	if _, err := kept(t, memoryCache(t, Options{}), key, o); !errors.As(err, &not) {
		t.Errorf("without a disk: %v", err)
	}
	if _, err := kept(t, nextProcess(t, t.TempDir(), 1<<20), key, o); !errors.As(err, &not) || !errors.Is(err, disk.ErrNoRoom) {
		t.Errorf("without room: %v", err)
	}
	down := errors.New("the origin is down")
	fails := sourceFunc(func(int64, int64) (*Body, error) { return nil, down })
	if _, err := kept(t, nextProcess(t, t.TempDir(), 1<<30), key, fails); errors.As(err, &not) || !errors.Is(err, down) {
		t.Errorf("of an origin that is down: %v", err)
	}
}
