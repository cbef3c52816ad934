package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// content is what one key holds, shared by its handles. All its fields are
// guarded by c.mu, but for the first four, which never change.
type content struct {
	c          *Cache
	key        Key
	src        Source
	generation uint64

	store blockStore

	keep    bool
	refs    int // open handles
	flights map[int64]*flight
	fetches int // running now, or waiting for a permit
	aheads  int // of these, those that fetch ahead

	// Until one answer has shown that the origin honours ranges, and for ever
	// where it does not, one fetch at a time may ask: busy is closed when it
	// has what it asked for.
	ranged bool
	busy   chan struct{}
	stream context.CancelFunc // set while a whole body comes in: it brings every block

	validator string   // of the answers, and of what is on disk
	sums      []uint32 // of the blocks that came in whole bodies, to hold the next body against
	err       error    // the content changed: nothing more is served
	gone      bool     // out of the cache: what still comes is not kept
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

func (ct *content) blockLen(i int64) int64 { return disk.BlockLen(ct.key.Size, i) }

// missing tells whether block i is neither here nor on its way. c.mu is held.
func (ct *content) missing(i int64) bool { return ct.flights[i] == nil && ct.away(i) }

// place is where a block was found: one of the first three is set.
type place struct {
	b    *block // the caller holds it
	fl   *flight
	file *disk.File
	good bool  // file: the block was held against its sum
	to   int64 // file: the block behind the last that can be read with this one
}

// look finds block i, and has it fetched where it is nowhere. Blocks up to
// last are wanted, too. urgent says that a program waits for it, and disk that
// it may be read from there.
func (ct *content) look(i, last int64, urgent, disk bool) (p place, err error) {
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
	if there, good := ct.onDisk(i); there && disk {
		p := place{file: ct.store.file, good: good, to: i + 1}
		if good {
			p.to = p.file.GoodTo(i+1, last+1)
		}
		for j := i + 1; j < p.to; j++ {
			ct.fresh.clear(j)
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
		if ct.flights[i] == nil { // the disk has it again
			return place{}, nil
		}
	}
	did.misses.Add(1)
	fl := ct.flights[i]
	fl.waiting++
	if urgent && fl.fetch != nil && !fl.fetch.urgent {
		fl.fetch.urgent = true
		if p := fl.fetch.permit; p != nil {
			p.Promote()
		}
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
	ct.store.known = true
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

// diskTries is how often a block is looked for on the disk that can't be read
// there, and is said to be.
const diskTries = 3

// read puts bytes of block i, and of those behind it up to last where they lie
// ready, into p, which begins at offset off in block i. It returns how many.
func (ct *content) read(ctx context.Context, p []byte, off, last int64, urgent bool) (int, error) {
	i := off / BlockSize
	for try := 0; ; try++ {
		at, err := ct.look(i, last, urgent, try < diskTries)
		if err != nil {
			return 0, err
		}
		switch {
		case at == place{}:
			continue
		case at.fl != nil:
			at.b, err = ct.wait(ctx, at.fl)
			if err != nil && !errors.Is(err, errElsewhere) {
				return 0, err
			}
		case at.file != nil && !at.good:
			at.b, err = ct.verify(at.file, i)
		case at.file != nil:
			n, err := ct.readDisk(at.file, p[:min(int64(len(p)), at.to*BlockSize-off)], off)
			if err == nil {
				return n, nil
			}
			ct.lost(err)
			continue
		}
		if err != nil {
			continue // it is looked for anew, and not in that place
		}
		n := copy(p, at.b.data[off-i*BlockSize:])
		ct.c.releaseUnlocked(at.b)
		return n, nil
	}
}

// unused tells whether nobody has the content open, and nothing is on its way.
// c.mu is held.
func (ct *content) unused() bool {
	return ct.refs == 0 && ct.fetches == 0 && ct.stream == nil && ct.linger == nil && len(ct.store.writing) == 0
}

// cost is the memory that is taken by what is known of the content, beside its
// blocks. c.mu is held.
func (ct *content) cost() int64 {
	n := int64(contentCost + 4*cap(ct.sums) + len(ct.key.Location) + len(ct.validator))
	if f := ct.store.file; f != nil {
		n += f.Memory()
	}
	return n
}

const contentCost = 1 << 10

// settle closes the content's file when nobody uses it, and forgets what has
// nothing to remember. It is called when the last user may have gone.
func (ct *content) settle() {
	ct.store.opening.Lock()
	defer ct.store.opening.Unlock()
	c := ct.c
	c.mu.Lock()
	var file *disk.File
	if ct.unused() {
		s := &ct.store
		switch {
		case ct.gone:
		case !ct.keep || ct.err != nil || (s.file != nil && !s.file.Kept()):
			ct.drop()
		case !s.known || (s.blocks == 0 && s.file == nil && ct.validator == ""):
			if c.contents[ct.key] == ct {
				delete(c.contents, ct.key)
			}
			ct.gone = true
		default:
			if !c.idle.has(ct) {
				c.idle.add(ct, struct{}{}, ct.cost())
			}
		}
		if s.open {
			file, s.open = s.file, false
		}
	}
	c.mu.Unlock()
	if file != nil {
		file.Close()
	}
}

// changed ends the content: its handles get err from now on, and the next Open
// of its key begins anew. What is on disk of it goes first, so that no new
// handle finds it.
func (ct *content) changed(err error) {
	ct.store.opening.Lock()
	defer ct.store.opening.Unlock()
	ct.c.mu.Lock()
	file := ct.store.file
	ct.c.mu.Unlock()
	if file != nil {
		file.Remove() // what can't be removed has a validator that is no more
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
	ct.c.idle.remove(ct)
	if ct.c.contents[ct.key] == ct {
		delete(ct.c.contents, ct.key)
	}
	if ct.stream != nil {
		ct.stream()
	}
	if ct.store.blocks > 0 {
		for _, k := range ct.c.blocks.keys() { // memory bounds them, and nothing the content's blocks
			if k.of == ct {
				ct.c.blocks.remove(k)
			}
		}
	}
}

// unsure tells whether nothing would show that the rest of the content is of the
// same: what there is of it is forgotten with the last handle. c.mu is held.
func (ct *content) unsure() bool {
	s := &ct.store
	whole := int64(s.blocks) == disk.BlocksOf(ct.key.Size) || (s.file != nil && s.file.Complete())
	return ct.validator == "" && ct.ranged && !whole
}

// closed is called by a handle that goes.
func (ct *content) closed() {
	c := ct.c
	c.mu.Lock()
	ct.refs--
	last := ct.refs == 0
	if last {
		c.open--
		ct.wake, ct.fresh, ct.store.attached = nil, nil, false
		switch {
		case !ct.keep || ct.err != nil || ct.unsure():
			if !ct.gone {
				ct.drop()
			}
		case ct.stream != nil || ct.plan.filling || (ct.store.file != nil && !ct.store.file.Kept()):
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
