package fusefs

import (
	"errors"
	iofs "io/fs"
	"syscall"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/fs"
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
	case errors.Is(err, fs.ErrTooLarge):
		return syscall.EFBIG
	}
	return syscall.EIO
}

// mend is what the log says to do about an error that a program got.
func mend(e syscall.Errno) string {
	switch e {
	case syscall.ENOENT:
		return "it is gone since it was listed: list its directory again"
	case syscall.EACCES:
		return "give credentials that may read it (`mlflowfs doctor`, `mlflowfs resolve URI` say what was tried)"
	case syscall.EOPNOTSUPP:
		return "have the tracking server serve artifacts (--serve-artifacts)"
	case syscall.ESTALE:
		return "open it again: that finds what is there now"
	case syscall.EFBIG:
		return "the store lists a wrong size: look at the artifact there"
	}
	return "try again; if it stays, `mlflowfs doctor` checks the server and the stores"
}
