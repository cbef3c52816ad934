package disk

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// willNeed has the system read part of a file from the disk (posix_fadvise(2)).
func willNeed(f *os.File, off, n int64) {
	control(f, func(fd int) error { return unix.Fadvise(fd, off, n, unix.FADV_WILLNEED) })
}

// readNow reads what the system has in memory of a file (preadv2(2) with
// RWF_NOWAIT), and 0 bytes where it can't tell.
func readNow(f *os.File, p []byte, off int64) (n int) {
	control(f, func(fd int) (err error) {
		n, err = unix.Preadv2(fd, [][]byte{p}, off, unix.RWF_NOWAIT)
		return err
	})
	return max(n, 0)
}

// maxPieces is how many pieces one pwritev(2) takes (IOV_MAX).
const maxPieces = 1024

// writev writes as much of pieces, which follow each other, as one call can.
func writev(f *os.File, pieces [][]byte, off int64) (n int) {
	control(f, func(fd int) (err error) {
		n, err = unix.Pwritev(fd, pieces[:min(len(pieces), maxPieces)], off)
		return err
	})
	return max(n, 0)
}

// takesPlace tells whether the place of a write is worth taking before: ext4 spends a third
// of a write's CPU on pages that find none.
func takesPlace(f *os.File) bool {
	var st unix.Statfs_t
	err := control(f, func(fd int) error { return unix.Fstatfs(fd, &st) })
	return err == nil && st.Type == unix.EXT4_SUPER_MAGIC
}

// takePlace takes the place of n bytes of a file from off on (fallocate(2)). Where that
// can't be, the write says what is wrong.
func takePlace(f *os.File, off, n int64) {
	control(f, func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, off, n) })
}

// cloneFile has to, which is empty, share the blocks of from (ioctl_ficlone(2)).
func cloneFile(to, from *os.File) error {
	return control(to, func(fd int) error {
		return control(from, func(from int) error { return unix.IoctlFileClone(fd, from) })
	})
}

// linkFile gives f, which is open, a name in dir. linkat(2) takes the file by its
// descriptor alone (AT_EMPTY_PATH) from the privileged only.
func linkFile(f, dir *os.File, name string) error {
	return control(f, func(fd int) error {
		return control(dir, func(dir int) error {
			return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), dir, name, unix.AT_SYMLINK_FOLLOW)
		})
	})
}

// boot is the id of the boot of this machine; empty where it can't be told.
func boot() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
