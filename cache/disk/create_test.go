package disk

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// TestCreateCountsWhatItMakes fails when a content that could not be made, or that
// another one has made, counts: then files leave a cache that has room.
func TestCreateCountsWhatItMakes(t *testing.T) {
	t.Parallel()
	const size = 64 << 30 // its record takes 4 MiB
	dir := t.TempDir()
	a, b := open(t, dir, 1<<40), open(t, dir, 1<<40)
	shard := filepath.Join(dir, Layout, a.name(keyOf("x", size)).path()[:2])
	if err := os.WriteFile(shard, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := a.Create(keyOf("x", size), "v"); err == nil {
			t.Fatal("it was made")
		}
	}
	if n := a.Used(); n > mib {
		t.Errorf("%d bytes are counted of what could not be made", n)
	}
	if err := os.Remove(shard); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if f, err := []*Dir{a, b}[i%2].Create(keyOf("x", size), "v"); err == nil {
				f.Close()
			}
		})
	}
	wg.Wait()
	for _, d := range []*Dir{a, b, a} {
		<-d.kick()
	}
	if n := a.Used(); n > 5*mib {
		t.Errorf("%d bytes are counted of one content", n)
	}
}

// TestClosedFileIsNobodysFault fails when what is done with a file that was closed
// meanwhile, as who pushes pages does at the last close, rests the disk, is said
// to be a fault of it, or loses a block.
func TestClosedFileIsNobodysFault(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var log count.Log
	d, err := Open(dir, Options{Bound: 1 << 30, Log: slog.New(slog.NewTextHandler(&log, nil)), Patience: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	keep(t, d, "x", 2*mib)
	key := keyOf("x", 2*mib)
	for round := range 200 {
		f := find(t, d, key)
		var wg sync.WaitGroup
		for _, use := range []func(){
			func() { f.ReadAt(make([]byte, BlockSize), BlockSize, func() {}) },
			func() { f.Verify(3, make([]byte, BlockSize), func() {}) },
			func() { f.Refresh(0, 16) },
			func() { f.WillNeed(0, mib); f.ReadNow(make([]byte, 10), 0) },
			func() { f.Backing(); f.Current() },
		} {
			wg.Go(func() {
				for range round % 7 {
					use()
				}
				use()
			})
		}
		f.Close()
		wg.Wait()
		f.ReadAt(make([]byte, BlockSize), BlockSize, func() {})
	}
	for o := range allOps {
		if !d.may(o) {
			t.Errorf("operations of kind %d rest", o)
		}
	}
	if said := log.String(); said != "" {
		t.Errorf("it is said: %s", said)
	}
	if f := find(t, d, key); !f.Complete() {
		t.Error("blocks are lost")
	}
}

// TestPanicIsNoFaultOfTheDisk fails when a panic in an operation ends the process,
// or has the disk rest.
func TestPanicIsNoFaultOfTheDisk(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir(), mib)
	for o := range allOps {
		if err := d.try(o, func() error { panic(fmt.Sprint("kind ", o)) }); err == nil || !strings.Contains(err.Error(), "panic") {
			t.Errorf("a panic is %v", err)
		}
	}
	for o := range allOps {
		if !d.may(o) {
			t.Errorf("operations of kind %d rest", o)
		}
	}
}
