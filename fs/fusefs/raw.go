package fusefs

import (
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

// Init is called where go-fuse's own server answers, when the kernel and it have agreed,
// before the first request.
func (r raw) Init(s *fuse.Server) {
	var to server = s
	r.a.session.server.Store(&to)
}

func (r raw) String() string { return fsName }

// of has the inode answer that the kernel knows by a number, when it is resolved; ESTALE where
// it knows none, which can't be.
func (r raw) of(q request, number uint64, answer func(*inode) syscall.Errno) fuse.Status {
	i := r.a.names.use(r.a, number)
	if i == nil {
		return fuse.Status(syscall.ESTALE)
	}
	defer i.done()
	if errno := i.resolves(q); errno != 0 {
		return fuse.Status(errno)
	}
	return fuse.Status(answer(i))
}

func (r raw) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	q := request{cancel, in.Pid}
	return r.of(q, in.NodeId, func(i *inode) syscall.Errno {
		if name == "." || name == ".." {
			return i.itself(q, name, out)
		}
		return i.lookup(q, name, out)
	})
}

func (r raw) Forget(number, lookups uint64) { r.a.forget(number, lookups) }

// forget is [names.forget], told to who must know it.
func (a *adapter) forget(number, lookups uint64) {
	if a.names.forget(number, lookups) {
		a.links.forgotten(number)
	}
}

func (r raw) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	i := r.a.names.use(r.a, in.NodeId)
	if i == nil {
		return fuse.Status(syscall.ESTALE)
	}
	defer i.done()
	q := request{cancel, in.Pid}
	if errno := i.resolves(q); errno != 0 {
		if i.remembered(out) {
			return fuse.OK
		}
		return fuse.Status(errno)
	}
	return fuse.Status(i.getattr(q, out))
}

func (r raw) Readlink(cancel <-chan struct{}, in *fuse.InHeader) (to []byte, status fuse.Status) {
	status = r.of(request{cancel, in.Pid}, in.NodeId, func(i *inode) syscall.Errno {
		to = []byte(i.get().Link)
		return 0
	})
	return to, status
}

func (r raw) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, fs.MaxName
	return fuse.OK
}

func (r raw) GetXAttr(cancel <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (n uint32, status fuse.Status) {
	status = r.of(request{cancel, in.Pid}, in.NodeId, func(i *inode) (errno syscall.Errno) {
		n, errno = i.getxattr(name, dest)
		return errno
	})
	return n, status
}

func (r raw) ListXAttr(cancel <-chan struct{}, in *fuse.InHeader, dest []byte) (n uint32, status fuse.Status) {
	status = r.of(request{cancel, in.Pid}, in.NodeId, func(i *inode) (errno syscall.Errno) {
		n, errno = i.listxattr(dest)
		return errno
	})
	return n, status
}

func (r raw) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	q := request{cancel, in.Pid}
	if r.reopened(in, out) {
		return fuse.OK
	}
	return r.of(q, in.NodeId, func(i *inode) syscall.Errno {
		f, errno := i.open(q, in.Flags, out)
		if errno != 0 {
			return errno
		}
		if out.Fh = r.a.handles.add(f, in.Unique); out.Fh == 0 {
			f.released()
			return syscall.ENOMEM
		}
		return 0
	})
}

// reopened answers an OPEN that a daemon before this one had answered, or was about to, where
// the kernel may read by that already; otherwise that open is undone.
func (r raw) reopened(in *fuse.OpenIn, out *fuse.OpenOut) bool {
	k, kept := r.a.handles.at(in.Unique).(*keptFile)
	if !kept {
		return false
	}
	if k.rec.Identity == 0 {
		r.release(in.Unique)
		return false
	}
	out.Fh = in.Unique
	if k.rec.Passed {
		out.BackingID, out.OpenFlags = k.rec.Backing, fuse.FOPEN_PASSTHROUGH
		if in.Flags&pastPages != 0 {
			out.OpenFlags |= fuse.FOPEN_DIRECT_IO
		}
	}
	return true
}

func (r raw) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	q := request{cancel, in.Pid}
	var f *openFile
	switch opened := r.a.handles.at(in.Fh).(type) {
	case *openFile:
		f = opened
	case *keptFile:
		var errno syscall.Errno
		if f, errno = opened.file(q); errno != 0 {
			return nil, fuse.Status(errno)
		}
	default:
		return nil, fuse.EBADF
	}
	fills := in.ReadFlags&fuse.READ_LOCKOWNER == 0 // fuse_direct_io in the kernel sets it
	n, errno := f.read(q, buf, int64(in.Offset), fills)
	if errno != 0 {
		return nil, fuse.Status(errno)
	}
	return filled(n), fuse.OK
}

// filled is an answer to a READ that lies in its buffer already: so many bytes.
type filled int

func (n filled) Size() int                              { return int(n) }
func (n filled) Done()                                  {}
func (n filled) Bytes(buf []byte) ([]byte, fuse.Status) { return buf[:n], fuse.OK }
func (n filled) Readv(_ [][]byte) (int, fuse.Status)    { return int(n), fuse.OK }

func (r raw) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { r.release(in.Fh) }

func (r raw) ReleaseDir(in *fuse.ReleaseIn) { r.release(in.Fh) }

func (r raw) release(handle uint64) {
	if opened, ok := r.a.handles.take(handle).(interface{ released() }); ok {
		opened.released()
	}
}

func (r raw) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.Unique != 0 {
		r.release(in.Unique) // by a daemon that was killed before it could tell
	}
	return r.of(request{cancel, in.Pid}, in.NodeId, func(i *inode) syscall.Errno {
		d, errno := i.opendir(out)
		if errno != 0 {
			return errno
		}
		if out.Fh = r.a.handles.add(d, in.Unique); out.Fh == 0 {
			d.released()
			return syscall.ENOMEM
		}
		return 0
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
	q := request{cancel, in.Pid}
	if errno := d.i.resolves(q); errno != 0 {
		return fuse.Status(errno)
	}
	return fuse.Status(d.read(q, in.Offset, out, plus))
}

// Flush has the kernel send no more of them, at each close: nothing was written.
func (r raw) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Ioctl knows none: without a method the kernel would take this for a bug.
func (r raw) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(syscall.ENOTTY)
}
