package fs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	iofs "io/fs"
	"log/slog"
	"runtime"
	"testing"
)

// TestIdentityOfATextIsNoCopy fails when what tells one text from another, which an
// inode keeps, is as long as the text; or when it does not tell them apart.
func TestIdentityOfATextIsNoCopy(t *testing.T) {
	t.Parallel()
	identity := func(b []byte) string {
		t.Helper()
		h, err := sized(b).File.Open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		return h.(Identified).Identity()
	}
	a := bytes.Repeat([]byte("a"), 1<<20)
	other := bytes.Clone(a)
	other[1000]++
	if n := len(identity(a)); n > 100 {
		t.Errorf("the identity of a text of %d bytes has %d", len(a), n)
	}
	if identity(a) != identity(bytes.Clone(a)) || identity(a) == identity(other) || identity(a) == identity(a[1:]) {
		t.Error("texts are not told apart")
	}
}

// TestEndedPusherKeepsNoInode fails when what waits to be pushed is kept though
// nobody pushes any more: each opened file would stay in memory.
func TestEndedPusherKeepsNoInode(t *testing.T) {
	t.Parallel()
	k := newKernel(slog.New(slog.NewTextHandler(io.Discard, nil)), false, false)
	close(k.workerGone)
	for range 1000 {
		k.push(&inode{})
	}
	if n := len(k.queue); n > 0 {
		t.Errorf("%d inodes are kept", n)
	}
}

// TestLookUpOfARunCostsNoListing fails when a look-up in an experiment costs the more,
// the more runs it has: `ls -l` would take the square of them.
func TestLookUpOfARunCostsNoListing(t *testing.T) { // alone: it measures memory
	const runs = 2000
	s := storeDir{t, t.TempDir()}
	s.experiment("0", "Default")
	for i := range runs {
		s.run("0", runID(i), fmt.Sprint("fish-", i/2), int64(1_000_000+i), 2_000_000, 3, "active")
	}
	root := asFS{s.tree()}
	name := func(i int) string { return fmt.Sprintf("experiments/Default/fish-%d-%s", i/2, runID(i)[:8]) }
	look := func(i int) uint64 {
		t.Helper()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := iofs.Stat(root, name(i)); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	look(0) // reads the store
	least := look(1)
	for i := range 10 {
		least = min(least, look(i*100))
	}
	if least > 20*runs {
		t.Errorf("a look-up among %d runs takes %d bytes", runs, least)
	}
}
