package fs

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// turning is a directory whose one file is another at each look-up.
type turning struct {
	mu   sync.Mutex // guards next
	next []*Node    // the last stays
}

func (d *turning) Lookup(context.Context, string) (*Node, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.next[0]
	if len(d.next) > 1 {
		d.next = d.next[1:]
	}
	return n, nil
}

func (d *turning) List(context.Context) (Listing, error) { return &entries{}, nil }

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
			point, _ := mounted(t, &Node{Dir: d}, MountOptions{})
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

// late is the top of a tree whose look-ups wait, when they know what to answer, for as
// long as done is taken.
type late struct {
	inode
	found chan struct{}
	done  sync.RWMutex
}

func (l *late) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	child, errno := l.inode.Lookup(ctx, name, out)
	l.found <- struct{}{}
	l.done.RLock()
	defer l.done.RUnlock()
	return child, errno
}

// TestNameLeadsToWhatWasFoundLastThoughForgotten fails when a directory shows what an
// earlier look-up found, since the kernel had forgotten it while it was looked up.
func TestNameLeadsToWhatWasFoundLastThoughForgotten(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	d := &turning{}
	show := func(content string) { // of the directory d, in which there is one file
		in := &turning{}
		in.set(false, content)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.next = []*Node{{Dir: in}}
	}
	a := &adapter{log: log, names: newNames(log, 0), moves: newMoves(""), dog: newWatchdog(log, time.Minute), answered: func(string, time.Duration) {}}
	top := &late{inode: inode{a: a, node: &Node{Dir: d}}, found: make(chan struct{}, 10)}
	raw := gofs.NewNodeFS(top, &gofs.Options{RootStableAttr: &gofs.StableAttr{Ino: 1}})
	find := func(in uint64, name string) (out fuse.EntryOut) {
		if status := raw.Lookup(nil, &fuse.InHeader{NodeId: in}, name, &out); !status.Ok() {
			t.Errorf("%s: %v", name, status)
		}
		return out
	}
	show("old")
	first := find(fuse.FUSE_ROOT_ID, "d")
	<-top.found
	top.done.Lock()
	var again sync.WaitGroup
	again.Go(func() { find(fuse.FUSE_ROOT_ID, "d") })
	<-top.found
	raw.Forget(first.NodeId, 1)
	top.done.Unlock()
	again.Wait()
	show("the new")
	if got := find(find(fuse.FUSE_ROOT_ID, "d").NodeId, "f").Size; got != uint64(len("the new")) {
		t.Errorf("the file in it has %d bytes", got)
	}
}
