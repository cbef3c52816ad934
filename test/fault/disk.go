package fault

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// Disk is a directory on a filesystem that fails at will. What is in it lies in
// another directory, so that it is slower than a disk, and else like one: it
// has no passthrough, and locks (flock(2)) are the kernel's.
type Disk struct {
	Dir string

	Done count.Tally // operations, each as "op kind", such as "write data"
	Met  count.Tally // of these, those that failed or hung

	rule   atomic.Pointer[Rule]
	server *fuse.Server
}

// Rule says what becomes of an operation on a file of a kind: it fails with an
// errno, where that is not 0, and waits until wait is closed, where that is not
// nil. The operations are those of [Ops], the kinds those of [KindOf].
type Rule func(op, kind string) (e syscall.Errno, wait <-chan struct{})

// Ops are the operations that a Disk counts, and that a rule may have fail.
var Ops = strings.Fields("lookup getattr setattr open create mkdir unlink rename link readdir read write allocate fsync flush statfs")

// Kinds of files in a cache directory.
var DiskKinds = strings.Fields("data record pin answer usage index lock directory")

// KindOf is what a path below a cache directory is: a file's data, the record
// of its blocks, a pin, the answer of a server, the usage that all processes
// count, the index of what to evict, the lock, or else a directory.
func KindOf(path string) string {
	switch base, ext := filepath.Base(path), filepath.Ext(path); {
	case base == "usage" || base == "lock":
		return base
	case strings.HasPrefix(base, "index"):
		return "index"
	case ext == ".rec" || ext == ".new":
		return "record"
	case strings.Contains(path, "pins/"):
		return "pin"
	case strings.Contains(path, "answers/"):
		return "answer"
	case len(base) > 32:
		return "data"
	}
	return "directory"
}

// On has operations on files of kinds fail, both with a space between names; none of
// them are all.
func On(e syscall.Errno, ops, kinds string) Rule {
	return func(op, kind string) (syscall.Errno, <-chan struct{}) {
		if matches(ops, op) && matches(kinds, kind) {
			return e, nil
		}
		return 0, nil
	}
}

// Hanging has such operations wait until let is closed, and then go on.
func Hanging(let <-chan struct{}, ops, kinds string) Rule {
	return func(op, kind string) (syscall.Errno, <-chan struct{}) {
		if matches(ops, op) && matches(kinds, kind) {
			return 0, let
		}
		return 0, nil
	}
}

// Slow has each operation take that long.
func Slow(each time.Duration) Rule {
	return func(string, string) (syscall.Errno, <-chan struct{}) {
		time.Sleep(each)
		return 0, nil
	}
}

func matches(names, name string) bool {
	return names == "" || slices.Contains(strings.Fields(names), name)
}

// NewDisk mounts at dir a filesystem that has its files in below. The caller
// ends it by Stop.
func NewDisk(dir, below string) (*Disk, error) {
	d := &Disk{Dir: dir}
	root := &diskNode{gofs.LoopbackNode{RootData: &gofs.LoopbackRoot{Path: below}}, d}
	var err error
	d.server, err = gofs.Mount(dir, root, &gofs.Options{MountOptions: fuse.MountOptions{
		FsName:                   "faulty",
		ExplicitDataCacheControl: true, // the kernel asks for attributes when a program does, and not in each read
	}})
	return d, err
}

// Set has the disk fail by a rule from now on; nil is none.
func (d *Disk) Set(r Rule) {
	if r == nil {
		d.rule.Store(nil)
		return
	}
	d.rule.Store(&r)
}

// Stop unmounts it. What hangs must be let go before.
func (d *Disk) Stop() (err error) {
	d.Set(nil)
	for range 600 { // a busy machine
		if err = d.server.Unmount(); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.Join(err, syscall.Unmount(d.Dir, syscall.MNT_DETACH))
}

// fails counts an operation, and gives its errno.
func (d *Disk) fails(op, path string) syscall.Errno {
	kind := KindOf(path)
	name := op + " " + kind
	d.Done.Add(name)
	r := d.rule.Load()
	if r == nil {
		return 0
	}
	e, wait := (*r)(op, kind)
	if e != 0 || wait != nil {
		d.Met.Add(name)
	}
	if wait != nil {
		<-wait
	}
	return e
}

// diskNode is a file or directory, and diskFile an open file.
type diskNode struct {
	gofs.LoopbackNode
	d *Disk
}

type diskFile struct {
	*gofs.LoopbackFile
	d    *Disk
	path string
}

var (
	_ gofs.NodeWrapChilder    = (*diskNode)(nil)
	_ gofs.NodeLookuper       = (*diskNode)(nil)
	_ gofs.NodeGetattrer      = (*diskNode)(nil)
	_ gofs.NodeSetattrer      = (*diskNode)(nil)
	_ gofs.NodeOpener         = (*diskNode)(nil)
	_ gofs.NodeCreater        = (*diskNode)(nil)
	_ gofs.NodeMkdirer        = (*diskNode)(nil)
	_ gofs.NodeUnlinker       = (*diskNode)(nil)
	_ gofs.NodeRenamer        = (*diskNode)(nil)
	_ gofs.NodeLinker         = (*diskNode)(nil)
	_ gofs.NodeOpendirHandler = (*diskNode)(nil)
	_ gofs.NodeStatfser       = (*diskNode)(nil)
	_ gofs.FileReader         = (*diskFile)(nil)
	_ gofs.FileWriter         = (*diskFile)(nil)
	_ gofs.FileAllocater      = (*diskFile)(nil)
	_ gofs.FileFsyncer        = (*diskFile)(nil)
	_ gofs.FileFlusher        = (*diskFile)(nil)
)

func (n *diskNode) WrapChild(context.Context, gofs.InodeEmbedder) gofs.InodeEmbedder {
	return &diskNode{gofs.LoopbackNode{RootData: n.RootData}, n.d}
}

func (n *diskNode) at(name string) string { return filepath.Join(n.Path(nil), name) }

func (n *diskNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	if e := n.d.fails("lookup", n.at(name)); e != 0 {
		return nil, e
	}
	return n.LoopbackNode.Lookup(ctx, name, out)
}

func (n *diskNode) Getattr(ctx context.Context, fh gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if e := n.d.fails("getattr", n.at("")); e != 0 {
		return e
	}
	return n.LoopbackNode.Getattr(ctx, fh, out)
}

func (n *diskNode) Statx(ctx context.Context, fh gofs.FileHandle, flags, mask uint32, out *fuse.StatxOut) syscall.Errno {
	if e := n.d.fails("getattr", n.at("")); e != 0 {
		return e
	}
	return n.LoopbackNode.Statx(ctx, fh, flags, mask, out)
}

func (n *diskNode) Setattr(ctx context.Context, fh gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if e := n.d.fails("setattr", n.at("")); e != 0 {
		return e
	}
	return n.LoopbackNode.Setattr(ctx, fh, in, out)
}

func (n *diskNode) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	if e := n.d.fails("open", n.at("")); e != 0 {
		return nil, 0, e
	}
	fh, fl, e := n.LoopbackNode.Open(ctx, flags)
	return n.file(fh, n.at("")), fl, e
}

func (n *diskNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	if e := n.d.fails("create", n.at(name)); e != 0 {
		return nil, nil, 0, e
	}
	in, fh, fl, e := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return in, n.file(fh, n.at(name)), fl, e
}

func (n *diskNode) file(fh gofs.FileHandle, path string) gofs.FileHandle {
	if f, ok := fh.(*gofs.LoopbackFile); ok {
		return &diskFile{f, n.d, path}
	}
	return fh
}

func (n *diskNode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	if e := n.d.fails("mkdir", n.at(name)); e != 0 {
		return nil, e
	}
	return n.LoopbackNode.Mkdir(ctx, name, mode, out)
}

func (n *diskNode) Unlink(ctx context.Context, name string) syscall.Errno {
	if e := n.d.fails("unlink", n.at(name)); e != 0 {
		return e
	}
	return n.LoopbackNode.Unlink(ctx, name)
}

func (n *diskNode) Rename(ctx context.Context, name string, parent gofs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if e := n.d.fails("rename", filepath.Join(parent.EmbeddedInode().Path(nil), newName)); e != 0 {
		return e
	}
	return n.LoopbackNode.Rename(ctx, name, parent, newName, flags)
}

func (n *diskNode) Link(ctx context.Context, target gofs.InodeEmbedder, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	if e := n.d.fails("link", n.at(name)); e != 0 {
		return nil, e
	}
	return n.LoopbackNode.Link(ctx, target, name, out)
}

func (n *diskNode) OpendirHandle(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	if e := n.d.fails("readdir", n.at("")); e != 0 {
		return nil, 0, e
	}
	return n.LoopbackNode.OpendirHandle(ctx, flags)
}

func (n *diskNode) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	if e := n.d.fails("statfs", n.at("")); e != 0 {
		return e
	}
	return n.LoopbackNode.Statfs(ctx, out)
}

func (f *diskFile) PassthroughFd() (int, bool) { return 0, false }

func (f *diskFile) Read(ctx context.Context, buf []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if e := f.d.fails("read", f.path); e != 0 {
		return nil, e
	}
	return f.LoopbackFile.Read(ctx, buf, off)
}

func (f *diskFile) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if e := f.d.fails("write", f.path); e != 0 {
		return 0, e
	}
	return f.LoopbackFile.Write(ctx, data, off)
}

func (f *diskFile) Writev(ctx context.Context, data [][]byte, off int64) (uint32, syscall.Errno) {
	if e := f.d.fails("write", f.path); e != 0 {
		return 0, e
	}
	return f.LoopbackFile.Writev(ctx, data, off)
}

func (f *diskFile) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	if e := f.d.fails("allocate", f.path); e != 0 {
		return e
	}
	return f.LoopbackFile.Allocate(ctx, off, size, mode)
}

func (f *diskFile) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	if e := f.d.fails("fsync", f.path); e != 0 {
		return e
	}
	return f.LoopbackFile.Fsync(ctx, flags)
}

func (f *diskFile) Flush(ctx context.Context) syscall.Errno {
	if e := f.d.fails("flush", f.path); e != 0 {
		return e
	}
	return f.LoopbackFile.Flush(ctx)
}
