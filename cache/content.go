package cache

import (
	"context"
	"errors"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// content is what one key holds, shared by its handles. Guarded by Cache.mu, but
// for the first five fields, which never change.
type content struct {
	c          *Cache
	key        Key
	src        Source
	home       home   // what keeps its file; nil: nothing does
	generation uint64 // tells it from what the key had before

	life      lifecycle
	store     blockStore
	fetch     fetcher
	ahead     prefetching
	validator string // of the answers, and of what is on disk
}

func (ct *content) lastBlock() int64 { return (ct.key.Size - 1) / BlockSize }

func (ct *content) blockLen(i int64) int64 { return disk.BlockLen(ct.key.Size, i) }

// place is where a block was found: one of the first three is set.
type place struct {
	b       *block // the caller holds it
	pending *pendingBlock
	file    *disk.File
	good    bool  // file: the block was held against its sum
	to      int64 // file: the block behind the last that can be read with this one
}

// look finds block i, and has it fetched where it is nowhere. Blocks up to
// last are wanted, too. urgent says that a program waits for it.
func (ct *content) look(i, last int64, urgent bool) (p place, err error) {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	if ct.life.err != nil {
		return place{}, ct.life.err
	}
	ct.ahead.fresh.clear(i)
	did := &ct.c.did
	if urgent {
		ct.ahead.wanted.set(i)
	} else {
		did = &counters{} // no program's
	}
	if b := ct.inMemory(i); b != nil {
		did.memory.Add(1)
		b.refs++
		return place{b: b}, nil
	}
	if there, good := ct.onDisk(i); there {
		p := place{file: ct.store.file, good: good, to: i + 1}
		if good {
			p.to = p.file.GoodTo(i+1, last+1)
		}
		for j := i + 1; j < p.to; j++ {
			ct.ahead.fresh.clear(j)
		}
		did.disk.Add(p.to - i)
		return p, nil
	}
	p.pending, err = ct.pend(i, last, urgent)
	if p.pending != nil {
		did.misses.Add(1)
	}
	return p, err
}

// diskTries is how often a block is read from the disk, whose error says nothing of
// the block, until it is taken for one that is not there.
const diskTries = 3

// read puts bytes of block i, and of those behind it up to last where they lie
// ready, into p, which begins at offset off in block i. It returns how many.
func (ct *content) read(ctx context.Context, p []byte, off, last int64, urgent bool) (int, error) {
	i := off / BlockSize
	for try := 0; ; try++ {
		at, err := ct.look(i, last, urgent)
		if err != nil {
			return 0, err
		}
		switch {
		case at == place{}: // the disk has it again
			continue
		case at.pending != nil:
			at.b, err = ct.wait(ctx, at.pending)
			if err != nil && !errors.Is(err, errElsewhere) {
				return 0, err
			}
		case at.file != nil && !at.good:
			at.b, err = ct.verify(at.file, i)
		case at.file != nil:
			var n int
			n, err = ct.readDisk(at.file, p[:min(int64(len(p)), at.to*BlockSize-off)], off)
			if err == nil {
				return n, nil
			}
			ct.lost(err)
		}
		if err != nil { // it is looked for anew, and in the end not in that place
			if at.file != nil && try >= diskTries {
				at.file.Forget(i)
			}
			continue
		}
		n := copy(p, at.b.data[off-i*BlockSize:])
		ct.c.releaseUnlocked(at.b)
		return n, nil
	}
}

// cost is the memory that is taken by what is known of the content, beside its
// blocks. c.mu is held.
func (ct *content) cost() int64 {
	n := int64(contentCost + 4*cap(ct.fetch.sums) + markCost*len(ct.ahead.wanted) + 8*cap(ct.ahead.fresh) + len(ct.key.Location) + len(ct.validator))
	if f := ct.store.file; f != nil {
		n += f.Memory()
	}
	return n
}

const (
	contentCost = 1 << 10
	markCost    = 40
)

// unsure tells whether nothing would show that the rest of the content is of the
// same: what there is of it is forgotten with the last handle. c.mu is held.
func (ct *content) unsure() bool {
	s := &ct.store
	whole := int64(s.blocks) == disk.BlocksOf(ct.key.Size) || (s.file != nil && s.file.Complete())
	return ct.validator == "" && ct.fetch.ranged && !whole
}
