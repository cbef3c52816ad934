package disk

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func recordOf(dir string, d *Dir, key Key) string {
	return filepath.Join(dir, Layout, d.name(key).path()+recordExt)
}

func modTime(t *testing.T, path string) time.Time {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.ModTime()
}

// hurry makes each operation of d come back late.
func hurry(d *Dir) {
	<-d.kick() // nothing runs beside it
	d.opt.Patience = 1
}

// wellAgain waits until what came late is back.
func wellAgain(d *Dir) {
	for o := range allOps {
		for d.rests[o].stuck.Load() > 0 {
			time.Sleep(time.Millisecond)
		}
		d.rests[o].until.Store(0)
	}
}

// TestLateOpenHoldsNothing fails when a content whose open came back late counts as
// open for ever: it could not be evicted.
func TestLateOpenHoldsNothing(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir(), 1<<30)
	f := keep(t, d, "x", mib)
	hurry(d)
	late := 0
	for range 100 {
		g, err := d.Find(f.key())
		if errors.Is(err, errSlow) {
			late++
		}
		if g != nil {
			g.Close()
		}
		wellAgain(d)
	}
	if late == 0 {
		t.Fatal("no open came late")
	}
	for end := time.Now().Add(5 * time.Second); d.busy(f.name); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is in use, and nobody has it")
		}
	}
}

// TestLateWriteCounts fails when bytes that came to the disk late are not counted:
// the bound would be exceeded by them.
func TestLateWriteCounts(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir(), 1<<30)
	f := create(t, d, "x", 16*mib, "v")
	hurry(d)
	late := 0
	for i := range int64(16) {
		if err := write(f, 8*i, 8); errors.Is(err, errSlow) {
			late++
		}
		wellAgain(d)
	}
	if late == 0 {
		t.Fatal("no write came late")
	}
	st, err := f.data.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if used := d.Used(); used < onDisk(st) || used > onDisk(st)+64<<10 {
		t.Errorf("%d bytes are counted, and the file takes %d", used, onDisk(st))
	}
}

// TestFilesAreClosedWhileTheDiskRests fails when a file that is closed while the
// disk rests keeps its descriptors.
func TestFilesAreClosedWhileTheDiskRests(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir(), 1<<30)
	f := create(t, d, "x", mib, "v")
	for o := range allOps {
		d.try(o, func() error { return syscall.EIO })
	}
	f.Close()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		_, data := f.data.Stat()
		_, record := f.record.Stat()
		if errors.Is(data, os.ErrClosed) && errors.Is(record, os.ErrClosed) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("its descriptors are open")
		}
	}
}

// truth is the bytes of disk that the contents below dir take.
func truth(dir string) (n int64) {
	for _, glob := range []string{"??/*.rec", "??/*.????????????????"} {
		found, _ := filepath.Glob(filepath.Join(dir, Layout, glob))
		for _, p := range found {
			if st, err := os.Stat(p); err == nil {
				n += onDisk(st)
			}
		}
	}
	return n
}

// TestCountDoesNotDrift fails when the count is less, or much more, than the truth
// after several processes have written, evicted (one content at once, too), counted
// and scanned beside each other.
func TestCountDoesNotDrift(t *testing.T) {
	t.Parallel()
	const size = 64 << 10
	dir := t.TempDir()
	var dirs []*Dir
	for range 3 {
		dirs = append(dirs, open(t, dir, 1<<30))
	}
	var writers, others sync.WaitGroup
	for p, d := range dirs {
		for w := range 3 {
			writers.Go(func() {
				for i := range 60 {
					f := create(t, d, fmt.Sprint(p, w, i), size, "v")
					if err := write(f, 0, BlocksOf(size)); err != nil && err != ErrGone { // evicted already
						t.Error(err)
					}
					f.Close()
				}
			})
		}
		writers.Go(func() {
			for i := range 60 {
				d.Evict(keyOf(fmt.Sprint(0, 0, i), size))
			}
		})
	}
	done := make(chan struct{})
	others.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				<-dirs[0].kick()
				if err := dirs[0].exclusive(dirs[0].scan); err != nil {
					t.Error(err)
				}
			}
		}
	})
	writers.Wait()
	close(done)
	others.Wait()
	for range 2 {
		for _, d := range dirs {
			<-d.kick()
		}
	}
	want := truth(dir)
	for p, d := range dirs {
		// What one process writes while another scans may count twice until the next scan.
		if got := d.Used(); got < want || (p == 0 && got > 3*want) {
			t.Errorf("process %d counts %d bytes, and %d are there", p, got, want)
		}
	}
	if err := dirs[0].exclusive(dirs[0].scan); err != nil || dirs[0].Used() != want {
		t.Errorf("a scan finds %d bytes of %d: %v", dirs[0].Used(), want, err)
	}
}

// TestOneProcessCountsExactly fails when the count of the only process differs from
// the truth after writes, evictions and rounds beside each other.
func TestOneProcessCountsExactly(t *testing.T) {
	t.Parallel()
	const size = 64 << 10
	dir := t.TempDir()
	d := open(t, dir, 1<<30)
	var writers, rounds sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 100 {
				keep(t, d, fmt.Sprint(w, i), size)
				if i%3 == 0 {
					d.Evict(keyOf(fmt.Sprint(w, i), size))
				}
			}
		})
	}
	done := make(chan struct{})
	rounds.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-d.kick():
			}
		}
	})
	writers.Wait()
	close(done)
	rounds.Wait()
	<-d.kick()
	if got, want := d.Used(), truth(dir); got != want {
		t.Errorf("%d bytes are counted, and %d are there", got, want)
	}
}

// TestRemovedOnceCountsOnce fails when a content that several processes evict at
// once is taken off the count more than once.
func TestRemovedOnceCountsOnce(t *testing.T) {
	t.Parallel()
	const n, size = 60, 64 << 10
	dir := t.TempDir()
	var dirs []*Dir
	for range 8 {
		dirs = append(dirs, open(t, dir, 1<<30))
	}
	for i := range n {
		keep(t, dirs[0], fmt.Sprint(i), size)
		keep(t, dirs[0], fmt.Sprint("stays", i), size)
	}
	for i := range n {
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for _, d := range dirs {
			wg.Go(func() {
				<-begin
				d.Evict(keyOf(fmt.Sprint(i), size))
			})
		}
		close(begin)
		wg.Wait()
	}
	for range 2 {
		for _, d := range dirs {
			<-d.kick()
		}
	}
	if got, want := dirs[0].Used(), truth(dir); got != want {
		t.Errorf("%d bytes are counted, and %d are there", got, want)
	}
}

// TestRemovalMayCountFirst fails when what one process wrote, and another one removed
// and counted before, stays counted.
func TestRemovalMayCountFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := open(t, dir, 1<<30), open(t, dir, 1<<30)
	keep(t, a, "y", mib)
	for _, d := range []*Dir{a, b} {
		<-d.kick()
	}
	f := keep(t, a, "x", 4*mib)
	if freed, err := b.Evict(f.key()); err != nil || freed < 4*mib {
		t.Errorf("%d bytes are freed: %v", freed, err)
	}
	for _, d := range []*Dir{b, a, b} {
		<-d.kick()
	}
	if want := truth(dir); a.Used() != want || b.Used() != want {
		t.Errorf("%d and %d bytes are counted, and %d are there", a.Used(), b.Used(), want)
	}
}

// TestOpenContentStaysInUse fails when a content that is open for hours, and only
// read, looks to other processes as if it were not used: they would evict it.
func TestOpenContentStaysInUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		d := open(t, dir, 1<<30)
		f := create(t, d, "x", mib, "v")
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		if idle := time.Since(modTime(t, recordOf(dir, d, f.key()))); idle.Abs() > 2*openEvery {
			t.Errorf("it looks as if it was not used for %v", idle)
		}
		f.Close()
		d.Close()
	})
}

// TestWrongClockKeepsNothing fails when a content that was used while the clock was
// far ahead is kept for that time, and all that is used now goes before it.
func TestWrongClockKeepsNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir, 8*mib)
	for _, location := range []string{"0", "1", "2"} {
		keep(t, d, location, 2*mib)
		ahead := time.Now().Add(365 * 24 * time.Hour)
		if location == "2" {
			ahead = time.Now().Add(-time.Hour)
		}
		p := recordOf(dir, d, keyOf(location, 2*mib))
		if err := os.Chtimes(p, ahead, ahead); err != nil {
			t.Fatal(err)
		}
	}
	find(t, d, keyOf("1", 2*mib)).Close() // used now
	keep(t, d, "3", 2*mib)
	<-d.kick()
	for location, want := range map[string]bool{"0": false, "1": true, "2": true, "3": true} {
		if got := d.Has(keyOf(location, 2*mib)) > 0; got != want {
			t.Errorf("content %s is there: %v", location, got)
		}
	}
}

// TestLookIsNoUse fails when a question whether a content is there counts as a use
// of it.
func TestLookIsNoUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir, 1<<30)
	f := keep(t, d, "x", mib)
	p := recordOf(dir, d, f.key())
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(p, old, old); err != nil {
		t.Fatal(err)
	}
	if d.Has(f.key()) != mib || time.Since(modTime(t, p)) < time.Minute {
		t.Error("it was used")
	}
}

// TestTooLargeAWriteEvictsNothing fails when what can never fit drives out what is
// there.
func TestTooLargeAWriteEvictsNothing(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir(), 4*mib)
	for i := range 3 {
		keep(t, d, fmt.Sprint(i), mib)
	}
	f := create(t, d, "x", 8*mib, "v")
	if err := write(f, 0, 64); !errors.Is(err, ErrNoRoom) {
		t.Errorf("8 MiB in 4: %v", err)
	}
	<-d.kick()
	for i := range 3 {
		if d.Has(keyOf(fmt.Sprint(i), mib)) == 0 {
			t.Errorf("content %d is gone", i)
		}
	}
}

// TestWellAgainIsSaid fails when it is not said that a disk is used again, because
// what failed was not wanted since; or when it is said while that still may fail.
func TestWellAgainIsSaid(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		d, err := Open(t.TempDir(), Options{Bound: mib, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		d.try(opRead, func() error { return syscall.EIO })
		for _, said := range []bool{false, false, false, true} { // after 6 s, 12 s, 18 s, and 24 s
			time.Sleep(6 * time.Second)
			d.try(opMake, func() error { return nil })
			if strings.Contains(log.String(), "used again") != said {
				t.Errorf("it is said: %v\n%s", !said, &log)
			}
		}
	})
}

// TestRoomIsGivenWhenThere fails when who waits for room waits for the end of an
// eviction that has made enough of it: one of many small contents is long.
func TestRoomIsGivenWhenThere(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir(), 8*mib)
	old := keep(t, d, "old", 7*mib)
	f := create(t, d, "new", 4*mib, "v")
	err := d.exclusive(func() error { // as an eviction that has not ended
		done := make(chan error)
		go func() { done <- write(f, 0, 32) }()
		time.Sleep(50 * time.Millisecond)
		if _, err := d.Evict(keyOf("old", old.size)); err != nil {
			return err
		}
		return <-done
	})
	if err != nil {
		t.Error(err)
	}
}

// TestVainLookIsNotRepeated fails when a directory in which nothing can be evicted
// is scanned again for each write.
func TestVainLookIsNotRepeated(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir, 8*mib)
	f := create(t, d, "x", 16*mib, "v") // open, and all that there is
	write(f, 0, 62)
	scans := map[any]bool{}
	for range 20 {
		write(f, 62, 1)
		<-d.kick()
		st, err := os.Stat(filepath.Join(dir, Layout, indexFile))
		if err != nil {
			t.Fatal(err)
		}
		scans[st.ModTime()] = true
	}
	if len(scans) > 3 {
		t.Errorf("it was scanned %d times", len(scans))
	}
}

// TestFailedRoundIsTriedAgain fails when a count that could not be written once is not
// written, though nothing more is counted; or when it is tried without a pause.
func TestFailedRoundIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		d := open(t, dir, 1<<30)
		usage := filepath.Join(dir, Layout, usageFile)
		if err := errors.Join(os.Remove(usage), os.Mkdir(usage, 0o700)); err != nil {
			t.Fatal(err)
		}
		keep(t, d, "x", 20*mib)
		time.Sleep(5 * foldAfter)
		if err := os.Remove(usage); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * foldAfter)
		synctest.Wait()
		if st, err := os.Stat(usage); err != nil || st.IsDir() {
			t.Errorf("the count is not written: %v", err)
		}
		d.Close()
	})
}

// TestAnswerIsOneOfThose fails when an answer that two processes keep at once is
// neither of theirs.
func TestAnswerIsOneOfThose(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := Question("server", "q")
	bodies := [][]byte{noise()[:mib], noise()[mib : 3*mib]}
	var wg sync.WaitGroup
	for _, body := range bodies {
		d := open(t, dir, 1<<30)
		if err := d.KeepAnswer(n, body); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for range 30 {
				if err := d.KeepAnswer(n, body); err != nil {
					t.Error(err)
				}
				if got, _ := d.Answer(n); !bytes.Equal(got, bodies[0]) && !bytes.Equal(got, bodies[1]) {
					t.Errorf("an answer of %d bytes", len(got))
				}
			}
		})
	}
	wg.Wait()
}

// TestHostileIndexIsIgnored fails when an index that is huge, or noise, takes memory
// or ends an eviction.
func TestHostileIndexIsIgnored(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(p string) error{
		"huge":  func(p string) error { return os.Truncate(p, 1<<40) },
		"noise": func(p string) error { return os.WriteFile(p, noise()[:mib], 0o600) },
		"empty": func(p string) error { return os.Truncate(p, 0) },
		"gone":  os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			d := open(t, dir, 1<<30)
			for i := range 4 {
				keep(t, d, fmt.Sprint(i), mib)
			}
			if err := d.exclusive(d.scan); err != nil {
				t.Fatal(err)
			}
			d.Close()
			if err := damage(filepath.Join(dir, Layout, indexFile)); err != nil {
				t.Fatal(err)
			}
			d = open(t, dir, 1<<30)
			if err := d.exclusive(func() error { return d.evict(2*mib + 64<<10) }); err != nil {
				t.Error(err)
			}
			if got := d.Used(); got > 3*mib || got < mib {
				t.Errorf("%d bytes are left", got)
			}
		})
	}
}

// TestIndexKeepsToItsMemory fails when the index holds more contents than its
// memory allows, or others than those used longest ago.
func TestIndexKeepsToItsMemory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d, err := Open(dir, Options{Bound: 1 << 30, Memory: 10 * candidateBytes, Patience: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for i := range 60 {
		key := keyOf(fmt.Sprint(i), 100)
		keep(t, d, key.Location, key.Size)
		old := time.Now().Add(-time.Duration(1+i*7%60) * time.Hour)
		if err := os.Chtimes(recordOf(dir, d, key), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.exclusive(d.scan); err != nil {
		t.Fatal(err)
	}
	index := d.readIndex()
	if len(index) != 10 || len(d.keeper.index) != 10 {
		t.Fatalf("it holds %d, and %d on disk", len(d.keeper.index), len(index))
	}
	for k, c := range index {
		if want := time.Duration(60-k) * time.Hour; (time.Since(time.Unix(0, c.Last)) - want).Abs() > time.Minute {
			t.Errorf("number %d was used %v ago, want %v", k, time.Since(time.Unix(0, c.Last)), want)
		}
	}
}

// TestManyPinsTakeNoMemory fails when an eviction, or a status, reads all pins.
func TestManyPinsTakeNoMemory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir, 1<<30)
	keep(t, d, "x", mib)
	keep(t, d, "pinned", mib)
	if err := d.Pin(keyOf("pinned", mib), false); err != nil {
		t.Fatal(err)
	}
	for i := range 5000 {
		if err := os.WriteFile(filepath.Join(dir, Layout, pinsDir, fmt.Sprintf("%064x", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.exclusive(d.scan); err != nil {
		t.Fatal(err)
	}
	if n := d.Pinned(); n < mib || n > mib+64<<10 {
		t.Errorf("%d bytes are pinned", n)
	}
	entries, err := d.readDir(pinsDir, fewPins+1)
	if err != nil || len(entries) > fewPins+1 {
		t.Errorf("%d pins were read: %v", len(entries), err)
	}
	if err := d.exclusive(func() error { return d.evict(0) }); err != nil {
		t.Error(err)
	}
	if d.Has(keyOf("x", mib)) != 0 || d.Has(keyOf("pinned", mib)) != mib {
		t.Error("what is pinned goes, or what is not stays")
	}
}

// TestBadSectorIsOneBlock fails when a block that can't be read is tried again and
// again: each time would rest all reads.
func TestBadSectorIsOneBlock(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir(), 1<<30)
	f := create(t, d, "x", mib, "v")
	fill(t, f)
	f.failed(3, &os.PathError{Op: "read", Err: syscall.EIO}, f.writes())
	f.failed(4, errSlow, f.writes())
	f.failed(5, syscall.EMFILE, f.writes())
	for i, want := range []bool{true, true, true, false, true, true} {
		if there, _ := f.Has(int64(i)); there != want {
			t.Errorf("block %d is there: %v", i, there)
		}
	}
	f.Refresh(0, 8)
	if there, _ := f.Has(3); there {
		t.Error("the record brings it back")
	}
	if err := write(f, 3, 1); err != nil {
		t.Fatal(err)
	}
	if f.Backing() == nil {
		t.Error("it was written anew")
	}
}

// TestUseOfAClosedDir fails when what is done with a directory or its files after
// Close hangs, panics, or makes files.
func TestUseOfAClosedDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir, 4*mib)
	f := create(t, d, "x", 8*mib, "v")
	write(f, 0, 8)
	d.Close()
	d.Close()
	if err := holds(f); err != nil {
		t.Errorf("what is open is not read on: %v", err)
	}
	write(f, 8, 8)
	if err := write(f, 16, 32); !errors.Is(err, ErrNoRoom) {
		t.Errorf("more than the bound: %v", err)
	}
	if g, err := d.Find(f.key()); g != nil {
		t.Errorf("found: %v", err)
	}
	if _, err := d.Create(keyOf("y", mib), "v"); err == nil {
		t.Error("a content was made")
	}
	d.Evict(f.key())
	d.KeepAnswer(Question("s", "q"), []byte("a"))
	if d.Pinned() != 0 {
		t.Error("there are no pins")
	}
	f.Close()
}

// TestMendedBlockStays fails when a read that failed takes out a block that was
// written anew meanwhile, as another reader's fetch does: it would be fetched twice.
func TestMendedBlockStays(t *testing.T) {
	t.Parallel()
	const cut = 3
	for name, read := range map[string]func(f *File, released func()) error{
		"Verify": func(f *File, released func()) error { return f.Verify(cut, make([]byte, BlockSize), released) },
		"ReadAt": func(f *File, released func()) error {
			return f.ReadAt(make([]byte, BlockSize), cut*BlockSize, released)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := open(t, t.TempDir(), 1<<30)
			f := create(t, d, "x", mib, "v")
			fill(t, f)
			if err := f.data.Truncate(cut * BlockSize); err != nil {
				t.Fatal(err)
			}
			err := read(f, func() { // it has read, and what it found is not noted yet
				if err := write(f, cut, BlocksOf(f.size)-cut); err != nil {
					t.Error(err)
				}
			})
			if !IsDamage(err) {
				t.Errorf("a file that was cut gives %v", err)
			}
			if there, _ := f.Has(cut); !there {
				t.Error("the block that was written anew is taken out")
			}
			if err := holds(f); err != nil {
				t.Error(err)
			}
		})
	}
}
