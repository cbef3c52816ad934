package disk

import (
	"encoding/binary"
	"sync"
	"syscall"
	"time"
)

const (
	freePart  = 20          // one in so many bytes of the disk stays free
	freeParts = 200         // so small a part of the disk is written between two looks at that, at most
	slack     = 20          // one in so many bytes of the bound is freed at once
	foldAfter = time.Second // at the latest
	foldEvery = 16 << 20    // bytes that this process counts alone, at most
	roomWait  = time.Second // for an eviction that makes room
	roomPoll  = 20 * time.Millisecond
	vainFor   = time.Second // an eviction that freed too little is not tried again at once
)

// counts is what is counted for all processes, and stands in the file usage.
type counts struct {
	Used    int64 // bytes of disk that contents take
	Pinned  int64 // of these, pinned ones, as the last scan found them
	Answers int64 // bytes of answers that came since they were tidied
}

func (c counts) plus(sign int64, o counts) counts {
	return counts{c.Used + sign*o.Used, c.Pinned + sign*o.Pinned, c.Answers + sign*o.Answers}
}

// room is what the contents take. What all processes have is the sum of all and
// own: a round folds own into the file, and changes the sum only by what other
// processes have folded.
type room struct {
	mu      sync.Mutex // guards what follows; no other lock but keeper.mu is taken under it
	all     counts     // as the file usage says
	own     counts     // what this process has counted since
	writing int64      // bytes that are reserved and not on the disk yet
	need    int64      // bytes that somebody waits for
	vain    time.Time  // until then there is no eviction
	every   int64      // bytes of own that begin a round
	short   bool       // the disk has less free than it is to keep, as of the last round
	due     bool       // a round begins within foldAfter

	// While a walk runs: how many shards it has begun, and what was counted in
	// these meanwhile, which it may not have seen.
	walked int
	unseen int64
}

// used is the bytes that all processes hold. r.mu is held.
func (r *room) used() int64 { return max(r.all.Used+r.own.Used+r.writing, 0) }

func (r *room) lastPinned() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all.Pinned + r.own.Pinned
}

func (r *room) hasCounted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.own != (counts{})
}

// inVain says that there will be no room for a while.
func (r *room) inVain(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.vain = time.Now().Add(d)
}

// walking notes that a walk has begun so many shards.
func (r *room) walking(shards int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.walked = shards; shards == 0 {
		r.unseen = 0
	}
}

// found takes what a scan has found: what differs from the count so far is counted
// as this process's.
func (r *room) found(c counts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.Used += r.unseen
	r.own = c.plus(-1, r.all)
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

// wrote notes that of room bytes that were reserved for the content n, took are
// on the disk, and the others will never be.
func (d *Dir) wrote(n Name, room, took int64) {
	if d == nil {
		return
	}
	r := &d.room
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writing -= room
	if int(n[0]) < r.walked {
		r.unseen += took
	}
	d.count(counts{Used: took})
}

// count adds to what this process has counted, and has a round begin: now, or
// before long. d.room.mu is held.
func (d *Dir) count(c counts) {
	r := &d.room
	r.own = r.own.plus(1, c)
	switch {
	case max(r.own.Used, -r.own.Used) > r.every, c.Used > 0 && r.used() > d.highWater(), r.all.Answers+r.own.Answers > tidyEvery:
		d.kick()
	default:
		d.kickLater()
	}
}

// kickLater has a round begin before long. d.room.mu is held.
func (d *Dir) kickLater() {
	if r := &d.room; !r.due {
		r.due = true
		time.AfterFunc(foldAfter, func() { d.kick() })
	}
}

// roundEnds has another round begin, not at once, for what was counted meanwhile or
// could not be folded.
func (d *Dir) roundEnds() {
	d.room.mu.Lock()
	defer d.room.mu.Unlock()
	d.room.due = false
	if d.room.own != (counts{}) {
		d.kickLater()
	}
}

// reserve takes room for n bytes, until wrote is told of them, and waits for an
// eviction where there is none. force takes it beyond the bound, though not
// beyond what the disk has.
func (d *Dir) reserve(n int64, force bool) error {
	if d == nil {
		return nil
	}
	r := &d.room
	timer := time.NewTimer(roomWait)
	defer timer.Stop()
	for {
		r.mu.Lock()
		fits := force || r.used()+n <= d.opt.Bound
		takes, vain := fits && !r.short, time.Now().Before(r.vain)
		switch {
		case takes:
			r.writing += n
		case !fits && n <= d.opt.Bound:
			r.need = max(r.need, n)
		}
		r.mu.Unlock()
		if takes {
			return nil
		}
		if vain || (!fits && n > d.opt.Bound) {
			return ErrNoRoom
		}
		select {
		case <-d.kick():
		case <-time.After(roomPoll): // a long eviction may have made room by now
		case <-d.keeper.ctx.Done():
			return ErrNoRoom
		case <-timer.C: // for the next one it is vain
			r.inVain(vainFor)
			return ErrNoRoom
		}
	}
}

// toDo looks how much the disk has free, and tells whether there is to be an
// eviction, and how many bytes it leaves, and whether answers are to be tidied.
func (d *Dir) toDo() (target int64, evict, tidy bool) {
	var st syscall.Statfs_t
	err := control(d.lock, func(fd int) error { return syscall.Fstatfs(fd, &st) })
	r := &d.room
	r.mu.Lock()
	defer r.mu.Unlock()
	r.short, r.every = false, foldEvery
	if err == nil {
		r.short = uint64(st.Bavail) < uint64(st.Blocks)/freePart
		r.every = min(foldEvery, int64(st.Blocks)*int64(st.Bsize)/freeParts)
	}
	used, need := r.used(), r.need
	r.need = 0
	target = d.opt.Bound - max(d.opt.Bound/slack, need)
	if r.short {
		target = min(target, used-foldEvery)
	}
	evict = (used > d.highWater() || need > 0 || r.short) && !time.Now().Before(r.vain)
	return target, evict, r.all.Answers+r.own.Answers > tidyEvery
}

const (
	usageKind = "usage 2"
	usageSize = 24 // of counts
)

// readUsage takes up what all processes hold; false where the file says nothing.
func (d *Dir) readUsage() (known bool, err error) {
	s, err := d.readSealed(usageFile, usageKind, usageSize)
	if err != nil || len(s.body) != usageSize {
		return false, err
	}
	d.room.mu.Lock()
	defer d.room.mu.Unlock()
	_, err = binary.Decode(s.body, binary.BigEndian, &d.room.all)
	return err == nil, err
}

// fold adds what this process has counted to what all have. known says that the
// file usage is there. The lock is held.
func (d *Dir) fold(known bool) error {
	r := &d.room
	r.mu.Lock()
	own := r.own
	sum := r.all.plus(1, own)
	r.mu.Unlock()
	if known && own == (counts{}) {
		return nil
	}
	b, err := binary.Append(nil, binary.BigEndian, sum)
	if err == nil {
		err = d.writeSealed(usageFile, usageFile+newExt, usageKind, b)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.all, r.own = sum, r.own.plus(-1, own)
	}
	return err
}
