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
