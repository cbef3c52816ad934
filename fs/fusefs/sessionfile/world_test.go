//go:build linux

package sessionfile

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// world is what a file is to say: the model of it.
type world struct {
	rows    map[uint64]row // by number
	leads   map[way]uint64
	handles map[uint64]Handle
}

type row struct {
	Name
	lookups, pages uint64
	stale          bool
	weight         int
}

type way struct {
	parent uint64
	name   string
}

func (r row) way() way { return way{r.Parent, r.Name.Name} }

func newWorld() *world {
	return &world{rows: map[uint64]row{}, leads: map[way]uint64{}, handles: map[uint64]Handle{}}
}

// op is a change; which, depends on nothing but the random numbers.
type op struct {
	what   what
	name   Name // of names: at least the number
	value  uint64
	handle Handle
}

type what int

const (
	add what = iota
	remove
	lead
	setLookups
	setPages
	setStale
	setWeight
	touch
	addHandle
	removeHandle
)

func randomOp(r *rand.Rand, adds int) op {
	coin := func() bool { return r.IntN(2) == 0 }
	o := op{what: what(r.IntN(int(removeHandle)+1+adds)) - what(adds)}
	o.what = max(o.what, add)
	o.name = Name{Number: r.Uint64N(3000), Check: r.Uint64(), Parent: r.Uint64N(200), Turn: r.Uint32(), Dir: coin(), Moves: coin()}
	o.name.Name = strings.Repeat(string(rune('a'+r.IntN(26))), 1+r.IntN(3))
	if r.IntN(10) == 0 {
		o.name.Name = strings.Repeat("ä", 128)[:1+r.IntN(255)]
	}
	o.value = []uint64{0, 1, r.Uint64N(1 << 32), 1<<32 - 1, 1 << 40, r.Uint64()}[r.IntN(6)]
	o.handle = Handle{Number: 1 + r.Uint64N(300), Inode: r.Uint64(), Identity: r.Uint64(), Size: r.Int64(), Backing: r.Int32(), Dir: coin(), Passed: coin(), Grows: coin()}
	return o
}

// change does it to a file.
func (o op) change(f *File) error {
	n := &f.Names
	r := n.At(o.name.Number)
	if o.what == add {
		if _, err := n.Add(o.name); (err == nil) != (r == 0) {
			return fmt.Errorf("adding %d at row %d: %w", o.name.Number, r, err)
		}
		return nil
	}
	if o.what < addHandle && r == 0 {
		return nil
	}
	switch o.what {
	case remove:
		n.Remove(r)
	case lead:
		n.Lead(r)
	case setLookups:
		n.SetLookups(r, o.value)
	case setPages:
		n.SetPages(r, o.value)
	case setStale:
		n.SetStale(r)
	case setWeight:
		n.SetWeight(r, int(o.value%65536))
	case touch:
		n.Touch(r)
		n.Oldest()
	case addHandle:
		f.Handles.Add(o.handle) // the comparison tells of errors
	case removeHandle:
		f.Handles.Remove(o.handle.Number)
	}
	return nil
}

// tell does it to the model.
func (o op) tell(w *world) {
	r, there := w.rows[o.name.Number]
	switch {
	case o.what == addHandle:
		if _, there := w.handles[o.handle.Number]; !there {
			w.handles[o.handle.Number] = o.handle
		}
		return
	case o.what == removeHandle:
		delete(w.handles, o.handle.Number)
		return
	case o.what == add && !there:
		r = row{Name: o.name, weight: 1}
		w.leads[r.way()] = r.Number
	case !there:
		return
	}
	switch o.what {
	case remove:
		if w.leads[r.way()] == r.Number {
			delete(w.leads, r.way())
		}
		delete(w.rows, r.Number)
		return
	case lead:
		w.leads[r.way()] = r.Number
	case setLookups:
		if r.lookups != 1<<32-1 {
			r.lookups = min(o.value, 1<<32-1)
		}
	case setPages:
		r.pages = o.value
	case setStale:
		r.stale = true
	case setWeight:
		r.weight = max(1, int(o.value%65536))
	}
	w.rows[r.Number] = r
}

// compare tells what a file says otherwise.
func (w *world) compare(f *File) error {
	n := &f.Names
	weight, seen, wrong := 0, 0, error(nil)
	n.All(func(r Row) bool {
		seen++
		got := row{n.Get(r), n.Lookups(r), n.Pages(r), n.Stale(r), n.Weight(r)}
		if want, there := w.rows[got.Number]; !there || got != want || n.Number(r) != got.Number || n.Parent(r) != got.Parent || n.At(got.Number) != r {
			wrong = fmt.Errorf("row %d is %v, which should be %v", r, got, want)
		}
		weight += got.weight
		return wrong == nil
	})
	if wrong == nil && (seen != len(w.rows) || n.Len() != seen || n.TotalWeight() != weight) {
		wrong = fmt.Errorf("%d rows, Len %d, weight %d; there are %d, which weigh %d", seen, n.Len(), n.TotalWeight(), len(w.rows), weight)
	}
	return errors.Join(wrong, w.compareWays(n), w.compareHandles(&f.Handles))
}

func (w *world) compareWays(n *Names) error {
	children := map[uint64][]Row{}
	for _, row := range w.rows {
		leading, there := w.leads[row.way()]
		r := n.Leads(row.Parent, row.Name.Name)
		if there != (r != 0) || there && n.Number(r) != leading {
			return fmt.Errorf("%v leads to row %d, and should to %d: %t", row.way(), r, leading, there)
		}
		if there && leading == row.Number {
			children[row.Parent] = append(children[row.Parent], r)
		}
	}
	for parent := range uint64(201) {
		var got []Row
		n.Children(parent, func(r Row) bool { got = append(got, r); return true })
		slices.Sort(got)
		slices.Sort(children[parent])
		if !slices.Equal(got, children[parent]) {
			return fmt.Errorf("directory %d has %v, and should have %v", parent, got, children[parent])
		}
	}
	return nil
}

func (w *world) compareHandles(h *Handles) (err error) {
	seen := 0
	h.All(func(got Handle) {
		seen++
		if want := w.handles[got.Number]; got != want {
			err = fmt.Errorf("a handle is %v, which should be %v", got, want)
		}
	})
	if err == nil && (seen != len(w.handles) || h.Len() != seen) {
		err = fmt.Errorf("%d handles, Len %d; there are %d", seen, h.Len(), len(w.handles))
	}
	return err
}

func create(t testing.TB) *File {
	t.Helper()
	f, err := Create(7)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func open(t testing.TB, f *File) *File {
	t.Helper()
	next, err := Open(f.Descriptor(), 7)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { next.Close() })
	return next
}
