package fs

import (
	"errors"
	iofs "io/fs"
	"syscall"

	"github.com/mlflowfs/mlflowfs/cache"
)

// errInterrupted ends the wait of a request whose program is on its way out.
var errInterrupted = errors.New("interrupted")

// errno is what a program is told of an error; the words go to the log.
func errno(err error) syscall.Errno {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errInterrupted):
		return syscall.EINTR
	case errors.Is(err, iofs.ErrNotExist):
		return syscall.ENOENT
	case errors.Is(err, iofs.ErrPermission):
		return syscall.EACCES
	case errors.Is(err, errors.ErrUnsupported):
		return syscall.EOPNOTSUPP
	case errors.Is(err, cache.ErrChanged):
		return syscall.ESTALE
	}
	return syscall.EIO
}
