package fusefs

import (
	"context"
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mlflowfs/mlflowfs/fs"
)

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
		d.next = []*fs.Node{{Dir: in}}
	}
	a := &adapter{log: log, names: newNames(log, 0), links: newLinkWatcher(""), watchdog: newWatchdog(log, time.Minute), answered: func(string, time.Duration) {}}
	top := &late{inode: inode{a: a, node: &fs.Node{Dir: d}}, found: make(chan struct{}, 10)}
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
