package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// content is what one key holds, shared by its handles. All its fields are
// guarded by c.mu, but for the first four, which never change.
type content struct {
	c          *Cache
	key        Key
	src        Source
	generation uint64

	files sync.Mutex // held while files of disk are opened or closed; before c.mu

	keep     bool
	refs     int // open handles
	resident int // blocks in the LRU
	flights  map[int64]*flight
	storing  map[int64]*block // landed, and on their way to the disk; held by their fetch
	fetches  int              // running now, or waiting at the gate
	aheads   int              // of these, those that fetch ahead

	// Until one answer has shown that the origin honours ranges, and for ever
	// where it does not, one fetch at a time may ask: busy is closed when it
	// has what it asked for.
	ranged bool
	busy   chan struct{}
	stream context.CancelFunc // set while a whole body comes in: it brings every block

	disk      *entry // its files are closed while nobody has the content open
	replaced  *entry // by a temporary file; who writes to it may still do so
	noDisk    bool   // its disk has no room
	damaged   bool   // which was said
	validator string
	err       error // the content changed: nothing more is served
	gone      bool  // out of the cache: what still comes is not kept
	linger    *time.Timer

	plan      plan
	unit      int64 // blocks of one request ahead
	verifying bool  // ahead of readers

	// The origin fell silent: who asks again at once is told so at once. The
	// kernel does, of a page that its read-ahead did not get.
	silent struct {
		err   error
		until time.Time
	}

	fresh bitset // blocks that came unasked, and that nobody has read
	wake  func() // told of fresh blocks
}

// flight is one block on its way. b and err are set before done is closed.
type flight struct {
	index   int64
	fetch   *fetch // nil: a stream brings it
	waiting int
	done    chan struct{}
	b       *block // held once for each who waits
	err     error
}

func (ct *content) lastBlock() int64 { return (ct.key.Size - 1) / BlockSize }

func (ct *content) blockLen(i int64) int64 { return blockLen(ct.key.Size, i) }

// onDisk tells whether block i is in the disk tier. c.mu is held.
func (ct *content) onDisk(i int64) bool {
	return ct.disk != nil && ct.disk.data != nil && ct.disk.have.has(i) && ct.disk.health().ok()
}

// kept tells whether the disk tier takes what comes: more than memory holds
// may then be fetched before it is read. c.mu is held.
func (ct *content) kept() bool {
	d := ct.c.opt.Disk
	return d != nil && ct.keep && !ct.noDisk && d.health.ok()
}

// inMemory gives block i if it is in memory, or nil. c.mu is held.
func (ct *content) inMemory(i int64) *block {
	if b, ok := ct.c.blocks.Get(blockKey{ct, i}); ok {
		return b
	}
	return ct.storing[i]
}

// away tells whether block i is neither in memory nor on disk. c.mu is held.
func (ct *content) away(i int64) bool {
	return !ct.onDisk(i) && !ct.c.blocks.Contains(blockKey{ct, i}) && ct.storing[i] == nil
}

// missing tells whether block i is neither here nor on its way. c.mu is held.
func (ct *content) missing(i int64) bool { return ct.flights[i] == nil && ct.away(i) }

// place is where a block was found: one of the first three is set.
type place struct {
	b    *block // the caller holds it
	fl   *flight
	disk *entry
	data *os.File // disk: its file
	to   int64    // disk: the block behind the last that can be read with this one
	// disk: the block must be held against its sum first.
	unverified bool
	sum        uint32
}

// look finds block i, and has it fetched where it is nowhere. Blocks up to
// last are wanted, too. urgent says that a program waits for it.
func (ct *content) look(i, last int64, urgent bool) (p place, err error) {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	if ct.err != nil {
		return place{}, ct.err
	}
	ct.fresh.clear(i)
	did := &ct.c.did
	if !urgent {
		did = &counters{} // no program's
	}
	if b := ct.inMemory(i); b != nil {
		did.memory.Add(1)
		b.refs++
		return place{b: b}, nil
	}
	if ct.onDisk(i) {
		p := place{disk: ct.disk, data: ct.disk.data, to: i + 1, unverified: !ct.disk.good.has(i), sum: ct.disk.sums[i]}
		for !p.unverified && p.to <= last && ct.disk.good.has(p.to) {
			ct.fresh.clear(p.to)
			p.to++
		}
		did.disk.Add(p.to - i)
		return p, nil
	}
	if ct.flights[i] == nil {
		if time.Now().Before(ct.silent.until) {
			return place{}, ct.silent.err
		}
		if ct.stream != nil {
			ct.flights[i] = &flight{index: i, done: make(chan struct{})}
		} else {
			ct.demand(i, last, urgent)
		}
	}
	did.misses.Add(1)
	fl := ct.flights[i]
	fl.waiting++
	if urgent && fl.fetch != nil && !fl.fetch.urgent {
		fl.fetch.urgent = true
		ct.c.gate.hurry(fl.fetch.ticket)
	}
	return place{fl: fl}, nil
}

// wait waits for a flight's block, which the caller then holds.
func (ct *content) wait(ctx context.Context, fl *flight) (*block, error) {
	ct.waits(ctx, fl)
	select {
	case <-fl.done:
		return fl.b, fl.err
	case <-ctx.Done():
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	select {
	case <-fl.done: // it came all the same
		if fl.b != nil {
			ct.c.release(fl.b)
		}
	default:
		fl.waiting--
	}
	return nil, context.Cause(ctx)
}

// land ends the flight of block i, if there is one, and keeps its block. c.mu
// is held.
func (ct *content) land(i int64, b *block, err error) {
	fl := ct.flights[i]
	if fl != nil {
		delete(ct.flights, i)
		fl.err = err
		if b != nil {
			fl.b = b
			b.refs += fl.waiting
		}
		close(fl.done)
	}
	if b == nil {
		return
	}
	ct.c.did.origin.Add(int64(len(b.data)))
	if ct.gone {
		return
	}
	ct.c.add(ct, i, b)
	if fl == nil || fl.waiting == 0 {
		ct.news(i)
	}
}

// news tells of block i, which is here and which nobody has asked for. c.mu is
// held.
func (ct *content) news(i int64) {
	if ct.wake != nil && ct.plan.whole {
		ct.fresh.set(i)
		ct.wake()
	}
}

// read puts bytes of block i, and of those behind it up to last where they lie
// ready, into p, which begins at offset off in block i. It returns how many.
func (ct *content) read(ctx context.Context, p []byte, off, last int64, urgent bool) (int, error) {
	i := off / BlockSize
	for {
		at, err := ct.look(i, last, urgent)
		if err != nil {
			return 0, err
		}
		switch {
		case at.fl != nil:
			at.b, err = ct.wait(ctx, at.fl)
			if err != nil && !errors.Is(err, errElsewhere) {
				return 0, err
			}
		case at.disk != nil && at.unverified:
			at.b, err = ct.verify(i, at)
		case at.disk != nil:
			n := min(int64(len(p)), at.to*BlockSize-off)
			if n, err = ct.readDisk(at, p[:n], off); err == nil {
				return int(n), nil
			}
			ct.failed(i, at, err)
		}
		if err != nil {
			continue // it is looked for anew, and not in that place
		}
		n := copy(p, at.b.data[off-i*BlockSize:])
		ct.c.releaseUnlocked(at.b)
		return n, nil
	}
}

// settle closes the content's files when nobody uses them, and forgets what
// has nothing to remember. It is called when the last user may have gone.
func (ct *content) settle() {
	ct.files.Lock()
	defer ct.files.Unlock()
	c := ct.c
	c.mu.Lock()
	var files []*os.File
	var h *health
	if ct.refs == 0 && ct.fetches == 0 && ct.stream == nil && ct.linger == nil {
		e := ct.disk
		switch {
		case ct.gone:
		case !ct.keep || ct.err != nil || (e != nil && e.d == nil):
			ct.drop()
		case ct.resident == 0 && e == nil:
			delete(c.contents, ct.key)
		default:
			c.idle.Add(ct, struct{}{})
			for c.idle.Len() > maxIdle {
				old, _, _ := c.idle.GetOldest()
				old.drop()
			}
		}
		for _, e := range []*entry{e, ct.replaced} {
			if e != nil {
				files = append(files, e.detach()...)
				h = cmp.Or(h, e.health())
			}
		}
		ct.replaced = nil
	}
	c.mu.Unlock()
	if len(files) > 0 {
		h.do(func() error {
			for _, f := range files {
				f.Close()
			}
			return nil
		})
	}
}

// changed ends the content: its handles get err from now on, and the next Open
// of its key begins anew. What is on disk goes first, so that no new handle
// finds it.
func (ct *content) changed(err error) {
	ct.files.Lock()
	defer ct.files.Unlock()
	if d := ct.c.opt.Disk; d != nil && ct.keep {
		d.health.do(func() error { _, err := d.Evict(ct.key); return err }) // what can't be removed has a validator that is no more
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	ct.err = err
	if !ct.gone {
		ct.c.isAnother(ct.key)
	}
	ct.drop()
}

// drop takes the content and all it holds in memory out of the cache. c.mu is
// held.
func (ct *content) drop() {
	ct.gone = true
	ct.c.idle.Remove(ct)
	if ct.c.contents[ct.key] == ct {
		delete(ct.c.contents, ct.key)
	}
	if ct.stream != nil {
		ct.stream()
	}
	if ct.resident > 0 {
		for i := int64(0); i <= ct.lastBlock(); i++ {
			ct.c.blocks.Remove(blockKey{ct, i})
		}
	}
}

// closed is called by a handle that goes.
func (ct *content) closed() {
	c := ct.c
	c.mu.Lock()
	ct.refs--
	last := ct.refs == 0
	if last {
		c.open--
		ct.wake, ct.fresh = nil, nil
		switch {
		case !ct.keep || ct.err != nil:
			if !ct.gone {
				ct.drop()
			}
		case ct.stream != nil || ct.plan.filling || (ct.disk != nil && ct.disk.d == nil):
			ct.linger = time.AfterFunc(c.opt.Linger, ct.abandon)
		}
	}
	c.mu.Unlock()
	if last {
		ct.settle()
	}
}

// abandon ends what goes on for a content that nobody has opened again.
func (ct *content) abandon() {
	ct.c.mu.Lock()
	if ct.refs == 0 {
		ct.linger = nil
		ct.plan.filling = false
		if ct.stream != nil {
			ct.drop()
		}
	}
	ct.c.mu.Unlock()
	ct.settle()
}

// check holds an answer against the size of the key and against the validator
// of the answers before it.
func (ct *content) check(b *Body) error {
	if b.Total >= 0 && b.Total != ct.key.Size {
		return fmt.Errorf("%w: it has %d bytes now and was listed with %d", ErrChanged, b.Total, ct.key.Size)
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	if b.Validator != "" {
		if ct.validator == "" {
			ct.validator = b.Validator
		} else if ct.validator != b.Validator {
			return fmt.Errorf("%w: its validator was %s and is %s", ErrChanged, ct.validator, b.Validator)
		}
	}
	if ct.gone && ct.err == nil {
		return os.ErrClosed // nobody waits any more
	}
	return ct.err
}
