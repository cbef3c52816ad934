package disk

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	freePart  = 20       // one in so many bytes of the disk stays free
	freeEvery = 16 << 20 // bytes between two looks at that, at most
	freeParts = 200      // and at most so small a part of the disk
	slack     = 20       // one in so many bytes of the bound is freed at once
	foldAfter = time.Second
	foldEvery = 16 << 20    // bytes that this process counts alone, at most
	roomWait  = time.Second // for an eviction that makes room
	vainFor   = time.Second // an eviction that found nothing is not tried again at once
	lockPoll  = 20 * time.Millisecond
)

// keeper is what runs behind: it folds this process's count into that of all,
// and evicts. One goroutine at a time does, and ends when there is nothing to do.
type keeper struct {
	mu      sync.Mutex // guards what follows; no other lock is taken under it
	running bool
	again   bool
	round   chan struct{} // closed when the round has ended that began after it was made
	ended   chan struct{} // closed by end
	timer   *time.Timer   // of a round that is not wanted at once
	due     time.Time     // of timer
	own     int64         // bytes that this process has counted alone
	need    int64         // bytes that somebody waits for
	vain    time.Time     // when an eviction found too little
	scans   uint64        // of all processes, as of the last fold

	index   []candidate // what was used longest ago, the oldest first; of the goroutine alone
	scanned bool        // index is of a scan of this process's
}

func (k *keeper) init() {
	k.round, k.ended = make(chan struct{}), make(chan struct{})
}

// later has a round begin after a while, at the latest. k.mu is held.
func (k *keeper) later(d *Dir, after time.Duration) {
	due := time.Now().Add(after)
	if k.isEnded() || (k.timer != nil && !due.Before(k.due)) {
		return
	}
	if k.timer != nil {
		k.timer.Stop()
	}
	k.due = due
	k.timer = time.AfterFunc(after, func() {
		k.mu.Lock()
		k.timer = nil
		k.mu.Unlock()
		d.kick()
	})
}

// kick has a round begin, and returns what is closed when it has ended.
func (d *Dir) kick() <-chan struct{} {
	k := &d.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.isEnded() {
		return k.ended
	}
	if k.running {
		k.again = true
		return k.round
	}
	k.running = true
	round := k.round
	go d.rounds()
	return round
}

func (k *keeper) isEnded() bool {
	select {
	case <-k.ended:
		return true
	default:
		return false
	}
}

// end has a last round count, ends what runs behind, and waits for it, unless
// the disk hangs.
func (k *keeper) end(d *Dir) {
	wait := func(round <-chan struct{}) {
		timer := time.NewTimer(d.opt.Patience)
		defer timer.Stop()
		select {
		case <-round:
		case <-timer.C:
		}
	}
	k.mu.Lock()
	counts := k.own != 0
	k.mu.Unlock()
	if counts {
		wait(d.kick())
	}
	k.mu.Lock()
	close(k.ended)
	if k.timer != nil {
		k.timer.Stop()
	}
	running, round := k.running, k.round
	k.mu.Unlock()
	if running {
		wait(round)
	}
}

func (d *Dir) rounds() {
	k := &d.keeper
	for {
		guard(func() error { return d.exclusive(d.keep) })
		k.mu.Lock()
		close(k.round)
		k.round = make(chan struct{})
		more := k.again && !k.isEnded()
		k.again, k.running = false, more
		k.mu.Unlock()
		if !more {
			return
		}
	}
}

// exclusive runs f while no other process, and no other goroutine of this one,
// counts or evicts. It waits for them as long as that takes; nothing that a
// reader or a writer waits for calls it.
func (d *Dir) exclusive(f func() error) error {
	d.evicting.Lock()
	defer d.evicting.Unlock()
	for {
		err := flock(d.lock, syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		select {
		case <-d.keeper.ended:
			return os.ErrClosed
		case <-time.After(lockPoll):
		}
	}
	defer flock(d.lock, syscall.LOCK_UN)
	return f()
}

func flock(f *os.File, how int) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	err = c.Control(func(fd uintptr) {
		for {
			if ferr = syscall.Flock(int(fd), how); ferr != syscall.EINTR {
				return
			}
		}
	})
	return errors.Join(err, ferr)
}

// keep is one round. The lock is held.
func (d *Dir) keep() error {
	d.touchOpen()
	if err := d.fold(); err != nil {
		d.note(opMake, err)
		return err
	}
	if d.answers.Load() > tidyEvery {
		d.tidyAnswers()
	}
	k := &d.keeper
	k.mu.Lock()
	need := k.need
	k.need = 0
	k.mu.Unlock()
	target := d.opt.Bound - max(d.opt.Bound/slack, need)
	short := d.short()
	if short {
		target = min(target, d.Used()-freeEvery)
	}
	if d.Used() <= d.highWater() && need == 0 && !short {
		return nil
	}
	err := d.evict(target)
	if d.Used() > target {
		k.mu.Lock()
		k.vain = time.Now()
		k.mu.Unlock()
	}
	return err
}

// highWater is how many bytes begin an eviction.
func (d *Dir) highWater() int64 { return d.opt.Bound - d.opt.Bound/(2*slack) }

// onDiskOf is the disk that n bytes of a file take.
func onDiskOf(n int64) int64 { return (n + 4095) &^ 4095 }

// took counts n bytes more, or fewer.
func (d *Dir) took(n int64) {
	if d == nil || n == 0 {
		return
	}
	d.counted(d.used.Add(n), n)
}

// counted notes that this process has added n to d.used, which is now used.
func (d *Dir) counted(used, n int64) {
	k := &d.keeper
	k.mu.Lock()
	k.own += n
	soon := k.own > foldEvery || k.own < -foldEvery
	k.later(d, foldAfter)
	k.mu.Unlock()
	if soon || (n > 0 && used > d.highWater()) {
		d.kick()
	}
}

// written notes that n bytes that room was reserved for are on the disk, or will
// never be.
func (d *Dir) written(n int64) {
	if d != nil {
		d.writing.Add(-n)
	}
}

// reserve takes room for n bytes, and waits for an eviction where there is
// none. force takes it beyond the bound, though not beyond what the disk has.
func (d *Dir) reserve(n int64, force bool) error {
	if d == nil {
		return nil
	}
	k := &d.keeper
	timer := time.NewTimer(roomWait)
	defer timer.Stop()
	for {
		short := d.toLook.Add(-n) < 0 && d.short()
		used := d.used.Add(n)
		if (used <= d.opt.Bound || force) && !short {
			d.writing.Add(n)
			d.counted(used, n)
			return nil
		}
		d.used.Add(-n)
		k.mu.Lock()
		vain := time.Since(k.vain) < vainFor
		k.need = max(k.need, n)
		k.mu.Unlock()
		if vain {
			return ErrNoRoom
		}
		select {
		case <-d.kick():
		case <-timer.C: // for the next one it is vain
			k.mu.Lock()
			k.vain = time.Now()
			k.mu.Unlock()
			return ErrNoRoom
		}
		if k.isEnded() {
			return ErrNoRoom
		}
	}
}

// short tells whether the disk has less free than it is to keep.
func (d *Dir) short() bool {
	st, err := do(d, opStat, func() (st syscall.Statfs_t, err error) {
		c, err := d.lock.SyscallConn()
		if err != nil {
			return st, err
		}
		return st, errors.Join(c.Control(func(fd uintptr) { err = syscall.Fstatfs(int(fd), &st) }), err)
	}, nil)
	if err != nil {
		d.toLook.Store(freeEvery)
		return false
	}
	if uint64(st.Bavail) < uint64(st.Blocks)/freePart {
		d.toLook.Store(0) // the next one looks again
		return true
	}
	d.toLook.Store(min(freeEvery, int64(st.Blocks)*int64(st.Bsize)/freeParts))
	return false
}

// The file usage: how many bytes all processes hold. One that can't be read is
// made anew by a scan.
const (
	usageMagic = "mlflowfs usage 1\n"
	usageSize  = 64
)

// readUsage takes up what all processes hold; false where the file says nothing.
func (d *Dir) readUsage() (bool, error) {
	b, err := do(d, opOpen, func() ([]byte, error) { return d.root.ReadFile(usageFile) }, nil)
	at := len(usageMagic)
	if ignoreMissing(err) != nil {
		return false, err
	}
	if len(b) != usageSize || string(b[:at]) != usageMagic || Sum(b[:usageSize-4]) != binary.BigEndian.Uint32(b[usageSize-4:]) {
		return false, nil
	}
	k := &d.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	if scans := binary.BigEndian.Uint64(b[at+16:]); scans != k.scans {
		k.scans, k.own = scans, d.writing.Load() // the scan has seen the rest
	}
	d.used.Store(int64(binary.BigEndian.Uint64(b[at:])) + k.own)
	d.pinned.Store(int64(binary.BigEndian.Uint64(b[at+8:])))
	return true, nil
}

// writeUsage says what all processes hold.
func (d *Dir) writeUsage() error {
	b := make([]byte, 0, usageSize)
	b = append(b, usageMagic...)
	for _, n := range []int64{d.used.Load(), d.pinned.Load()} {
		b = binary.BigEndian.AppendUint64(b, uint64(max(n, 0)))
	}
	d.keeper.mu.Lock()
	b = binary.BigEndian.AppendUint64(b, d.keeper.scans)
	d.keeper.mu.Unlock()
	b = b[:usageSize]
	binary.BigEndian.PutUint32(b[usageSize-4:], Sum(b[:usageSize-4]))
	return d.try(opMake, func() error {
		f, err := d.root.OpenFile(usageFile, os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(b, 0)
		return errors.Join(err, f.Close())
	})
}

// fold adds what this process has counted to what all have. The lock is held.
func (d *Dir) fold() error {
	k := &d.keeper
	if known, err := d.readUsage(); err != nil {
		return err
	} else if !known {
		return d.scan()
	}
	k.mu.Lock()
	own := k.own
	k.own = 0
	k.mu.Unlock()
	if own == 0 {
		return nil
	}
	err := d.writeUsage()
	if err != nil {
		k.mu.Lock()
		k.own += own
		k.mu.Unlock()
	}
	return err
}
