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
	server atomic.Pointer[fuse.Server] // nil until the first request may come
}

// tell tells the kernel something.
func (s *session) tell(what func(*fuse.Server) fuse.Status) syscall.Errno {
	server := s.server.Load()
	if server == nil {
		return syscall.ENOENT
	}
	return syscall.Errno(what(server))
}

// forgetPages has it drop what it has read of i, attributes included.
func (s *session) forgetPages(i *inode) syscall.Errno {
	return s.tell(func(to *fuse.Server) fuse.Status { return to.InodeNotify(i.number, 0, 0) })
}

// forgetEntry has it look the name up anew in dir, when it is wanted next.
func (s *session) forgetEntry(dir *inode, name string) syscall.Errno {
	return s.tell(func(to *fuse.Server) fuse.Status { return to.EntryNotify(dir.number, name) })
}

// deleteEntry has it take child for one that was deleted from dir, and tell who watches it.
func (s *session) deleteEntry(child, dir *inode) syscall.Errno {
	return s.tell(func(to *fuse.Server) fuse.Status { return to.DeleteNotify(dir.number, child.number, child.name) })
}

// store gives it bytes of i from off on, for its page cache.
func (s *session) store(i *inode, off int64, p []byte) syscall.Errno {
	return s.tell(func(to *fuse.Server) fuse.Status { return to.InodeNotifyStoreCache(i.number, off, p) })
}

// prune has it forget inodes that nobody uses (since Linux 6.18).
func (s *session) prune(batch []*inode) syscall.Errno {
	numbers := make([]uint64, len(batch))
	for at, i := range batch {
		numbers[at] = i.number
	}
	return s.tell(func(to *fuse.Server) fuse.Status { return to.PruneNotify(numbers) })
}

// back gives the number by which the kernel knows a file that it is to read in the place of
// one of ours, until unback (FUSE_DEV_IOC_BACKING_OPEN).
func (s *session) back(f *os.File) (id int32, errno syscall.Errno) {
	errno = s.tell(func(to *fuse.Server) fuse.Status {
		id, errno = openBacking(to, f)
		return fuse.Status(errno)
	})
	return id, errno
}

func (s *session) unback(id int32) {
	s.tell(func(to *fuse.Server) fuse.Status {
		closeBacking(to, id)
		return fuse.OK
	})
}
