//go:build linux

package fusefs

import (
	"log/slog"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/fs/fusefs/sessionfile"
)

// TestTakeoverOpensOnce fails when what a daemon opened, and was killed before it could tell,
// stays open beside what the next daemon opens for the same request.
func TestTakeoverOpensOnce(t *testing.T) {
	t.Parallel()
	root := &fs.Node{Dir: fixed{{Name: "f", Node: sized("f")}}}
	r := asked(root)
	number := r.find(t, fuse.FUSE_ROOT_ID, "f").NodeId
	file := &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: number, Unique: 2}}
	dir := &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID, Unique: 4}}
	opens := func(r raw) {
		t.Helper()
		var a, b fuse.OpenOut
		if s := r.Open(nil, file, &a); !s.Ok() {
			t.Fatal(s)
		}
		if s := r.OpenDir(nil, dir, &b); !s.Ok() {
			t.Fatal(s)
		}
		if n := r.a.file.Handles.Len(); n != 2 || a.Fh != 2 || b.Fh != 4 {
			t.Errorf("%d handles, %d and %d", n, a.Fh, b.Fh)
		}
	}
	opens(r)
	for range 3 {
		again, err := sessionfile.Open(r.a.file.Descriptor(), 0)
		if err != nil {
			t.Fatal(err)
		}
		opt := MountOptions{Log: slog.New(slog.DiscardHandler), Stuck: time.Minute, NoPassing: true, NoPushing: true}
		r = raw{fuse.NewDefaultRawFileSystem(), newAdapter("", root, opt, again)}
		r.a.keep()
		opens(r)
	}
	r.release(2)
	r.release(4)
	if n := r.a.file.Handles.Len(); n != 0 {
		t.Errorf("%d handles are left", n)
	}
}
