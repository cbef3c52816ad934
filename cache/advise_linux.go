package cache

import (
	"os"

	"golang.org/x/sys/unix"
)

// willNeed has the system read part of a file from the disk, and does not wait
// for it (posix_fadvise(2)).
func willNeed(f *os.File, off, n int64) {
	if c, err := f.SyscallConn(); err == nil {
		c.Control(func(fd uintptr) { unix.Fadvise(int(fd), off, n, unix.FADV_WILLNEED) })
	}
}

// allocate has the system find a place on the disk for part of a file at once
// (fallocate(2)), which takes less than half of what finding one for each
// write does. Where it can't, the writes do.
func allocate(f *os.File, off, n int64) {
	if c, err := f.SyscallConn(); err == nil {
		c.Control(func(fd uintptr) { unix.Fallocate(int(fd), unix.FALLOC_FL_KEEP_SIZE, off, n) })
	}
}
