package disk

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// willNeed has the system read part of a file from the disk, and does not wait
// for it (posix_fadvise(2)).
func willNeed(f *os.File, off, n int64) {
	if c, err := f.SyscallConn(); err == nil {
		c.Control(func(fd uintptr) { unix.Fadvise(int(fd), off, n, unix.FADV_WILLNEED) })
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

// maxPieces is how many pieces one pwritev(2) takes (IOV_MAX).
const maxPieces = 1024

// writeAll writes pieces that follow each other (pwritev(2)).
func writeAll(f *os.File, pieces [][]byte, off int64) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	for len(pieces) > 0 {
		var n int
		var werr error
		err := c.Control(func(fd uintptr) { n, werr = unix.Pwritev(int(fd), pieces[:min(len(pieces), maxPieces)], off) })
		switch {
		case err != nil:
			return err
		case werr == unix.EINTR:
			continue
		case werr != nil:
			return werr
		case n == 0:
			return unix.ENOSPC // write(2) of more than nothing that writes nothing
		}
		off += int64(n)
		for len(pieces) > 0 && n >= len(pieces[0]) {
			n -= len(pieces[0])
			pieces = pieces[1:]
		}
		if n > 0 {
			pieces = append([][]byte{pieces[0][n:]}, pieces[1:]...)
		}
	}
	return nil
}

// openAt opens a file of the directory for reading and writing. It asks for no
// attributes, as [os.Root.OpenFile] does: a disk that answers none is read.
func (d *Dir) openAt(name string) (f *os.File, err error) {
	c, err := d.dir.SyscallConn()
	if err != nil {
		return nil, err
	}
	path := d.path + "/" + name
	cerr := c.Control(func(dir uintptr) {
		fd := -1
		for err = error(unix.EINTR); err == unix.EINTR; {
			fd, err = unix.Openat(int(dir), name, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		}
		if err == nil {
			f = os.NewFile(uintptr(fd), path)
		} else {
			err = &os.PathError{Op: "openat", Path: path, Err: err}
		}
	})
	return f, errors.Join(cerr, err)
}

// setTime sets when f was last written to.
func setTime(f *os.File, at time.Time) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	tv := unix.NsecToTimeval(at.UnixNano())
	if err := c.Control(func(fd uintptr) { serr = unix.Futimes(int(fd), []unix.Timeval{tv, tv}) }); err != nil {
		return err
	}
	return serr
}
