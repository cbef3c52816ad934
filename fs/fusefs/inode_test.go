package fusefs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/fs"
)

// turning is a directory whose one file is another at each look-up.
type turning struct {
	mu   sync.Mutex // guards next
	next []*fs.Node // the last stays
}

func (d *turning) Lookup(context.Context, string) (*fs.Node, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.next[0]
	if len(d.next) > 1 {
		d.next = d.next[1:]
	}
	return n, nil
}

func (d *turning) List(context.Context) (fs.Listing, error) { return &entries{}, nil }

// set has the next look-ups find contents, in that order. bare ones have nothing that
// tells them from each other but their size.
func (d *turning) set(bare bool, contents ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next = nil
	for _, s := range contents {
		n := sized(s)
		if bare {
			n.Stamp = ""
		}
		d.next = append(d.next, n)
	}
}

// TestNameLeadsToWhatWasFoundLast fails when an open of a name reads what an earlier
// look-up found, since the kernel still knows the inode of that: another program has it
// open, or it has not been forgotten yet.
func TestNameLeadsToWhatWasFoundLast(t *testing.T) {
	t.Parallel()
	for _, bare := range []bool{false, true} {
		t.Run(fmt.Sprint("bare ", bare), func(t *testing.T) {
			t.Parallel()
			d := &turning{}
			point, _ := mounted(t, &fs.Node{Dir: d}, MountOptions{})
			file := filepath.Join(point, "f")
			d.set(bare, "old")
			holder := exec.CommandContext(t.Context(), "sh", "-c", `exec 3<"$1"; cat <"$1"; echo; read wait; cat <&3`, "sh", file)
			in, err := holder.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			var said locked
			holder.Stdout = &said
			if err := holder.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the file is open", func() bool { return said.String() == "old\n" })
			for round := range 20 {
				want := fmt.Sprintf("%03d", round)
				d.set(bare, "another", want) // of another size, and of the old one's again
				if got := run(t, "cat", file); got != want && got != "another" {
					t.Errorf("round %d: it reads %q", round, got)
				}
				if got := run(t, "cat", file); got != want {
					t.Errorf("round %d: it reads %q", round, got)
				}
			}
			in.Close()
			if err := holder.Wait(); err != nil || !strings.HasSuffix(said.String(), "old") {
				t.Errorf("the one who has it open reads %q, %v", said.String(), err)
			}
		})
	}
}

// kept is a file whose first handle has no backing file yet, and is closed when let is.
type kept struct {
	data    []byte
	backing *os.File
	let     chan struct{}
	opens   atomic.Int64
	closing atomic.Bool // the first handle is
}

func (k *kept) Open(context.Context) (fs.Handle, error) {
	return &keptHandle{k, k.opens.Add(1) == 1}, nil
}

type keptHandle struct {
	*kept
	first bool
}

func (h *keptHandle) Identity() string { return "the same" }

func (h *keptHandle) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(h.data).ReadAt(p, off)
}

func (h *keptHandle) Backing() *os.File {
	if h.first {
		return nil
	}
	return h.backing
}

func (h *keptHandle) Close() error {
	if h.first {
		h.closing.Store(true)
		<-h.let
	}
	return nil
}

// TestOpenBesideACloseKeepsItsBackingFile fails when a file can't be opened since one
// who closed it took the backing file of another away: go-fuse gives it up with each
// RELEASE, whether the handle had it or not.
func TestOpenBesideACloseKeepsItsBackingFile(t *testing.T) {
	t.Parallel()
	backing, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { backing.Close() }) // after the mount's end
	k := &kept{data: bytes.Repeat([]byte("x"), 4096), backing: backing, let: make(chan struct{})}
	if _, err := backing.Write(k.data); err != nil {
		t.Fatal(err)
	}
	point, _ := mounted(t, &fs.Node{Dir: fixed{{Name: "f", Node: &fs.Node{File: k, Size: int64(len(k.data)), TTL: time.Hour}}}}, MountOptions{})
	file := filepath.Join(point, "f")
	run(t, "cmp", file, backing.Name())
	eventually(t, "the first handle is being closed", k.closing.Load)
	holder := exec.CommandContext(t.Context(), "sh", "-c", `exec 3<"$1"; echo; read wait; cat <&3`, "sh", file)
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said locked
	holder.Stdout = &said
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file is open", func() bool { return said.String() == "\n" })
	close(k.let)
	for range 20 {
		run(t, "cmp", file, backing.Name())
	}
	in.Close()
	if err := holder.Wait(); err != nil || said.String() != "\n"+string(k.data) {
		t.Errorf("%v, %d bytes", err, len(said.String()))
	}
}
