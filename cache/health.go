package cache

import (
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// health is whether a Disk may be used. One that fails is left alone for a
// while, and so is one on which an operation does not come back; both are said
// once, and that it is used again. A nil health is one of a disk that is no
// directory's: its operations are waited for.
type health struct {
	log      *slog.Logger
	patience time.Duration // for one operation
	rest     time.Duration // after a failure

	until atomic.Int64 // not to be used before; nanoseconds since 1970, 0: it may be
	stuck atomic.Int64 // operations that have not come back

	mu   sync.Mutex // guards said; no other lock is taken under it
	said bool
}

const (
	diskPatience = 2 * time.Second
	diskRest     = 10 * time.Second
)

// errSlowDisk says that an operation has not come back.
var errSlowDisk = errors.New("the disk does not answer")

// ok tells whether the disk may be used now. It waits for nothing.
func (h *health) ok() bool {
	if h == nil {
		return true
	}
	until := h.until.Load()
	return h.stuck.Load() == 0 && (until == 0 || time.Now().UnixNano() > until)
}

// failed notes an error of the disk.
func (h *health) failed(err error) {
	if h == nil {
		return
	}
	h.until.Store(time.Now().Add(h.rest).UnixNano())
	h.mu.Lock()
	said := h.said
	h.said = true
	h.mu.Unlock()
	if !said {
		h.log.Warn("the disk cache can't be used for now; going on without it", "err", err)
	}
}

// worked notes that an operation succeeded.
func (h *health) worked() {
	if h == nil || h.until.Load() == 0 || !h.ok() {
		return
	}
	h.until.Store(0)
	h.mu.Lock()
	said := h.said
	h.said = false
	h.mu.Unlock()
	if said {
		h.log.Info("the disk cache is used again")
	}
}

// within runs f, which works on the disk, and waits for it as long as the
// disk's health allows; then its error is errSlowDisk, f goes on, and what it
// gives in the end goes to late. What f uses must be its own until it returns.
func within[T any](h *health, f func() (T, error), late func(T)) (T, error) {
	if h == nil {
		return f()
	}
	const (
		waits = iota
		came
		left
	)
	var state atomic.Int32
	var v T
	var err error
	done := make(chan struct{})
	go func() {
		err = guard(func() (err error) {
			v, err = f()
			return err
		})
		if state.CompareAndSwap(waits, came) {
			close(done)
			return
		}
		h.stuck.Add(-1)
		if late != nil && err == nil {
			late(v)
		}
	}()
	timer := time.NewTimer(h.patience)
	defer timer.Stop()
	select {
	case <-done:
		return v, err
	case <-timer.C:
	}
	h.stuck.Add(1)
	if !state.CompareAndSwap(waits, left) { // it came all the same
		h.stuck.Add(-1)
		<-done
		return v, err
	}
	h.failed(errSlowDisk)
	var zero T
	return zero, errSlowDisk
}

// do is within for what gives nothing.
func (h *health) do(f func() error) error {
	_, err := within(h, func() (struct{}, error) { return struct{}{}, f() }, nil)
	return err
}

// isDisk tells whether err is one of the disk, as opposed to one of room or of
// what is stored there, which may have been cut, too.
func isDisk(err error) bool {
	return err != nil && !errors.Is(err, errNoRoom) && !errors.Is(err, errOther) && !errors.Is(err, errDamagedBlock) && !errors.Is(err, io.EOF)
}
