package fusefs

import (
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

var _ server = (*connection)(nil)

// What the kernel is told unasked (fuse_notify_code in the kernel).

func (c *connection) InodeNotify(node uint64, off, length int64) fuse.Status {
	return c.tell(fuse.NOTIFY_INVAL_INODE, bytesOf(&fuse.NotifyInvalInodeOut{Ino: node, Off: off, Length: length}))
}

func (c *connection) EntryNotify(parent uint64, name string) fuse.Status {
	return c.tell(fuse.NOTIFY_INVAL_ENTRY, bytesOf(&fuse.NotifyInvalEntryOut{Parent: parent, NameLen: uint32(len(name))}), []byte(name+"\x00"))
}

func (c *connection) DeleteNotify(parent, child uint64, name string) fuse.Status {
	return c.tell(fuse.NOTIFY_DELETE, bytesOf(&fuse.NotifyInvalDeleteOut{Parent: parent, Child: child, NameLen: uint32(len(name))}), []byte(name+"\x00"))
}

func (c *connection) InodeNotifyStoreCache(node uint64, off int64, p []byte) fuse.Status {
	return c.tell(fuse.NOTIFY_STORE_CACHE, bytesOf(&fuse.NotifyStoreOut{Nodeid: node, Offset: uint64(off), Size: uint32(len(p))}), p)
}

func (c *connection) PruneNotify(nodes []uint64) fuse.Status {
	if c.minor < 45 {
		return fuse.ENOSYS
	}
	if len(nodes) == 0 {
		return fuse.OK
	}
	return c.tell(fuse.NOTIFY_PRUNE, bytesOf(&fuse.NotifyPruneOut{Count: uint32(len(nodes))}), unsafe.Slice((*byte)(unsafe.Pointer(&nodes[0])), 8*len(nodes)))
}

// Backing files (FUSE_DEV_IOC_BACKING_OPEN and _CLOSE in the kernel).

func (c *connection) RegisterBackingFd(m *fuse.BackingMap) (int32, syscall.Errno) {
	return c.ioctl(0x4010e501, unsafe.Pointer(m))
}

func (c *connection) UnregisterBackingFd(id int32) syscall.Errno {
	_, errno := c.ioctl(0x4004e502, unsafe.Pointer(&id))
	return errno
}

func (c *connection) ioctl(op uintptr, arg unsafe.Pointer) (id int32, errno syscall.Errno) {
	err := c.with(func(fd int) {
		var n uintptr
		n, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), op, uintptr(arg))
		id = int32(n)
	})
	if err != nil {
		errno = unix.EBADF
	}
	return id, errno
}

// tell sends a message that no request is answered by. A kernel that does not know its kind
// says EINVAL.
func (c *connection) tell(code int32, pieces ...[]byte) fuse.Status {
	head := fuse.OutHeader{Status: -code}
	head.Length = uint32(unsafe.Sizeof(head))
	for _, p := range pieces {
		head.Length += uint32(len(p))
	}
	err := c.write(append([][]byte{bytesOf(&head)}, pieces...)...)
	if err == unix.EINVAL {
		err = unix.ENOSYS
	}
	return fuse.ToStatus(err)
}

// bytesOf is a struct of the kernel's as it is sent.
func bytesOf[T any](v *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) }
