package fusefs

import (
	"os"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// session is the kernel's end of a mount: what it is told without being asked, and the files
// that it is given to read by itself. No lock of ours is held while it is told something, but
// for inode.pushing: it may wait for a page, or for a directory's lock, that a request holds.
//
// ENOENT says that it has nothing of the kind; before the first request it has nothing.
type session struct {
	server atomic.Pointer[server] // nil until the first request may come
}

// server is what talks to the kernel: a connection of our own on Linux, and go-fuse's server
// elsewhere, whose methods these are.
type server interface {
	InodeNotify(node uint64, off, length int64) fuse.Status
	EntryNotify(parent uint64, name string) fuse.Status
	DeleteNotify(parent, child uint64, name string) fuse.Status
	InodeNotifyStoreCache(node uint64, off int64, p []byte) fuse.Status
	PruneNotify(nodes []uint64) fuse.Status
	Unmount() error
	Wait()
}

// backer is a server that can have the kernel read files by itself.
type backer interface {
	RegisterBackingFd(m *fuse.BackingMap) (int32, syscall.Errno)
	UnregisterBackingFd(id int32) syscall.Errno
}

// tell tells the kernel something.
func (s *session) tell(what func(server) fuse.Status) syscall.Errno {
	to := s.server.Load()
	if to == nil {
		return syscall.ENOENT
	}
	return syscall.Errno(what(*to))
}

// forgetPages has it drop what it has read of an inode, attributes included.
func (s *session) forgetPages(number uint64) syscall.Errno {
	return s.tell(func(to server) fuse.Status { return to.InodeNotify(number, 0, 0) })
}

// forgetEntry has it look the name up anew in dir, when it is wanted next.
func (s *session) forgetEntry(dir uint64, name string) syscall.Errno {
	return s.tell(func(to server) fuse.Status { return to.EntryNotify(dir, name) })
}

// deleteEntry has it take child for one that was deleted from dir, and tell who watches it.
func (s *session) deleteEntry(child, dir uint64, name string) syscall.Errno {
	return s.tell(func(to server) fuse.Status { return to.DeleteNotify(dir, child, name) })
}

// store gives it bytes of an inode from off on, for its page cache.
func (s *session) store(number uint64, off int64, p []byte) syscall.Errno {
	return s.tell(func(to server) fuse.Status { return to.InodeNotifyStoreCache(number, off, p) })
}

// prune has it forget inodes that nobody uses (since Linux 6.18).
func (s *session) prune(numbers []uint64) syscall.Errno {
	return s.tell(func(to server) fuse.Status { return to.PruneNotify(numbers) })
}

// back gives the number by which the kernel knows a file that it is to read in the place of
// one of ours, until unback (FUSE_DEV_IOC_BACKING_OPEN).
func (s *session) back(f *os.File) (id int32, errno syscall.Errno) {
	errno = s.tell(func(to server) fuse.Status {
		b, ok := to.(backer)
		if !ok {
			return fuse.ENOSYS
		}
		id, errno = b.RegisterBackingFd(&fuse.BackingMap{Fd: int32(f.Fd())})
		return fuse.Status(errno)
	})
	return id, errno
}

func (s *session) unback(id int32) {
	s.tell(func(to server) fuse.Status { return fuse.Status(to.(backer).UnregisterBackingFd(id)) })
}
