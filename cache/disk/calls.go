package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"
)

// op is a kind of operation. Each kind rests by itself: a disk that takes no
// more is read on, and one that answers no stat is read and written.
type op int

const (
	opOpen  op = iota // what finds something by its name
	opMake            // what makes or removes it: create, link, rename, unlink
	opStat            // what asks for attributes; it can be done without
	opRead            // of an open file
	opWrite           // to an open file
	allOps
)

// rest is whether operations of one kind may be tried.
type rest struct {
	until atomic.Int64 // not before; nanoseconds since 1970, 0: now
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

	// ErrNoRoom says that the bound, or what the disk has free, allows no more.
	ErrNoRoom = errors.New("the cache's disk has no room for it")

	// ErrDamaged says that a block is not what was written.
	ErrDamaged = errors.New("a block of the disk cache does not match its checksum")

	// ErrGone says that the file was evicted or replaced: what is written to it
	// would count for nobody.
	ErrGone = errors.New("the file has left the disk cache")
)

// may tells whether operations of a kind may be tried. It waits for nothing.
func (d *Dir) may(o op) bool {
	if d == nil {
		return true
	}
	r := &d.rests[o]
	until := r.until.Load()
	return r.stuck.Load() == 0 && (until == 0 || time.Now().UnixNano() > until)
}

// concern is whom an error concerns.
type concern int

const (
	thisFile    concern = iota // it is gone, cut, damaged, closed, or another's
	thisProcess                // it may open no more files, or has no memory
	space                      // the disk takes no more; what is there can be read
	device                     // the disk fails
)

// concerns classifies an error of the disk; it is the only place that does.
func concerns(err error) concern {
	for c, errs := range [][]error{
		thisFile: {
			fs.ErrNotExist, fs.ErrExist, fs.ErrClosed, fs.ErrPermission, io.EOF, io.ErrUnexpectedEOF, ErrDamaged, ErrGone, errResting, errPanic,
			syscall.ESTALE, syscall.ENOTDIR, syscall.EISDIR, syscall.ELOOP, syscall.EBADF, syscall.EINVAL, syscall.ENOTEMPTY,
		},
		thisProcess: {syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EFBIG, syscall.EINTR, syscall.EAGAIN},
		space:       {ErrNoRoom, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS},
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
	now := time.Now()
	if err == nil {
		if r := &d.rests[o]; r.until.Load() != 0 && d.may(o) {
			r.until.Store(0)
			d.well()
		}
		return
	}
	switch concerns(err) {
	case space:
		if !errors.Is(err, ErrNoRoom) { // the bound is no news
			d.rests[opWrite].until.Store(now.Add(full).UnixNano())
			d.say("the disk cache can't be used for now to keep more; what is in it is read on", err)
		}
	case device:
		if o == opStat {
			d.rests[o].until.Store(now.Add(statRest).UnixNano())
			return
		}
		d.rests[o].until.Store(now.Add(resting).UnixNano())
		d.say("the disk cache can't be used for now; going on without it", err)
	}
}

// say says once that the disk is not well, until it is again.
func (d *Dir) say(what string, err error) {
	d.mu.Lock()
	said := d.said
	d.said = true
	d.mu.Unlock()
	if !said {
		d.opt.Log.Warn(what, "err", err)
	}
}

// well says that the disk is well, where all of it is.
func (d *Dir) well() {
	for o := range allOps {
		if o != opStat && d.rests[o].until.Load() != 0 {
			return
		}
	}
	d.mu.Lock()
	said := d.said
	d.said = false
	d.mu.Unlock()
	if said {
		d.opt.Log.Info("the disk cache is used again")
	}
}

// do runs f, an operation of a kind on the directory's disk, and waits for it
// with patience; then its error is errSlow, f goes on, and what it gives in the
// end goes to late. What f uses must be its own until it returns. Waiting for a
// lock or for room is no operation of the disk, and is not done in f.
func do[T any](d *Dir, o op, f func() (T, error), late func(T)) (v T, err error) {
	if d == nil { // a file without a directory
		return f()
	}
	if !d.may(o) {
		return v, errResting
	}
	const (
		waits = iota
		came
		left
	)
	type result struct {
		v   T
		err error
	}
	var state atomic.Int32
	done := make(chan result, 1)
	go func() {
		var r result
		r.err = guard(func() (err error) {
			r.v, err = f()
			return err
		})
		if state.CompareAndSwap(waits, came) {
			done <- r
			return
		}
		d.rests[o].stuck.Add(-1)
		if late != nil && r.err == nil {
			late(r.v)
		}
	}()
	timer := time.NewTimer(d.patienceWith(o))
	defer timer.Stop()
	select {
	case r := <-done:
		d.note(o, r.err)
		return r.v, r.err
	case <-timer.C:
	}
	d.rests[o].stuck.Add(1)
	if !state.CompareAndSwap(waits, left) { // it came all the same
		d.rests[o].stuck.Add(-1)
		r := <-done
		d.note(o, r.err)
		return r.v, r.err
	}
	d.note(o, errSlow)
	return v, errSlow
}

// patienceWith is how long an operation is waited for. What a stat tells can be
// done without.
func (d *Dir) patienceWith(o op) time.Duration {
	if o == opStat {
		return d.opt.Patience / 40
	}
	return d.opt.Patience
}

// try is do for what gives nothing.
func (d *Dir) try(o op, f func() error) error {
	_, err := do(d, o, func() (struct{}, error) { return struct{}{}, f() }, nil)
	return err
}

var errPanic = errors.New("panic")

// guard runs f and turns a panic into an error: what runs on a goroutine of
// the package's own must not take the process with it.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v\n%s", errPanic, r, debug.Stack())
		}
	}()
	return f()
}
