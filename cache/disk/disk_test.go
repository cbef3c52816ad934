package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// TestMain fails the package when a test leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mib = 1 << 20

func open(t *testing.T, dir string, bound int64) *Dir {
	t.Helper()
	d, err := Open(dir, Options{
		Bound: bound, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Patience: time.Minute, // a busy test machine is no broken disk
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

var noise = sync.OnceValue(func() []byte {
	b := make([]byte, 20*mib)
	rand.NewChaCha8([32]byte{2}).Read(b)
	return b
})

func keyOf(location string, size int64) Key { return Key{location, size, ""} }

// create makes a content of size bytes of noise.
func create(t *testing.T, d *Dir, location string, size int64, validator string) *File {
	t.Helper()
	f, err := d.Create(keyOf(location, size), validator)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// fill writes all of a content, and waits for that.
func fill(t *testing.T, f *File) {
	t.Helper()
	if err := write(f, 0, BlocksOf(f.size)); err != nil {
		t.Fatal(err)
	}
}

// keep makes a content, whole, and closes it.
func keep(t *testing.T, d *Dir, location string, size int64) *File {
	t.Helper()
	f := create(t, d, location, size, "v")
	fill(t, f)
	f.Close()
	return f
}

// write writes n blocks from first on, and gives the error of that.
func write(f *File, first, n int64) error {
	r := Run{First: first, Released: func() {}}
	done := make(chan error, 1)
	r.Written = func(err error) { done <- err }
	for i := first; i < first+n; i++ {
		b := noise()[i*BlockSize : i*BlockSize+BlockLen(f.size, i)]
		r.Data, r.Sums = append(r.Data, b), append(r.Sums, Sum(b))
	}
	f.Write(r)
	return <-done
}

// holds tells what is wrong with what can be read of f.
func holds(f *File) error {
	for i := range BlocksOf(f.size) {
		if there, _ := f.Has(i); !there {
			continue
		}
		b := make([]byte, BlockLen(f.size, i))
		if err := f.Verify(i, b, func() {}); err != nil {
			return err
		}
		if !bytes.Equal(b, noise()[i*BlockSize:][:len(b)]) {
			return fmt.Errorf("block %d is wrong", i)
		}
	}
	return nil
}

// find opens a content, which must be there.
func find(t *testing.T, d *Dir, key Key) *File {
	t.Helper()
	f, err := d.Find(key)
	if err != nil || f == nil {
		t.Fatalf("%v is not there: %v", key, err)
	}
	t.Cleanup(f.Close)
	return f
}

// TestContentOutlivesTheProcess fails when what one process wrote is not found by
// the next, whole and right, or is found under another name.
func TestContentOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := open(t, dir, 1<<30)
	f := keep(t, a, "x", 5*mib+7)
	b := open(t, dir, 1<<30)
	g := find(t, b, f.key())
	if err := holds(g); err != nil || !g.Complete() || g.Validator() != "v" || g.Backing() == nil {
		t.Errorf("%v, complete %v, %q", err, g.Complete(), g.Validator())
	}
	for _, k := range []Key{{"y", f.size, ""}, {"x", f.size + 1, ""}, {"x", f.size, "w"}} {
		if n := b.Has(k); n > 0 {
			t.Errorf("%v has %d bytes", k, n)
		}
	}
}

func (f *File) key() Key { return keyOf("x", f.size) }

// TestReplacedFileIsAnother fails when a content that was replaced can be taken
// for what it was: it must have another nonce; who has the old one open reads
// that on, and can add nothing to either.
func TestReplacedFileIsAnother(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := open(t, dir, 1<<30), open(t, dir, 1<<30)
	old := create(t, a, "x", 2*mib, "v1")
	if err := write(old, 0, 4); err != nil {
		t.Fatal(err)
	}
	replaced, err := b.Create(old.key(), "v2")
	if err != nil {
		t.Fatal(err)
	}
	defer replaced.Close()
	if replaced.Nonce() == old.Nonce() || replaced.Bytes() > 0 {
		t.Errorf("the new file holds %d bytes", replaced.Bytes())
	}
	if err := write(old, 4, 4); !errors.Is(err, ErrGone) {
		t.Errorf("a write to what was replaced: %v", err)
	}
	if err := holds(old); err != nil {
		t.Error(err)
	}
	if err := old.Remove(); err != nil {
		t.Error(err)
	}
	if f := find(t, a, old.key()); f.Nonce() != replaced.Nonce() {
		t.Error("the name does not lead to the new file")
	}
}

// TestUnfinishedContentWantsAValidator fails when a part of a content is taken up
// though nothing tells whether what is missing would be of the same.
func TestUnfinishedContentWantsAValidator(t *testing.T) {
	t.Parallel()
	for validator, want := range map[string]int64{"": 0, "v": 4 * BlockSize} {
		d := open(t, t.TempDir(), 1<<30)
		f := create(t, d, "x", 2*mib, validator)
		if err := write(f, 0, 4); err != nil {
			t.Fatal(err)
		}
		if n := d.Has(f.key()); n != want {
			t.Errorf("with the validator %q %d bytes are there, want %d", validator, n, want)
		}
	}
}

// TestEachKindOfErrorRestsItsOwn fails when an error of one file's, of the
// process's or of room rests the disk; when one of the device's does not; or when
// operations of another kind rest, too.
func TestEachKindOfErrorRestsItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			err   error
			rests map[op]bool // of opRead and opWrite
		}{
			{os.ErrNotExist, nil}, {os.ErrClosed, nil}, {syscall.ESTALE, nil}, {io.EOF, nil}, {ErrDamaged, nil}, {ErrNoRoom, nil}, {errPanic, nil},
			{syscall.EMFILE, nil}, {syscall.ENFILE, nil}, {syscall.ENOMEM, nil}, {syscall.EFBIG, nil},
			{syscall.ENOSPC, map[op]bool{opWrite: true}}, {syscall.EDQUOT, map[op]bool{opWrite: true}}, {syscall.EROFS, map[op]bool{opWrite: true}},
		} {
			for _, o := range []op{opRead, opWrite} {
				d := open(t, t.TempDir(), 1<<30)
				if err := d.try(o, func() error { return &os.PathError{Op: "x", Err: c.err} }); !errors.Is(err, c.err) {
					t.Errorf("%v becomes %v", c.err, err)
				}
				for _, x := range []op{opOpen, opMake, opRead, opWrite} {
					if d.may(x) == c.rests[x] {
						t.Errorf("%v on %d: %d rests: %v", c.err, o, x, !d.may(x))
					}
				}
				d.Close()
			}
		}
		d := open(t, t.TempDir(), 1<<30)
		d.try(opMake, func() error { return syscall.EIO })
		if d.may(opMake) || !d.may(opRead) || !d.may(opWrite) || !d.may(opOpen) {
			t.Error("EIO rests what did not fail, or not what did")
		}
		time.Sleep(resting + time.Second)
		if err := d.try(opMake, func() error { return nil }); err != nil || !d.may(opMake) {
			t.Errorf("it is well again: %v", err)
		}
		d.Close()
	})
}

// TestHangRestsItsOwnKind fails when an operation that hangs is waited for without
// end; when operations of its kind are tried before it is back; or when others
// wait for it.
func TestHangRestsItsOwnKind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, err := Open(t.TempDir(), Options{Bound: mib})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		back := make(chan struct{})
		begin := time.Now()
		late := make(chan int, 1)
		_, err = do(d, opMake, func() (int, error) { <-back; return 7, nil }, func(n int) { late <- n })
		if err != errSlow || time.Since(begin) > patience {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		time.Sleep(time.Hour)
		if d.may(opMake) || !d.may(opRead) {
			t.Error("what hangs is tried, or what does not hang rests")
		}
		close(back)
		if n := <-late; n != 7 {
			t.Error(n)
		}
		synctest.Wait()
		if !d.may(opMake) {
			t.Error("it is back")
		}
	})
}

// TestDiskWithoutStatIsReadAndWritten fails when a disk that answers no stat takes
// no more, or when what is on it is not found.
func TestDiskWithoutStatIsReadAndWritten(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir(), 1<<30)
	d.rests[opStat].stuck.Store(1)
	f := create(t, d, "x", 4*mib, "v")
	fill(t, f)
	f.Refresh(0, BlocksOf(f.size))
	if err := holds(find(t, d, f.key())); err != nil || d.Has(f.key()) != f.size {
		t.Errorf("%d bytes are there, %v", d.Has(f.key()), err)
	}
	if st, err := f.record.Stat(); err != nil || st.Size() != headSize+markSize*BlocksOf(f.size) {
		t.Errorf("reads of the marks pass the record's end: %v, %v", st.Size(), err)
	}
}

// TestLockIsNobodysWait fails when a lock that another process holds keeps anybody
// waiting that reads or writes, or counts as a fault of the disk.
func TestLockIsNobodysWait(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir, 1<<30)
	other, err := os.OpenFile(filepath.Join(dir, Layout, lockFile), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := flock(other, syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	f := keep(t, d, "x", 4*mib)
	if err := holds(find(t, d, f.key())); err != nil {
		t.Error(err)
	}
	if _, err := d.Evict(f.key()); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it took %v", took)
	}
	for o := range allOps {
		if !d.may(o) {
			t.Errorf("operations of kind %d rest", o)
		}
	}
}

// TestLockIsALock fails when two goroutines count or evict at once, or when a
// process does beside another.
func TestLockIsALock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var wg sync.WaitGroup
	var mu sync.Mutex
	in := 0
	for range 3 {
		d := open(t, dir, 1<<30)
		for range 3 {
			wg.Go(func() {
				for range 10 {
					err := d.exclusive(func() error {
						mu.Lock()
						in++
						if in > 1 {
							t.Error("two are in at once")
						}
						mu.Unlock()
						time.Sleep(time.Millisecond)
						mu.Lock()
						in--
						mu.Unlock()
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
}

// TestOldestGoesFirst fails when eviction takes what was used lately before what
// was not, what is pinned, or what this process has open; or leaves more than
// the bound.
func TestOldestGoesFirst(t *testing.T) {
	t.Parallel()
	const size, bound = mib, 8 * mib
	dir := t.TempDir()
	d := open(t, dir, bound)
	var keys []Key
	for i := range 7 {
		f := create(t, d, fmt.Sprint(i), size, "v")
		fill(t, f)
		if i != 1 {
			f.Close()
		}
		keys = append(keys, keyOf(fmt.Sprint(i), size))
		old := time.Now().Add(time.Duration(i-100) * time.Hour)
		if err := os.Chtimes(filepath.Join(dir, Layout, d.name(keys[i]).path()+recordExt), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Pin(keys[0], false); err != nil {
		t.Fatal(err)
	}
	for i := 7; i < 11; i++ {
		keep(t, d, fmt.Sprint(i), size)
		keys = append(keys, keyOf(fmt.Sprint(i), size))
	}
	if d.Used() > bound {
		t.Errorf("%d bytes are there", d.Used())
	}
	for i, want := range []bool{true, true, false, false, false} {
		if got := d.Has(keys[i]) > 0; got != want {
			t.Errorf("content %d is there: %v", i, got)
		}
	}
	for i := 6; i < 11; i++ {
		if d.Has(keys[i]) != size {
			t.Errorf("content %d is not there", i)
		}
	}
	if n := d.Pinned(); n < size || n > size+64<<10 {
		t.Errorf("%d bytes are pinned", n)
	}
}

// TestIndexIsKept fails when a process scans the directory for what to evict though
// an earlier one has, or evicts by an index that is no longer true.
func TestIndexIsKept(t *testing.T) {
	t.Parallel()
	const size = 64 << 10
	dir := t.TempDir()
	d := open(t, dir, 4*mib)
	for i := range 40 {
		keep(t, d, fmt.Sprint(i), size)
		old := time.Now().Add(time.Duration(i-100) * time.Hour)
		os.Chtimes(filepath.Join(dir, Layout, d.name(keyOf(fmt.Sprint(i), size)).path()+recordExt), old, old)
	}
	if err := d.exclusive(d.scan); err != nil {
		t.Fatal(err)
	}
	d.Close()
	index, err := os.Stat(filepath.Join(dir, Layout, indexFile))
	if err != nil {
		t.Fatal(err)
	}
	d = open(t, dir, 4*mib)
	find(t, d, keyOf("0", size)).touch() // used since
	if err := d.exclusive(func() error { return d.evict(d.Used() - 3*size) }); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, Layout, indexFile)); err != nil || !st.ModTime().Equal(index.ModTime()) {
		t.Errorf("the directory was scanned: %v", err)
	}
	for i, want := range []bool{true, false, false} {
		if got := d.Has(keyOf(fmt.Sprint(i), size)) > 0; got != want {
			t.Errorf("content %d is there: %v", i, got)
		}
	}
}

// TestCountIsMadeAnew fails when a count that is gone or damaged leaves the bound
// without meaning.
func TestCountIsMadeAnew(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(p string) error{
		"gone":    os.Remove,
		"cut":     func(p string) error { return os.Truncate(p, 10) },
		"another": func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte{7}, usageSize), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			d := open(t, dir, 1<<30)
			keep(t, d, "x", 3*mib)
			<-d.kick()
			d.Close()
			if err := damage(filepath.Join(dir, Layout, usageFile)); err != nil {
				t.Fatal(err)
			}
			d = open(t, dir, 1<<30)
			<-d.kick()
			if n := d.Used(); n < 3*mib || n > 3*mib+64<<10 {
				t.Errorf("%d bytes are counted", n)
			}
		})
	}
}

// TestProcessesCountTogether fails when what one process writes does not count for
// the others, before long.
func TestProcessesCountTogether(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := open(t, dir, 1<<30), open(t, dir, 1<<30)
	fill(t, create(t, a, "a", 2*mib, "v"))
	fill(t, create(t, b, "b", 3*mib, "v"))
	<-a.kick()
	<-b.kick()
	<-a.kick()
	for _, d := range []*Dir{a, b} {
		if n := d.Used(); n < 5*mib || n > 5*mib+64<<10 {
			t.Errorf("%d bytes are counted", n)
		}
	}
}

// TestHeldDirectoryIsNotSwapped fails when another directory, put where the cache
// is, gives bytes to a process that has the cache open.
func TestHeldDirectoryIsNotSwapped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir, 1<<30)
	f := keep(t, d, "x", mib)
	mine := filepath.Join(dir, Layout)
	if err := os.Rename(mine, mine+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(mine, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := holds(find(t, d, f.key())); err != nil {
		t.Error(err)
	}
	fill(t, create(t, d, "y", mib, "v"))
	if left, _ := os.ReadDir(mine); len(left) > 0 {
		t.Errorf("what was put in its place is written to: %v", left)
	}
	os.Chmod(mine, 0o755)
	if _, err := Open(dir, Options{Bound: mib}); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("a directory that others may read is taken: %v", err)
	}
}

// TestOrphansGo fails when files that belong to no content stay for ever, or files
// that are not the cache's go.
func TestOrphansGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir, 1<<30)
	f := keep(t, d, "x", mib)
	old := time.Now().Add(-time.Hour)
	leave := func(name string) string {
		p := filepath.Join(dir, Layout, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, noise()[:1000], 0o600), os.Chtimes(p, old, old)); err != nil {
			t.Fatal(err)
		}
		return p
	}
	base := f.name.path()
	orphans := []string{leave(base + ".0000000000000001"), leave(base + ".0000000000000002" + newExt), leave("ab/" + strings.Repeat("0", 62) + ".0000000000000003")}
	others := []string{leave("notes"), leave("ab/notes"), leave("ab/" + strings.Repeat("0", 61)), leave("a/b/c"), leave("ab/" + strings.Repeat("0", 62))}
	if err := d.exclusive(d.scan); err != nil {
		t.Fatal(err)
	}
	for _, p := range orphans {
		if _, err := os.Stat(p); err == nil {
			t.Errorf("%s stays", p)
		}
	}
	for _, p := range others {
		if _, err := os.Stat(p); err != nil {
			t.Error(err)
		}
	}
	if err := holds(find(t, d, f.key())); err != nil {
		t.Error(err)
	}
}

// TestAnswersAreBounded fails when the answers on disk grow beyond their bound, or
// when one that was cut or changed is given.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir, 1<<30)
	n := Question("server", "q")
	if err := d.KeepAnswer(n, []byte("42")); err != nil {
		t.Fatal(err)
	}
	if b, at := d.Answer(n); string(b) != "42" || time.Since(at) > time.Minute {
		t.Errorf("%q of %v", b, at)
	}
	p := filepath.Join(dir, Layout, n.answer())
	b, _ := os.ReadFile(p)
	b[len(b)-1]++
	os.WriteFile(p, b, 0o600)
	if b, _ := d.Answer(n); b != nil {
		t.Errorf("a changed answer is given: %q", b)
	}
	if err := d.KeepAnswer(n, nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(p); err == nil {
		t.Error("an answer that is none any more stays")
	}
	big := make([]byte, 15*mib)
	for i := range 20 {
		if err := d.KeepAnswer(Question("server", fmt.Sprint(i)), big); err != nil {
			t.Fatal(err)
		}
	}
	<-d.kick()
	total := int64(0)
	filepath.WalkDir(filepath.Join(dir, Layout, answersDir), func(_ string, e os.DirEntry, err error) error {
		if st, serr := e.Info(); err == nil && serr == nil && !e.IsDir() {
			total += st.Size()
		}
		return nil
	})
	if total > maxAnswers || total < maxAnswers/2 {
		t.Errorf("%d bytes of answers are there, for a bound of %d", total, maxAnswers)
	}
}

// TestBlockIsThereWhenItsMemoryIsLetGo fails when a block that is written is, for a
// moment, neither in the memory of who wrote it nor on disk: it is fetched again.
func TestBlockIsThereWhenItsMemoryIsLetGo(t *testing.T) {
	t.Parallel()
	f := create(t, open(t, t.TempDir(), 1<<30), "x", 3*BlockSize, "")
	defer f.Close()
	b := make([]byte, BlockSize)
	done := make(chan error, 1)
	there := false
	f.Write(Run{
		First: 1, Data: [][]byte{b}, Sums: []uint32{Sum(b)},
		Released: func() { there, _ = f.Has(1) },
		Written:  func(err error) { done <- err },
	})
	if err := <-done; err != nil || !there {
		t.Errorf("%v; there when it is let go: %v", err, there)
	}
}

// TestWritesAreGathered fails when blocks that wait to be written are written one
// by one: a write costs a system call, and the file's lock.
func TestWritesAreGathered(t *testing.T) {
	t.Parallel()
	const blocks = maxQueued/BlockSize - 1 // of more, the caller waits
	d := open(t, t.TempDir(), 1<<30)
	f := create(t, d, "x", blocks*BlockSize, "v")
	var mu sync.Mutex
	var ends []time.Time
	var wg sync.WaitGroup
	f.mu.Lock() // the writer waits
	f.writer.running = true
	f.mu.Unlock()
	for i := int64(blocks - 1); i >= 0; i-- {
		wg.Add(1)
		b := noise()[i*BlockSize : (i+1)*BlockSize]
		f.Write(Run{First: i, Data: [][]byte{b}, Sums: []uint32{Sum(b)}, Released: func() {}, Written: func(err error) {
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			ends = append(ends, time.Now())
			mu.Unlock()
			wg.Done()
		}})
	}
	go f.write()
	wg.Wait()
	if err := holds(f); err != nil || !f.Complete() {
		t.Errorf("%v, complete %v", err, f.Complete())
	}
}
