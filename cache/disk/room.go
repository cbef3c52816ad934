package disk

import (
	"encoding/binary"
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
	vainFor   = time.Second // an eviction that freed too little is not tried again at once
)

// counts is what is counted for all processes, in the file usage.
type counts struct {
	used    int64 // bytes of disk that contents take
	pinned  int64 // of these, pinned ones, as the last scan found them
	answers int64 // bytes of answers that came since they were tidied
}

// room is what the contents take. What all processes have is the sum of all and
// own: a round folds own into the file, and changes the sum only by what other
// processes have folded.
type room struct {
	mu      sync.Mutex // guards what follows; no other lock is taken under it
	all     counts     // as the file usage says
	own     counts     // what this process has counted since
	writing int64      // bytes that are reserved and not on the disk yet
	need    int64      // bytes that somebody waits for
	vain    time.Time  // until then there is no eviction
	toLook  int64      // bytes to write until the disk's free space is looked at again
	due     bool       // a round begins within foldAfter

	// While a scan runs: how many shards it has begun, and what was counted in
	// these meanwhile, which it may not have seen.
	scanned int
	unseen  int64
}

// used is the bytes that all processes hold. r.mu is held.
func (r *room) used() int64 { return max(r.all.used+r.own.used+r.writing, 0) }

func (r *room) lastPinned() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all.pinned + r.own.pinned
}

// Used returns the bytes that contents take, of all processes. It waits for
// nothing.
func (d *Dir) Used() int64 {
	d.room.mu.Lock()
	defer d.room.mu.Unlock()
	return d.room.used()
}

// highWater is how many bytes begin an eviction.
func (d *Dir) highWater() int64 { return d.opt.Bound - d.opt.Bound/(2*slack) }

// count notes that the content n takes so many bytes more, or fewer.
func (d *Dir) count(n Name, bytes int64) { d.wrote(n, 0, bytes) }

// wrote notes that of room bytes that were reserved for the content n, took are
// on the disk, and the others will never be.
func (d *Dir) wrote(n Name, room, took int64) {
	if d == nil {
		return
	}
	r := &d.room
	r.mu.Lock()
	r.writing -= room
	r.own.used += took
	if int(n[0]) < r.scanned {
		r.unseen += took
	}
	d.foldLater(max(r.own.used, -r.own.used) > foldEvery || (took > 0 && r.used() > d.highWater()))
	r.mu.Unlock()
}

// countAnswer notes that an answer was kept.
func (d *Dir) countAnswer(bytes int64) {
	r := &d.room
	r.mu.Lock()
	defer r.mu.Unlock()
	r.own.answers += bytes
	d.foldLater(r.all.answers+r.own.answers > tidyEvery)
}

// foldLater has a round begin: now, or before long. d.room.mu is held.
func (d *Dir) foldLater(now bool) {
	r := &d.room
	switch {
	case now:
		d.keeper.wakeUp()
	case !r.due:
		r.due = true
		time.AfterFunc(foldAfter, d.keeper.wakeUp)
	}
}

// reserve takes room for n bytes, until wrote is told of them, and waits for an
// eviction where there is none. force takes it beyond the bound, though not
// beyond what the disk has.
func (d *Dir) reserve(n int64, force bool) error {
	if d == nil {
		return nil
	}
	if n > d.opt.Bound && !force {
		return ErrNoRoom
	}
	r := &d.room
	timer := time.NewTimer(roomWait)
	defer timer.Stop()
	for {
		short := d.short(n)
		r.mu.Lock()
		fits := force || r.used()+n <= d.opt.Bound
		vain := time.Now().Before(r.vain)
		switch {
		case fits && !short:
			r.writing += n
		case !fits:
			r.need = max(r.need, n)
		}
		r.mu.Unlock()
		if fits && !short {
			return nil
		}
		if vain {
			return ErrNoRoom
		}
		select {
		case <-d.kick():
		case <-d.keeper.ended:
			return ErrNoRoom
		case <-timer.C: // for the next one it is vain
			r.inVain(vainFor)
			return ErrNoRoom
		}
	}
}

// inVain says that there will be no room for a while.
func (r *room) inVain(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.vain = time.Now().Add(d)
}

// short tells, before n bytes are written, whether the disk has less free than it
// is to keep.
func (d *Dir) short(n int64) bool {
	r := &d.room
	r.mu.Lock()
	r.toLook -= n
	look := r.toLook <= 0
	r.mu.Unlock()
	if !look {
		return false
	}
	st, err := do(d, opStat, func() (st syscall.Statfs_t, err error) {
		return st, control(d.lock, func(fd int) error { return syscall.Fstatfs(fd, &st) })
	}, nil)
	short := err == nil && uint64(st.Bavail) < uint64(st.Blocks)/freePart
	next := int64(freeEvery)
	switch {
	case short:
		next = 0 // the next one looks again
	case err == nil:
		next = min(next, int64(st.Blocks)*int64(st.Bsize)/freeParts)
	}
	r.mu.Lock()
	r.toLook = next
	r.mu.Unlock()
	return short
}

// toEvict tells whether there is to be an eviction, and how many bytes it leaves.
func (d *Dir) toEvict() (target int64, evict bool) {
	short := d.short(freeEvery)
	r := &d.room
	r.mu.Lock()
	defer r.mu.Unlock()
	used, need := r.used(), r.need
	r.need = 0
	target = d.opt.Bound - max(d.opt.Bound/slack, need)
	if short {
		target = min(target, used-freeEvery)
	}
	return target, (used > d.highWater() || need > 0 || short) && !time.Now().Before(r.vain)
}

// The file usage: the counts, each in 8 bytes.
const (
	usageKind = "usage 2"
	usageSize = 24
)

// readUsage takes up what all processes hold; false where the file says nothing.
func (d *Dir) readUsage() (known bool, err error) {
	b, _, err := d.readSealed(usageFile, usageKind, usageSize)
	if err != nil || len(b) != usageSize {
		return false, err
	}
	at := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[8*i:])) }
	d.room.mu.Lock()
	defer d.room.mu.Unlock()
	d.room.all = counts{at(0), at(1), at(2)}
	return true, nil
}

// fold adds what this process has counted to what all have. known says that the
// file usage is there. The lock is held.
func (d *Dir) fold(known bool) error {
	r := &d.room
	r.mu.Lock()
	own := r.own
	sum := counts{max(r.all.used+own.used, 0), r.all.pinned + own.pinned, r.all.answers + own.answers}
	r.mu.Unlock()
	if known && own == (counts{}) {
		return nil
	}
	b := make([]byte, 0, usageSize)
	for _, n := range []int64{sum.used, sum.pinned, sum.answers} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	err := d.writeSealed(usageFile, usageFile+newExt, usageKind, b)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = sum
	r.own = counts{r.own.used - own.used, r.own.pinned - own.pinned, r.own.answers - own.answers}
	return nil
}
