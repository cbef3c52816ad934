package fusefs

import (
	"context"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mlflowfs/mlflowfs/fs"
)

// late is a directory whose look-ups wait, when they know what to answer, for as long as
// done is taken.
type late struct {
	fs.Dir
	found chan struct{}
	done  sync.RWMutex
}

func (l *late) Lookup(ctx context.Context, name string) (*fs.Node, error) {
	n, err := l.Dir.Lookup(ctx, name)
	l.found <- struct{}{}
	l.done.RLock()
	defer l.done.RUnlock()
	return n, err
}

// TestNameLeadsToWhatWasFoundLastThoughForgotten fails when a directory shows what an
// earlier look-up found, or is known to nobody, since the kernel had forgotten it while it
// was looked up.
func TestNameLeadsToWhatWasFoundLastThoughForgotten(t *testing.T) {
	t.Parallel()
	d := &turning{}
	show := func(content string) { // of the directory d, in which there is one file
		in := &turning{}
		in.set(false, content)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.next = []*fs.Node{{Dir: in}}
	}
	top := &late{Dir: d, found: make(chan struct{}, 10)}
	r := asked(&fs.Node{Dir: top})
	size := func(dir fuse.EntryOut) uint64 { return r.find(t, dir.NodeId, "f").Size }
	show("old")
	first := r.find(t, fuse.FUSE_ROOT_ID, "d")
	<-top.found
	top.done.Lock()
	again := make(chan fuse.EntryOut)
	go func() { again <- r.find(t, fuse.FUSE_ROOT_ID, "d") }()
	<-top.found
	r.Forget(first.NodeId, 1)
	top.done.Unlock()
	if got := size(<-again); got != uint64(len("old")) {
		t.Errorf("what was forgotten meanwhile has %d bytes", got)
	}
	show("the new")
	if got := size(r.find(t, fuse.FUSE_ROOT_ID, "d")); got != uint64(len("the new")) {
		t.Errorf("the file in it has %d bytes", got)
	}
}
