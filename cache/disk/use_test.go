package disk

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestOpenContentIsInUse fails when another process evicts a content that this one
// has open, and uses, for longer than it has not used others: what is open is used
// now, however long ago that was opened.
func TestOpenContentIsInUse(t *testing.T) {
	t.Parallel()
	for _, open := range []time.Duration{25 * time.Minute, time.Hour, 5 * time.Hour} {
		t.Run(open.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { inUse(t, open) })
		})
	}
}

func inUse(t *testing.T, isOpen time.Duration) {
	const size = mib
	dir := t.TempDir()
	a := open(t, dir, 1<<30)
	used := func(location string) { // the clock of a bubble is not the system's
		t.Helper()
		if err := os.Chtimes(filepath.Join(dir, Layout, a.name(keyOf(location, size)).path()+recordExt), time.Time{}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	for _, location := range []string{"hot", "cold"} {
		keep(t, a, location, size)
		used(location)
	}
	find(t, a, keyOf("hot", size))
	time.Sleep(isOpen - 15*time.Minute)
	used("cold")
	time.Sleep(15 * time.Minute)
	synctest.Wait()
	b := open(t, dir, size*5/2)
	keep(t, b, "new", size) // one of the two has to go
	<-b.kick()
	if hot, cold := b.Has(keyOf("hot", size)), b.Has(keyOf("cold", size)); hot != size || cold != 0 {
		t.Errorf("of what is open %d bytes are left, of what nobody has used for 15 minutes %d", hot, cold)
	}
}
