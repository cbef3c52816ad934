package sessionfile

import (
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// createFile makes a file of memory, of about most bytes, none of which takes memory yet. It
// is as large as the process's limit on files allows (ulimit -f): a larger one ends it by
// SIGXFSZ. Nobody can cut it, which would end by SIGBUS who reads what was cut off.
func createFile(most, least int64) (*os.File, int64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		return nil, 0, err
	}
	most = min(most, math.MaxInt&^(chunkSize-1), int64(min(limit.Cur, math.MaxInt64))&^(chunkSize-1))
	if most < least {
		return nil, 0, fmt.Errorf("the limit on the size of files is %d bytes, and a session takes %d: raise it (ulimit -f)", limit.Cur, least)
	}
	fd, err := unix.MemfdCreate("mlflowfs-session", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("mlflowfs-session", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, 0, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "session")
	return f, most, nil
}

// setSize gives the file its size for good.
func setSize(f *os.File, size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	return control(f, func(fd int) error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW)
		return os.NewSyscallError("fcntl", err)
	})
}

// isSealed tells whether nobody can cut the file.
func isSealed(f *os.File) bool {
	seals := 0
	err := control(f, func(fd int) (err error) {
		seals, err = unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
		return err
	})
	return err == nil && seals&unix.F_SEAL_SHRINK != 0
}

// allocated is how many bytes of memory the file takes.
func allocated(f *os.File) (int64, error) {
	var st unix.Stat_t
	err := control(f, func(fd int) error { return unix.Fstat(fd, &st) })
	return st.Blocks * 512, err
}

// duplicate gives the file another descriptor.
func duplicate(f *os.File) (own *os.File, err error) {
	err = control(f, func(fd int) error {
		fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		own = os.NewFile(uintptr(fd), f.Name())
		return nil
	})
	return own, err
}

// mapFile maps all of it, which takes addresses and no memory.
func mapFile(f *os.File, size int64) (m memory, err error) {
	err = control(f, func(fd int) error {
		m, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		return os.NewSyscallError("mmap", err)
	})
	if err == nil {
		unix.Madvise(m, unix.MADV_DONTDUMP) // a core file would have the full size; without this it does
	}
	return m, err
}

func unmap(m memory) error { return os.NewSyscallError("munmap", unix.Munmap(m)) }

// detach puts this process's own memory in the place of the file's: with the same bytes below
// end, and from there on with zeros that can only be read, which no limit on memory counts.
func detach(f *os.File, m memory, end int) error {
	const own = unix.MAP_PRIVATE | unix.MAP_FIXED
	return control(f, func(fd int) error {
		_, err := unix.MmapPtr(-1, 0, m.at(end), uintptr(len(m)-end), unix.PROT_READ, own|unix.MAP_ANONYMOUS)
		if err == nil {
			_, err = unix.MmapPtr(fd, 0, m.at(0), uintptr(end), unix.PROT_READ|unix.PROT_WRITE, own)
		}
		return os.NewSyscallError("mmap", err)
	})
}

// allocate gives a part of the file memory. Without it the first store there would end the
// process by SIGBUS where there is no memory.
func allocate(f *os.File, off, n int) error {
	return control(f, func(fd int) error {
		return os.NewSyscallError("fallocate", again(func() error { return unix.Fallocate(fd, 0, int64(off), int64(n)) }))
	})
}

// release takes it away again: the part reads as zeros.
func release(f *os.File, off, n int) error {
	return control(f, func(fd int) error {
		return again(func() error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n))
		})
	})
}

// nextData is where the next part of the file begins that may have bytes other than zero; end
// where there is none before it.
func nextData(f *os.File, from, end int) (at int, err error) {
	err = control(f, func(fd int) error {
		off, err := unix.Seek(fd, int64(from), unix.SEEK_DATA)
		at = int(off)
		if err == unix.ENXIO {
			at, err = end, nil
		}
		return err
	})
	return min(at, end), err
}

// again goes on with a call that a signal interrupted. Go's scheduler sends signals.
func again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// control calls with the file's descriptor.
func control(f *os.File, call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(raw.Control(func(fd uintptr) { err = call(int(fd)) }), err)
}
