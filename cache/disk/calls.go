package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"
)

// op is a kind of operation. Each kind rests by itself: a disk that takes no
// more is still read, and one that answers no stat is read and written.
type op int

const (
	opOpen  op = iota // finds something by its name
	opMake            // makes or removes it: create, link, rename, unlink
	opStat            // asks for attributes; the cache works without them
	opRead            // of an open file
	opWrite           // to an open file
	allOps
)

// rest is whether operations of one kind may be tried.
type rest struct {
	until atomic.Int64 // not before that much of Dir.age, in nanoseconds; 0: now
	stuck atomic.Int64 // operations that have not come back
}

const (
	patience = 2 * time.Second  // for one operation
	resting  = 10 * time.Second // after the device failed
	full     = time.Second      // after there was no room
	statRest = time.Second      // after a stat failed
)

var (
	errSlow    = errors.New("the disk does not answer")
	errResting = errors.New("the disk is left alone for a while")
	errPanic   = errors.New("panic")

	// ErrNoRoom says that the bound, or what the disk has free, allows no more.
	ErrNoRoom = errors.New("the cache's disk has no room for it")

	// ErrDamaged says that a block is not what was written.
	ErrDamaged = errors.New("a block of the disk cache does not match its checksum")

	// ErrGone says that the file was evicted or replaced: what is written to it
	// would count for nobody.
	ErrGone = errors.New("the file has left the disk cache")
)

// age is how long d has been open. Rests are measured in it, and not in the time
// of day, which may jump.
func (d *Dir) age() time.Duration { return time.Since(d.opened) }

// may tells whether operations of a kind may be tried. It does not block.
func (d *Dir) may(o op) bool {
	if d == nil {
		return true
	}
	r := &d.rests[o]
	return r.stuck.Load() == 0 && int64(d.age()) >= r.until.Load()
}

// concern is whom an error concerns.
type concern int

const (
	thisFile    concern = iota // it is gone, cut, damaged, closed, or another's; or the bound is reached
	thisProcess                // it may open no more files, or has no memory
	space                      // the disk takes no more; what is there can be read
	device                     // the disk fails
)

// concerns classifies an error of the disk; it is the only place that does.
func concerns(err error) concern {
	for c, errs := range [][]error{
		thisFile: {
			fs.ErrNotExist, fs.ErrExist, fs.ErrClosed, fs.ErrPermission, io.EOF, io.ErrUnexpectedEOF, ErrDamaged, ErrGone, ErrNotWhole, ErrNoRoom, errUnfinished, errPanic,
			syscall.ESTALE, syscall.ENOTDIR, syscall.EISDIR, syscall.ELOOP, syscall.EBADF, syscall.EINVAL, syscall.ENOTEMPTY,
		},
		thisProcess: {syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EFBIG, syscall.EINTR, syscall.EAGAIN},
		space:       {syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS},
	} {
		for _, e := range errs {
			if errors.Is(err, e) {
				return concern(c)
			}
		}
	}
	return device
}

// note takes note of how an operation ended.
func (d *Dir) note(o op, err error) {
	if err == nil {
		if r := &d.rests[o]; r.until.Load() != 0 && d.may(o) {
			r.until.Store(0)
		}
		if d.said.Load() {
			d.well()
		}
		return
	}
	rest, why := resting, "the disk cache can't be used for now; going on without it"
	switch concerns(err) {
	case thisFile, thisProcess:
		return
	case space:
		o, rest, why = opWrite, full, "the disk cache can't be used for now to keep more; what is in it is read on"
	case device:
		if o == opStat {
			rest, why = statRest, ""
		}
	}
	d.rests[o].until.Store(int64(d.age() + rest))
	if why != "" && d.said.CompareAndSwap(false, true) {
		d.opt.Log.Warn(why, "err", err)
	}
}

// well says that the disk is well again, if all of it is: a kind of operation that
// failed has succeeded since, or was not wanted for long.
func (d *Dir) well() {
	for o := range allOps {
		until := time.Duration(d.rests[o].until.Load())
		if o != opStat && until != 0 && (!d.may(o) || d.age() < until+resting) {
			return
		}
	}
	if d.said.CompareAndSwap(true, false) {
		d.opt.Log.Info("the disk cache is used again")
	}
}

// do runs f, an operation of a kind on the directory's disk, and waits for it
// with patience. After that the error is errSlow and f goes on; late gets its
// result. f must own what it uses until it returns. Waiting for a lock or for room
// is no operation of the disk, and is not done in f.
func do[T any](d *Dir, o op, f func() (T, error), late func(T)) (v T, err error) {
	if d == nil { // a file without a directory
		return guard(f)
	}
	if !d.may(o) {
		return v, errResting
	}
	type result struct {
		v   T
		err error
	}
	done, left := make(chan result), make(chan struct{})
	go func() {
		v, err := guard(f)
		select {
		case done <- result{v, err}:
		case <-left:
			d.rests[o].stuck.Add(-1)
			if late != nil && err == nil {
				late(v)
			}
		}
	}()
	wait := d.opt.Patience
	if o == opStat {
		wait /= 40
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case r := <-done:
		v, err = r.v, r.err
	case <-timer.C:
		d.rests[o].stuck.Add(1)
		close(left)
		err = errSlow
	}
	d.note(o, err)
	return v, err
}

type none = struct{}

// try is do for an operation without a result.
func (d *Dir) try(o op, f func() error) error {
	_, err := do(d, o, func() (none, error) { return none{}, f() }, nil)
	return err
}

// tryWith is try for an f that uses memory of the caller's. released is called
// when f has returned, however late, or was not begun.
func (d *Dir) tryWith(o op, released func(), f func() error) error {
	err := d.try(o, func() error {
		defer released()
		return f()
	})
	if err == errResting {
		released()
	}
	return err
}

// guard runs f and turns a panic into an error: what runs on a goroutine of
// the package's own must not take the process with it.
func guard[T any](f func() (T, error)) (v T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v\n%s", errPanic, r, debug.Stack())
		}
	}()
	return f()
}

// control makes a system call with f's descriptor, again if a signal interrupts
// it.
func control(f *os.File, call func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := c.Control(func(fd uintptr) {
		for err = call(int(fd)); err == syscall.EINTR; {
			err = call(int(fd))
		}
	})
	if cerr != nil {
		return cerr
	}
	return err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// onDisk is the disk that a file takes, in bytes.
func onDisk(st os.FileInfo) int64 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return s.Blocks * 512
	}
	return st.Size()
}

// links is how many names a file has.
func links(st os.FileInfo) uint64 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Nlink)
	}
	return 1
}

// onDiskOf is the disk that n bytes of a file take.
func onDiskOf(n int64) int64 { return (n + 4095) &^ 4095 }
