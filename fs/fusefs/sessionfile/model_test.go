//go:build linux

package sessionfile

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestTablesAreWhatTheyWereTold fails when a name or a handle is lost, altered or found where
// it is not, after any changes and any number of daemons.
func TestTablesAreWhatTheyWereTold(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 1))
			f, w := create(t), newWorld()
			most := 0
			for step := range 30000 {
				o := randomOp(r, 5*(1-step/6000%2)) // times in which more is added, and others
				if err := o.change(f); err != nil {
					t.Fatal(err)
				}
				o.tell(w)
				most = max(most, len(w.rows))
				if r.IntN(1000) != 0 {
					continue
				}
				if err := w.compare(f); err != nil {
					t.Fatalf("step %d: %v", step, err)
				}
				f = open(t, f)
				if err := w.compare(f); err != nil {
					t.Fatalf("step %d, opened: %v", step, err)
				}
			}
			if most < 1500 || len(w.leads) == len(w.rows) || len(w.handles) == 0 {
				t.Errorf("too little was tried: %d rows at most", most)
			}
		})
	}
}

// TestOldestIsNotInUse fails when the clock gives a name that was just used while there are
// others, stops, or never gives some of them.
func TestOldestIsNotInUse(t *testing.T) {
	t.Parallel()
	f := create(t)
	n := &f.Names
	if r := n.Oldest(); r != 0 {
		t.Errorf("of none the oldest is %d", r)
	}
	const all = 10000
	for i := range uint64(all) {
		if _, err := n.Add(Name{Number: i, Name: fmt.Sprint("name", i)}); err != nil {
			t.Fatal(err)
		}
	}
	n.Oldest() // all were touched by Add: it took them for untouched
	for i := uint64(0); i < all; i += 2 {
		n.Touch(n.At(i))
	}
	given := map[uint64]bool{}
	for range all/2 - 1 {
		number := n.Number(n.Oldest())
		if number%2 == 0 || given[number] {
			t.Fatalf("%d was in use, or given already: %t", number, given[number])
		}
		given[number] = true
	}
	for range 2 * all {
		given[n.Number(n.Oldest())] = true
	}
	if len(given) != all {
		t.Errorf("%d of %d are ever the oldest", len(given), all)
	}
	for i := range uint64(all - 1) {
		n.Remove(n.At(i))
	}
	for range 3 {
		if r := n.Oldest(); r == 0 || n.Number(r) != all-1 {
			t.Errorf("of one the oldest is %d", r)
		}
	}
}
