package disk

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
)

// lockPoll is how often a lock that another process holds is tried.
const lockPoll = 20 * time.Millisecond

// keeper is the goroutine of a Dir that runs behind: in rounds, which begin when
// it is woken, it folds this process's count into that of all, and evicts. It
// alone waits for the lock, and its system calls have no patience: one that hangs
// keeps the lock, so that it changes nothing under another process's hands.
type keeper struct {
	ctx   context.Context // ends with Dir.Close
	end   context.CancelFunc
	close sync.Once
	wake  chan struct{} // holds one
	gone  chan struct{} // closed when the goroutine has ended

	mu    sync.Mutex    // guards round; no other lock is taken under it
	round chan struct{} // closed at the end of the round that begins next

	exclusive sync.Mutex  // held beside the flock; guards what follows; before room.mu
	index     []candidate // what was used longest ago, the oldest first
	loaded    bool        // index was read or made once
}

// start starts the keeper, and makes the count of a new directory: a count that
// is missing later is made by a scan.
func (d *Dir) start(isNew bool) {
	k := &d.keeper
	k.ctx, k.end = context.WithCancel(context.Background())
	k.wake, k.gone, k.round = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	if isNew {
		d.exclusive(d.keep)
	} else {
		do(d, opOpen, d.readUsage, nil)
	}
	go d.rounds()
}

// stop has a last round count, and ends the keeper, unless the disk hangs.
func (d *Dir) stop() {
	wait := func(c <-chan struct{}) {
		select {
		case <-c:
		case <-time.After(d.opt.Patience):
		}
	}
	if d.room.hasCounted() {
		wait(d.kick())
	}
	d.keeper.end()
	wait(d.keeper.gone)
}

// kick has a round begin, and returns what is closed at its end.
func (d *Dir) kick() <-chan struct{} {
	k := &d.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default: // it is awake
	}
	return k.round
}

func (d *Dir) rounds() {
	k := &d.keeper
	defer close(k.gone)
	open := time.NewTicker(openEvery)
	defer open.Stop()
	for d.keeper.ctx.Err() == nil {
		select {
		case <-d.keeper.ctx.Done():
		case <-open.C:
			d.touchOpen()
		case <-k.wake:
			k.mu.Lock()
			round := k.round
			k.round = make(chan struct{})
			k.mu.Unlock()
			guard(func() (none, error) { return none{}, d.exclusive(d.keep) })
			d.roundEnds()
			close(round)
		}
	}
}

// exclusive runs f while no other process, and no other goroutine of this one,
// counts or evicts. It waits for them as long as that takes; nothing that a
// reader or a writer waits for calls it.
func (d *Dir) exclusive(f func() error) error {
	d.keeper.exclusive.Lock()
	defer d.keeper.exclusive.Unlock()
	for {
		err := flock(d.lock, syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		select {
		case <-d.keeper.ctx.Done():
			return d.keeper.ctx.Err()
		case <-time.After(lockPoll):
		}
	}
	defer flock(d.lock, syscall.LOCK_UN)
	return f()
}

func flock(f *os.File, how int) error {
	return control(f, func(fd int) error { return syscall.Flock(fd, how) })
}

// keep is one round. The lock is held.
func (d *Dir) keep() error {
	known, err := d.readUsage()
	if err == nil && !known {
		err = d.scan()
	}
	if err != nil {
		d.note(opMake, err)
		return err
	}
	target, evict, tidy := d.toDo()
	if evict {
		began := time.Now()
		err = d.evict(target)
		if d.Used() > target { // a long look for nothing is not repeated at once
			d.room.inVain(max(vainFor, 4*time.Since(began)))
		}
	}
	if tidy {
		err = errors.Join(err, d.tidyAnswers())
	}
	folded := d.fold(known)
	d.note(opMake, folded)
	return errors.Join(err, folded)
}
