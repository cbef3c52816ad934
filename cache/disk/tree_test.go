package disk

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// model is the entries of a directory with two contents and what no store has.
func model(size int64) []Entry {
	return []Entry{
		{Path: "m", Dir: true},
		{Path: "m/w.bin", Key: keyOf("w", size)},
		{Path: "m/sub", Dir: true},
		{Path: "m/sub/x.bin", Key: keyOf("x", size)},
		{Path: "m/registered_model_meta", Text: "model_name: m\n"},
		{Path: "m/empty", Dir: true},
	}
}

// put puts the contents of entries, which are made where they are missing, into a tree.
func put(d *Dir, entries []Entry) func(*Builder) error {
	return func(b *Builder) error {
		for _, e := range entries {
			if !e.kept() {
				continue
			}
			f, err := d.Create(e.Key, "v")
			if err != nil {
				return err
			}
			if err = errors.Join(write(f, 0, BlocksOf(f.size)), holds(f)); err == nil {
				err = b.Put(f)
			}
			f.Close()
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// plant gives the tree of entries, let go of.
func plant(t *testing.T, d *Dir, entries []Entry) (root string) {
	t.Helper()
	tree, err := d.Tree(t.Context(), entries, put(d, entries))
	if err != nil {
		t.Fatal(err)
	}
	if err := right(tree.Path, entries); err != nil {
		t.Error(err)
	}
	tree.Close()
	return tree.Path
}

// right tells whether a directory has just the entries, each with its bytes.
func right(root string, entries []Entry) error {
	want := map[string]string{".": ""}
	for _, e := range entries {
		want[e.Path] = e.Text
		if e.kept() {
			want[e.Path] = string(noise()[:e.Key.Size])
		}
	}
	return filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, p)
		text, ok := want[name]
		if !ok {
			return errors.New(p + " is there")
		}
		st, err := e.Info()
		if err != nil || e.IsDir() {
			return err
		}
		if b, err := os.ReadFile(p); err != nil || string(b) != text || st.Mode().Perm() != 0o444 {
			return errors.Join(errors.New(p+" is wrong"), err)
		}
		return nil
	})
}

// treeOf is the directory that a path of Tree.Path lies in.
func treeOf(root string) string { return filepath.Dir(root) }

// usedLongAgo has a tree, and each content beside it, as if nobody had used it for hours.
func usedLongAgo(t *testing.T, d *Dir, root string) {
	t.Helper()
	old := time.Now().Add(-time.Hour)
	records, _ := filepath.Glob(filepath.Join(treeOf(root), "held", "*"))
	for _, p := range append(records, filepath.Join(treeOf(root), "lock")) {
		if err := os.Chtimes(p, old, old); err != nil {
			t.Fatal(err)
		}
	}
}

// truthOfAll is the bytes of disk that contents and trees take, links once.
func truthOfAll(dir string) (n int64) {
	seen := map[uint64]bool{}
	filepath.WalkDir(filepath.Join(dir, Layout), func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.Count(strings.TrimPrefix(p, filepath.Join(dir, Layout)), "/") < 2 {
			return nil
		}
		st, err := e.Info()
		if ino := inode(st); err == nil && !seen[ino] {
			seen[ino] = true
			n += onDisk(st)
		}
		return nil
	})
	return n
}

func inode(st os.FileInfo) uint64 { return st.Sys().(*syscall.Stat_t).Ino }

// TestTreeIsMadeOnce fails when processes that ask for one tree at once make it more
// than once, or get another than each other; when the next one moves a byte; or when
// the disk has its bytes twice.
func TestTreeIsMadeOnce(t *testing.T) {
	t.Parallel()
	const size = 2*mib + 11
	dir := t.TempDir()
	var made atomic.Int64
	var all sync.WaitGroup
	roots := make([]string, 6)
	for i := range roots {
		d := open(t, dir, 1<<30)
		all.Go(func() {
			entries := model(size)
			tree, err := d.Tree(t.Context(), entries, func(b *Builder) error {
				made.Add(1)
				return put(d, entries)(b)
			})
			if err != nil {
				t.Error(err)
				return
			}
			defer tree.Close()
			roots[i] = tree.Path
		})
	}
	all.Wait()
	for _, r := range roots {
		if r != roots[0] || r == "" {
			t.Errorf("one got %s, and one %s", roots[0], r)
		}
	}
	if err := right(roots[0], model(size)); err != nil || made.Load() != 1 {
		t.Errorf("it was made %d times: %v", made.Load(), err)
	}
	d := open(t, dir, 1<<30)
	tree, err := d.Tree(t.Context(), model(size), func(*Builder) error { return errors.New("it is made again") })
	if err != nil || tree.Path != roots[0] {
		t.Fatal(tree, err)
	}
	tree.Close()
	if n := truthOfAll(dir); n > 2*size+256<<10 {
		t.Errorf("%d bytes of disk for two files of %d", n, int64(size))
	}
	other := model(size)
	other[1].Key.Version = "another"
	if plant(t, d, other) == roots[0] {
		t.Error("another content has the same path")
	}
}

// TestTreesCountExactly fails when what is counted for trees and contents is not what
// the disk has, while trees come and go.
func TestTreesCountExactly(t *testing.T) {
	t.Parallel()
	const size = mib + 5
	dir := t.TempDir()
	d := open(t, dir, 1<<30)
	is := func(what string) {
		t.Helper()
		if is, want := d.Used(), truthOfAll(dir); is != want {
			t.Errorf("%s: %d bytes are counted, and %d are there", what, is, want)
		}
	}
	root := plant(t, d, model(size))
	is("made")
	second := model(size)[:2] // of the same content
	plant(t, d, second)
	is("made of what is there")
	if err := d.exclusive(d.scan); err != nil {
		t.Fatal(err)
	}
	is("scanned")
	l := treeAt(t, d, model(size))
	held, ok := d.root.Open(l.lock())
	if ok != nil || flock(held, syscall.LOCK_SH) != nil {
		t.Fatal(ok)
	}
	if _, inUse, err := d.EvictTrees([]Key{keyOf("w", size)}); err != nil || inUse != 1 {
		t.Errorf("%d are in use: %v", inUse, err)
	}
	for _, e := range model(size) {
		if e.kept() {
			if _, err := d.Evict(e.Key); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := right(root, model(size)); err != nil {
		t.Errorf("it was taken from who uses it: %v", err)
	}
	is("evicted while somebody uses it")
	held.Close()
	old := time.Now().Add(-time.Hour)
	os.Chtimes(filepath.Join(treeOf(root), "lock"), old, old)
	os.Chtimes(treeOf(root), old, old)
	if err := d.exclusive(d.scan); err != nil {
		t.Fatal(err)
	}
	is("scanned again")
	if _, err := os.Stat(root); err == nil || d.Used() != 0 {
		t.Errorf("what nobody uses is there: %v, %d bytes", err, d.Used())
	}
}

// treeAt is what is told of the tree of entries.
func treeAt(t *testing.T, d *Dir, entries []Entry) *treeLabel {
	t.Helper()
	l, err := d.readTree(d.treeName(inOrder(entries)))
	if err != nil || l == nil {
		t.Fatal(l, err)
	}
	return l
}

// TestTreeIsEvicted fails when trees that were used long ago keep contents and trees
// of now from having room; when a tree goes that is pinned, in use, or was given a
// moment ago; when the bound is not kept; or when eviction does not end.
func TestTreeIsEvicted(t *testing.T) {
	t.Parallel()
	const size, bound = mib, 8 * mib
	for name, c := range map[string]struct {
		with  func(t *testing.T, d *Dir, root string)
		stays bool
	}{
		"used long ago":      {usedLongAgo, false},
		"given a moment ago": {func(*testing.T, *Dir, string) {}, true},
		"pinned": {func(t *testing.T, d *Dir, root string) {
			usedLongAgo(t, d, root)
			d.Pin(keyOf("x", size), false)
		}, true},
		"in use": {func(t *testing.T, d *Dir, root string) {
			usedLongAgo(t, d, root)
			f, err := os.Open(filepath.Join(treeOf(root), "lock"))
			if err == nil {
				err = flock(f, syscall.LOCK_SH)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			d := open(t, dir, bound)
			root := plant(t, d, model(size))
			c.with(t, d, root)
			for i := range 20 {
				keep(t, d, string(rune('a'+i)), size)
			}
			<-d.kick()
			<-d.kick()
			if n := d.Used(); n > bound || n < bound/2 || n != truthOfAll(dir) {
				t.Errorf("%d bytes are counted, of a bound of %d, and %d are there", n, int64(bound), truthOfAll(dir))
			}
			if err := right(root, model(size)); (err == nil) != c.stays {
				t.Errorf("it stays: %v", err)
			}
			for _, key := range []Key{keyOf("w", size), keyOf("x", size)} {
				if n := d.Has(key); (n == size) != c.stays {
					t.Errorf("%d bytes of its content are there", n)
				}
			}
			plant(t, d, model(size)) // it is the same, or comes again
		})
	}
}

// TestDamagedTreeIsMadeAnew fails when a tree is given in which a program has written,
// or whose bytes a power loss has taken.
func TestDamagedTreeIsMadeAnew(t *testing.T) {
	t.Parallel()
	const size = mib
	turn := func(p string) error {
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		st, _ := os.Stat(p)
		b[len(b)/2]++
		os.Chmod(p, 0o600)
		defer os.Chmod(p, 0o444)
		f, err := os.OpenFile(p, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err = f.WriteAt(b, 0); err == nil {
			err = os.Chtimes(p, st.ModTime(), st.ModTime())
		}
		return err
	}
	for name, c := range map[string]struct {
		damage func(root string) error
		boot   string
		same   bool
	}{
		"another boot":               {func(string) error { return nil }, "another", true},
		"a turned bit before a boot": {func(root string) error { return turn(root + "/m/w.bin") }, "another", false},
		"a text's bit before a boot": {func(root string) error { return turn(root + "/m/registered_model_meta") }, "another", false},
		"a program that writes": {func(root string) error {
			old := time.Now().Add(-time.Hour)
			return errors.Join(turn(root+"/m/w.bin"), os.Chtimes(root+"/m/w.bin", old, old))
		}, "", false},
		"a program that touches": {func(root string) error { return os.Chtimes(root+"/m/w.bin", time.Now(), time.Now().Add(-time.Hour)) }, "", true},
		"a file that is gone":    {func(root string) error { return os.Remove(root + "/m/w.bin") }, "", false},
		"no marks after a power loss": {func(root string) error {
			records, _ := filepath.Glob(treeOf(root) + "/held/*")
			return os.Truncate(records[0], headSize)
		}, "another", false},
		"its directory is gone": {func(root string) error { return os.RemoveAll(treeOf(root)) }, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := open(t, t.TempDir(), 1<<30)
			entries := model(size)
			root := plant(t, d, entries)
			if err := c.damage(root); err != nil {
				t.Fatal(err)
			}
			if l := treeAt(t, d, entries); c.boot != "" {
				l.Boot = c.boot
				if err := d.writeTree(l, l.name.tree()); err != nil {
					t.Fatal(err)
				}
			}
			made := false
			tree, err := d.Tree(t.Context(), entries, func(b *Builder) error {
				made = true
				for _, e := range entries { // as who reads them does: what is damaged is begun anew
					if e.kept() {
						d.Evict(e.Key)
					}
				}
				return put(d, entries)(b)
			})
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			if err := right(tree.Path, entries); err != nil {
				t.Error(err)
			}
			if same := tree.Path == root; same != c.same || made == c.same {
				t.Errorf("it is the same: %v; it was made: %v", same, made)
			}
			if l := treeAt(t, d, entries); l.Boot != boot() {
				t.Error("it will be verified again")
			}
		})
	}
}

// TestSharedFileIsNotWrittenTo fails when the cache writes to a file that others have
// under names of their own, or goes on with one that is damaged.
func TestSharedFileIsNotWrittenTo(t *testing.T) {
	t.Parallel()
	const size = 4 * BlockSize
	for _, where := range []string{"a tree", "a directory of the user's"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			d, other := open(t, dir, 1<<30), open(t, dir, 1<<30)
			key := keyOf("w", size)
			begun := create(t, other, "w", size, "v") // by another process, which has nothing of it yet
			f := create(t, d, "w", size, "v")
			fill(t, f)
			shared := filepath.Join(t.TempDir(), "w")
			if where == "a tree" {
				entries := []Entry{{Path: "w", Key: key}}
				shared = plant(t, d, entries) + "/w"
			} else {
				root, err := os.OpenRoot(filepath.Dir(shared))
				if err != nil {
					t.Fatal(err)
				}
				defer root.Close()
				for range 2 { // over itself, too
					if err := f.PutAt(root, "w"); err != nil {
						t.Fatal(err)
					}
				}
				if left, _ := os.ReadDir(filepath.Dir(shared)); len(left) != 1 {
					t.Errorf("left behind: %v", left)
				}
			}
			before, _ := os.Stat(shared)
			if err := write(begun, 1, 2); err != nil {
				t.Errorf("what is there can't be written: %v", err)
			}
			if there, _ := begun.Has(1); !there || d.Has(key) != size {
				t.Error("the other process does not have it")
			}
			f.Forget(2) // it could not be read
			if err := write(f, 2, 1); !errors.Is(err, ErrGone) {
				t.Errorf("a block of a file that is shared is written anew: %v", err)
			}
			if now, _ := os.Stat(shared); now.ModTime() != before.ModTime() {
				t.Error("the file was written to")
			}
			if d.Has(key) > 0 || f.Current() {
				t.Error("the damaged content stays")
			}
			if b, err := os.ReadFile(shared); err != nil || string(b) != string(noise()[:size]) {
				t.Errorf("who has it lost it: %v", err)
			}
			again := create(t, d, "w", size, "v")
			fill(t, again)
			if again.Nonce() == f.Nonce() {
				t.Error("it was not begun anew")
			}
			if where == "a tree" {
				if _, err := d.Tree(t.Context(), []Entry{{Path: "w", Key: key}}, func(*Builder) error { return errUnfinished }); !errors.Is(err, errUnfinished) {
					t.Errorf("the tree with the damaged file is given again: %v", err)
				}
			}
		})
	}
}

// TestReplacedContentTakesItsTree fails when a tree is given whose content was seen
// replaced at its origin under the same key.
func TestReplacedContentTakesItsTree(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir(), 1<<30)
	root := plant(t, d, model(mib))
	create(t, d, "w", mib, "v2")
	tree, err := d.Tree(t.Context(), model(mib), func(b *Builder) error {
		for _, e := range model(mib) {
			if e.kept() {
				d.Evict(e.Key)
			}
		}
		return put(d, model(mib))(b)
	})
	if err != nil || tree.Path == root {
		t.Fatal(tree, err)
	}
	tree.Close()
}

// TestTreeOrphansGo fails when what a process leaves that was killed while it made a
// tree stays for ever, keeps the tree from being made, or goes while it is made.
func TestTreeOrphansGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir, 1<<30)
	entries := model(mib)
	var half *Builder
	if _, err := d.Tree(t.Context(), entries, func(b *Builder) error {
		b.abandon() // below, another is left as by a kill
		var err error
		if half, err = d.newBuilder(b.label.name, entries); err == nil {
			err = put(d, entries[:2])(half)
		}
		return errors.Join(err, errUnfinished)
	}); !errors.Is(err, errUnfinished) {
		t.Fatal(err)
	}
	left := filepath.Join(dir, Layout, half.label.dir())
	lock := filepath.Join(dir, Layout, treesDir, half.label.name.path()+makeExt)
	if err := os.WriteFile(lock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * orphanAge)
	age := func() {
		for _, p := range []string{left, lock, left + "/lock"} {
			os.Chtimes(p, old, old)
		}
	}
	scan := func() {
		if err := d.exclusive(d.scan); err != nil {
			t.Fatal(err)
		}
	}
	age()
	scan()
	if _, err := os.Stat(left); err != nil {
		t.Errorf("it is taken from who makes it: %v", err)
	}
	half.lock.Close() // it is killed
	os.Chtimes(left, time.Now(), time.Now())
	scan()
	if _, err := os.Stat(left); err != nil {
		t.Errorf("it goes at once: %v", err)
	}
	root := plant(t, d, entries)
	age()
	scan()
	for _, p := range []string{left, lock} {
		if _, err := os.Stat(p); err == nil {
			t.Errorf("%s stays", p)
		}
	}
	if err := right(root, entries); err != nil {
		t.Error(err)
	}
	if is, want := d.Used(), truthOfAll(dir); is != want {
		t.Errorf("%d bytes are counted, and %d are there", is, want)
	}
}

// TestStoppedMakerKeepsNobody fails when a process that was stopped while it makes a
// tree keeps others from having it, or when the wait for one does not end with its
// context.
func TestStoppedMakerKeepsNobody(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d, stopped := open(t, dir, 1<<30), open(t, dir, 1<<30)
	entries := model(mib)
	release, err := stopped.makes(t.Context(), d.treeName(inOrder(entries)))
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), 3*lockPoll)
	defer cancel()
	if _, err := d.Tree(ctx, entries, put(d, entries)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("two make one: %v", err)
	}
	locks, _ := filepath.Glob(filepath.Join(dir, Layout, treesDir, "*", "*"+makeExt))
	old := time.Now().Add(-2 * makerGone)
	if len(locks) != 1 || os.Chtimes(locks[0], old, old) != nil {
		t.Fatal(locks)
	}
	plant(t, d, entries)
}

// TestTreeReachesNothingElse fails when a name that a server gives leads out of the
// directory that is made.
func TestTreeReachesNothingElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir, 1<<30)
	for _, p := range []string{"../x", "a/../../x", "/x", "..", "a/./b", "", "a//b"} {
		for _, e := range []Entry{{Path: p, Text: "text"}, {Path: p, Dir: true}, {Path: p, Key: keyOf("w", mib)}} {
			if tree, err := d.Tree(t.Context(), []Entry{e}, put(d, []Entry{e})); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%q: %v, %v", p, tree, err)
			}
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, Layout, treesDir, "*", "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
