package fusefs

import (
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mlflowfs/mlflowfs/fs"
)

// raw is the mount as the kernel asks it: each request goes to the inode or the handle
// that it names. What has no method here is answered by ENOSYS, and not asked again where
// the kernel can do without, as it can without LSEEK and STATX.
type raw struct {
	fuse.RawFileSystem
	a *adapter
}

// request is one of the kernel's: who waits for the answer, and what tells that somebody
// would rather not. The kernel's own, as its read-ahead, have no thread.
type request struct {
	interrupted <-chan struct{}
	thread      uint32
}

// Init is called when the kernel and go-fuse have agreed, before the first request.
func (r raw) Init(s *fuse.Server) { r.a.session.server.Store(s) }

func (r raw) String() string { return fsName }

// of has the inode answer that the kernel knows by a number; ESTALE where it knows none,
// which can't be.
func (r raw) of(number uint64, answer func(*inode) syscall.Errno) fuse.Status {
	i := r.a.names.at(number)
	if i == nil {
		return fuse.Status(syscall.ESTALE)
	}
	return fuse.Status(answer(i))
}

func (r raw) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return r.of(in.NodeId, func(i *inode) syscall.Errno { return i.lookup(request{cancel, in.Pid}, name, out) })
}

func (r raw) Forget(number, lookups uint64) { r.a.names.forget(number, lookups) }

func (r raw) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return r.of(in.NodeId, func(i *inode) syscall.Errno { return i.getattr(request{cancel, in.Pid}, out) })
}

func (r raw) Readlink(_ <-chan struct{}, in *fuse.InHeader) (to []byte, status fuse.Status) {
	status = r.of(in.NodeId, func(i *inode) syscall.Errno {
		to = []byte(i.get().Link)
		return 0
	})
	return to, status
}

func (r raw) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, fs.MaxName
	return fuse.OK
}

func (r raw) GetXAttr(_ <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (n uint32, status fuse.Status) {
	status = r.of(in.NodeId, func(i *inode) (errno syscall.Errno) {
		n, errno = i.getxattr(name, dest)
		return errno
	})
	return n, status
}

func (r raw) ListXAttr(_ <-chan struct{}, in *fuse.InHeader, dest []byte) (n uint32, status fuse.Status) {
	status = r.of(in.NodeId, func(i *inode) (errno syscall.Errno) {
		n, errno = i.listxattr(dest)
		return errno
	})
	return n, status
}

func (r raw) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return r.of(in.NodeId, func(i *inode) syscall.Errno {
		f, errno := i.open(request{cancel, in.Pid}, in.Flags, out)
		if errno == 0 {
			out.Fh = r.a.handles.add(f)
		}
		return errno
	})
}

func (r raw) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	f, ok := r.a.handles.at(in.Fh).(*openFile)
	if !ok {
		return nil, fuse.EBADF
	}
	fills := in.ReadFlags&fuse.READ_LOCKOWNER == 0 // fuse_direct_io in the kernel sets it
	n, errno := f.read(request{cancel, in.Pid}, buf, int64(in.Offset), fills)
	if errno != 0 {
		return nil, fuse.Status(errno)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (r raw) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if f, ok := r.a.handles.take(in.Fh).(*openFile); ok {
		f.released()
	}
}

func (r raw) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return r.of(in.NodeId, func(i *inode) syscall.Errno {
		d, errno := i.opendir(out)
		if errno == 0 {
			out.Fh = r.a.handles.add(d)
		}
		return errno
	})
}

func (r raw) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.readDir(cancel, in, out, false)
}

func (r raw) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.readDir(cancel, in, out, true)
}

func (r raw) readDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList, plus bool) fuse.Status {
	d, ok := r.a.handles.at(in.Fh).(*openDir)
	if !ok {
		return fuse.EBADF
	}
	return fuse.Status(d.read(request{cancel, in.Pid}, in.Offset, out, plus))
}

func (r raw) ReleaseDir(in *fuse.ReleaseIn) { r.a.handles.take(in.Fh) }

// Flush has the kernel send no more of them, at each close: nothing was written.
func (r raw) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Ioctl knows none: without a method the kernel would take this for a bug.
func (r raw) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(syscall.ENOTTY)
}

// handles are what programs have open, by the numbers that the kernel knows them by.
type handles struct {
	mu   sync.RWMutex // guards what follows; no other lock is taken under it
	last uint64
	open map[uint64]any // *openFile or *openDir
}

func (h *handles) add(opened any) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open == nil {
		h.open = map[uint64]any{}
	}
	h.last++
	h.open[h.last] = opened
	return h.last
}

func (h *handles) at(number uint64) any {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.open[number]
}

// take is at, for the last time.
func (h *handles) take(number uint64) any {
	h.mu.Lock()
	defer h.mu.Unlock()
	opened := h.open[number]
	delete(h.open, number)
	return opened
}
