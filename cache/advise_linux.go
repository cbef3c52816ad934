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

// readNow reads what the system has in memory of a file (preadv2(2) with
// RWF_NOWAIT), and 0 bytes where it can't tell.
func readNow(f *os.File, p []byte, off int64) (n int) {
	if c, err := f.SyscallConn(); err == nil {
		c.Control(func(fd uintptr) { n, _ = unix.Preadv2(int(fd), [][]byte{p}, off, unix.RWF_NOWAIT) })
	}
	return max(n, 0)
}
