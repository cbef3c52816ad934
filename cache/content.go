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
// guarded by c.mu, but for the first three, which never change.
type content struct {
	c   *Cache
	key Key
	src Source

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
	if b := ct.inMemory(i); b != nil {
		b.refs++
		return place{b: b}, nil
	}
	if ct.onDisk(i) {
		p := place{disk: ct.disk, data: ct.disk.data, to: i + 1, unverified: !ct.disk.good.has(i), sum: ct.disk.sums[i]}
		for !p.unverified && p.to <= last && ct.disk.good.has(p.to) {
			ct.fresh.clear(p.to)
			p.to++
		}
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
	if b == nil || ct.gone {
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

// verify reads a block of the disk that this process has not held against its
// checksum, and keeps it in memory.
func (ct *content) verify(i int64, at place) (*block, error) {
	b := ct.c.buffer(ct.blockLen(i))
	err := ct.diskWork(at.disk, b, func() error { return at.disk.read(at.data, i, b.data, at.sum) })
	if err != nil {
		ct.c.releaseUnlocked(b)
		ct.failed(i, at, err)
		return nil, err
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	if ct.disk != nil && ct.disk.data == at.data && ct.disk.have.has(i) && ct.disk.sums[i] == at.sum {
		ct.disk.good.set(i)
	}
	if !ct.gone {
		ct.c.add(ct, i, b)
	}
	return b, nil
}

// diskWork does f on an entry's disk, with the block b, which f keeps until it
// returns, however long that is.
func (ct *content) diskWork(e *entry, b *block, f func() error) error {
	ct.c.mu.Lock()
	b.refs++
	ct.c.mu.Unlock()
	return e.health().do(func() error {
		defer ct.c.releaseUnlocked(b)
		return f()
	})
}

// readDisk reads from an entry's file what is known to be right: at once where
// the system has it in memory, else by way of a block, so that a disk that
// does not answer keeps no buffer of the reader's. It returns how much.
func (ct *content) readDisk(at place, p []byte, off int64) (int64, error) {
	if at.disk.d == nil {
		_, err := at.data.ReadAt(p, off)
		return int64(len(p)), err
	}
	if n := readNow(at.data, p, off); n > 0 {
		return int64(n), nil
	}
	n := min(int64(len(p)), BlockSize)
	b := ct.c.buffer(BlockSize)
	defer ct.c.releaseUnlocked(b)
	err := ct.diskWork(at.disk, b, func() error {
		_, err := at.data.ReadAt(b.data[:n], off)
		return err
	})
	if err == nil {
		copy(p, b.data[:n])
	}
	return n, err
}

// verifyAhead holds blocks on disk against their checksums before a program
// asks for them: those of the window, or all where the whole is wanted. Then
// a reader finds them right, and the next open may have the file itself
// ([File.Backing]). c.mu is held.
func (ct *content) verifyAhead() {
	if ct.verifying || ct.refs == 0 {
		return
	}
	if _, ok := ct.nextUnverified(); !ok {
		return
	}
	ct.verifying = true
	ct.fetches++ // its files stay open
	ct.c.running.Add(1)
	go func() {
		defer ct.c.running.Done()
		for ct.verifyNext() {
		}
		ct.settle()
	}()
}

// verifyNext verifies one block; false says that there is none left.
func (ct *content) verifyNext() bool {
	ct.c.mu.Lock()
	i, ok := ct.nextUnverified()
	if !ok || ct.refs == 0 || ct.err != nil {
		ct.verifying = false
		ct.fetches--
		ct.c.mu.Unlock()
		return false
	}
	at := place{disk: ct.disk, data: ct.disk.data, sum: ct.disk.sums[i]}
	ct.c.mu.Unlock()
	if i%maxUnit == 0 {
		willNeed(at.data, i*BlockSize, maxUnit*BlockSize)
	}
	if b, err := ct.verify(i, at); err == nil {
		ct.c.mu.Lock()
		ct.news(i)
		ct.c.release(b)
		ct.c.mu.Unlock()
	}
	return true
}

// nextUnverified is the next block to verify ahead. c.mu is held.
func (ct *content) nextUnverified() (int64, bool) {
	e, p := ct.disk, &ct.plan
	if e == nil || e.d == nil || e.data == nil || !e.d.health.ok() {
		return 0, false
	}
	i := e.have.nextBut(e.good, p.next)
	switch {
	case p.whole && i < 0:
		i = e.have.nextBut(e.good, 0)
	case !p.whole && i >= p.end:
		i = -1
	}
	return i, i >= 0
}

// failed takes a block that could not be read from the disk tier as one that
// is not there. The reader asks again.
func (ct *content) failed(i int64, at place, err error) {
	if isDisk(err) && at.disk.d != nil {
		at.disk.d.health.failed(err)
	}
	if errors.Is(err, errSlowDisk) {
		return // it is there, and is not looked at for a while
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	if ct.disk == nil || ct.disk.data != at.data || !ct.disk.have.has(i) {
		return // it was closed meanwhile
	}
	ct.disk.forget(i)
	if !isDisk(err) && !ct.damaged {
		ct.damaged = true
		ct.c.opt.Log.Warn("a file in the disk cache is damaged; what is wrong in it is fetched again", "err", err)
	}
}

// store writes a block to the disk tier, where there is one and room in it.
// must says that it has to succeed: nothing else keeps the block.
func (ct *content) store(i int64, b *block, sum uint32, must bool) error {
	e := ct.entry()
	if e == nil {
		return nil
	}
	ct.c.mu.Lock()
	to := e.entryFiles
	ct.c.mu.Unlock()
	err := ct.diskWork(e, b, func() error { return e.write(to, i, b.data, sum, must) })
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	switch {
	case err == nil:
		e.wrote(i, sum)
		if h := e.health(); h != nil {
			h.worked()
		}
	case ct.gone:
		return err
	case must && e.d == nil:
		return err
	default:
		ct.without(err)
		if must {
			return errElsewhere // what a directory can't take, a temporary file may
		}
	}
	return nil
}

// without goes on with no disk tier for this content, or, where the disk
// fails, for a while. c.mu is held.
func (ct *content) without(err error) {
	if ct.plan.filling = false; isDisk(err) {
		ct.c.opt.Disk.health.failed(err)
	} else {
		ct.noDisk = true
	}
}

// attach opens what the disk tier has of the content.
func (ct *content) attach() {
	d := ct.c.opt.Disk
	if d == nil || !ct.keep || ct.key.Size == 0 {
		return
	}
	ct.files.Lock()
	defer ct.files.Unlock()
	ct.c.mu.Lock()
	old := ct.disk
	skip := ct.gone || (old != nil && old.data != nil)
	ct.c.mu.Unlock()
	if skip {
		return
	}
	if !d.health.ok() {
		return
	}
	e, err := within(d.health, func() (*entry, error) { return d.open(ct.key) }, closeLate)
	if e != nil {
		e.knows(old)
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	ct.disk, ct.noDisk = e, false
	if err != nil {
		ct.without(err)
	}
	if e != nil && ct.validator == "" {
		ct.validator = e.validator
	}
}

// closeLate lets go of an entry that came too late.
func closeLate(e *entry) {
	if e != nil {
		e.close()
	}
}

// entry is the content's place in the disk tier, which is made where it is
// missing; nil where it can have none.
func (ct *content) entry() *entry {
	ct.files.Lock()
	defer ct.files.Unlock()
	ct.c.mu.Lock()
	e, validator := ct.disk, ct.validator
	none := ct.gone || !ct.kept()
	ct.c.mu.Unlock()
	if e != nil && e.data != nil {
		if none && e.d != nil {
			return nil
		}
		return e
	}
	if none {
		return nil
	}
	if validator == ct.key.Version {
		validator = "" // it is in the name
	}
	d := ct.c.opt.Disk
	e, err := within(d.health, func() (*entry, error) { return d.create(ct.key, validator) }, closeLate)
	if err == nil && e.validator != validator {
		e.close()
		err = errOther
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	if err != nil {
		ct.without(err)
		return nil
	}
	ct.disk = e
	return e
}

// errOther says that another process has just stored another version.
var errOther = errors.New("it holds another version of this file")

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
