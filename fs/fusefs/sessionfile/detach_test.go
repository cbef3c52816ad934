//go:build linux

package sessionfile

import (
	"bytes"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestDetachedFileReachesNobody fails when a daemon that let go still changes the session, or
// sees what the next one makes of it.
func TestDetachedFileReachesNobody(t *testing.T) {
	t.Parallel()
	old, w := create(t), newWorld()
	add := op{what: add, name: Name{Number: 5, Parent: 1, Name: "name"}}
	handle := op{what: addHandle, handle: Handle{Number: 3}}
	for _, o := range []op{add, handle} {
		if err := o.change(old); err != nil {
			t.Fatal(err)
		}
		o.tell(w)
	}
	row := old.Names.At(5)
	old.SetInit([]byte("init"))
	copy(old.Slot(9), "a request")
	copy(old.Slot(10), "another")
	if err := old.Detach(); err != nil {
		t.Fatal(err)
	}
	next := open(t, old)
	next.CountTakeover()
	copy(next.Slot(9), "of another")
	next.Free(10)
	old.Free(9)
	copy(old.Slot(11), "late")
	old.SetInit([]byte("late"))
	useNames(t, old, row)
	if err := w.compare(next); err != nil {
		t.Error(err)
	}
	if s := string(next.Slot(9)[:10]); s != "of another" || next.Slot(11)[0] != 0 || string(next.Init()) != "init" {
		t.Errorf("the next one's slot has %q, its INIT is %q", s, next.Init())
	}
	if s := string(old.Slot(10)[:7]); s != "another" || old.Slot(9)[0] != 0 || old.TakenOver() != 0 || next.TakenOver() != 1 {
		t.Errorf("the former's slot has %q, its count is %d", s, old.TakenOver())
	}
	if used, err := next.Used(); err != nil || len(used) != 1 || used[0] != 9 {
		t.Errorf("slots %v are in use: %v", used, err)
	}
}

// useNames does what goes on in a daemon that let go.
func useNames(t *testing.T, f *File, r Row) {
	n := &f.Names
	n.Touch(r)
	n.Lead(r)
	n.SetLookups(r, 9)
	n.SetPages(r, 9)
	n.SetStale(r)
	n.SetWeight(r, 9)
	n.Remove(r)
	if _, err := n.Add(Name{Number: 7, Name: "late"}); err == nil {
		t.Error("a name was taken")
	}
	if n.At(5) != 0 || n.Leads(1, "name") != 0 || n.Len() != 0 || n.TotalWeight() != 0 || n.Oldest() != 0 || n.Get(r) != (Name{}) || n.Lookups(r)+n.Pages(r)+uint64(n.Weight(r)) != 0 {
		t.Error("a name is there")
	}
	if err := f.Handles.Add(Handle{Number: 9}); err == nil || f.Handles.Len() != 0 {
		t.Error("a handle was taken, or is there")
	}
	f.Handles.Remove(3)
}

// TestDetachDisturbsNoRequest fails when a slot that is written while its daemon lets go loses
// bytes, or when bytes that are written later reach the next daemon.
func TestDetachDisturbsNoRequest(t *testing.T) {
	t.Parallel()
	old := create(t)
	var wg sync.WaitGroup
	var stop atomic.Bool
	defer wg.Wait()
	defer stop.Store(true)
	wrong := make([]bool, 4)
	for k := range wrong {
		wg.Go(func() {
			for b := byte(1); !stop.Load(); b = b%250 + 1 {
				for k := k; k < 100; k += len(wrong) {
					s := old.Slot(k)
					copy(s, bytes.Repeat([]byte{b}, SlotSize))
					wrong[k%len(wrong)] = wrong[k%len(wrong)] || bytes.Count(s, []byte{b}) != SlotSize
				}
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	if err := old.Detach(); err != nil {
		t.Fatal(err)
	}
	next := open(t, old)
	mine := bytes.Repeat([]byte{255}, SlotSize)
	for k := range 100 {
		copy(next.Slot(k), mine)
	}
	time.Sleep(20 * time.Millisecond)
	for k := range 100 {
		if !bytes.Equal(next.Slot(k), mine) {
			t.Errorf("the former daemon wrote slot %d", k)
		}
	}
	stop.Store(true)
	wg.Wait()
	for k, wrong := range wrong {
		if wrong {
			t.Errorf("bytes of slot %d and others were lost", k)
		}
	}
}

// TestSlotsTakeMemoryWhenUsed fails when to ask which are in use gives slots memory, or finds
// other ones.
func TestSlotsTakeMemoryWhenUsed(t *testing.T) {
	t.Parallel()
	f := create(t)
	for _, k := range []int{0, 17, 18, Slots - 1} {
		order.PutUint32(f.Slot(k), 40)
	}
	f.Free(17)
	used, err := f.Used()
	if err != nil || len(used) != 3 || used[0] != 0 || used[1] != 18 || used[2] != Slots-1 {
		t.Errorf("slots %v are in use: %v", used, err)
	}
	if took, err := allocated(f.Descriptor()); err != nil || took > 5*pageSize {
		t.Errorf("%d bytes were taken: %v", took, err)
	}
}

// TestHeaderOutlivesItsDaemon fails when a daemon does not know what the former knew of the
// mount.
func TestHeaderOutlivesItsDaemon(t *testing.T) {
	t.Parallel()
	f := create(t)
	if len(f.Init()) != 0 || time.Since(f.Mounted()) > time.Minute || f.TakenOver() != 0 {
		t.Errorf("a new one: %q, %v, %d", f.Init(), f.Mounted(), f.TakenOver())
	}
	for _, init := range [][]byte{[]byte("short"), bytes.Repeat([]byte("x"), maxInit), {}, []byte("again")} {
		f.SetInit(init)
		f.CountTakeover()
		next := open(t, f)
		if !bytes.Equal(next.Init(), init) || !next.Mounted().Equal(f.Mounted()) || next.TakenOver() != f.TakenOver() {
			t.Errorf("the next one: %q, %v, %d", next.Init(), next.Mounted(), next.TakenOver())
		}
	}
	if f.TakenOver() != 4 {
		t.Errorf("taken over %d times", f.TakenOver())
	}
}

// TestNamesAndHandlesAreEachForItself fails, with the race detector, when names and handles
// that are changed at once share something.
func TestNamesAndHandlesAreEachForItself(t *testing.T) {
	t.Parallel()
	f := create(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range uint64(20000) {
			if _, err := f.Names.Add(Name{Number: i, Name: runName(i)[:1+i%32]}); err != nil {
				t.Error(err)
			}
			if i%3 == 0 {
				f.Names.Remove(f.Names.At(i / 2))
			}
		}
	})
	wg.Go(func() {
		for i := range uint64(20000) {
			if err := f.Handles.Add(Handle{Number: i + 1}); err != nil {
				t.Error(err)
			}
			if i%3 == 0 {
				f.Handles.Remove(i / 2)
			}
		}
	})
	for i := range 2000 {
		order.PutUint32(f.Slot(i), 40)
		f.Free(i)
	}
	wg.Wait()
	if next := open(t, f); next.Names.Len() != f.Names.Len() || next.Handles.Len() != f.Handles.Len() {
		t.Error("the file is another")
	}
}
