package cache

import "time"

// What is fetched with a block that a program wants is told here: it alone, what a file
// that comes whole has around it, or its region.

const (
	wholeFetch = 1 << 20 // bytes: a file up to this size is fetched in one request
	aroundMiss = 16      // blocks that are fetched for a missing one, of a file that is to come whole

	nearBy    = 8 * time.Millisecond  // for a first byte, at most, of an origin of which regions come
	regionFor = 50 * time.Millisecond // for one of them, by what blocks took of late
)

// regions are those in which small reads at random may come near each other, the largest
// first: in a region of so many blocks so many are wanted by programs before it comes
// whole. What comes in vain is bounded by that.
var regions = [...]struct{ blocks, wanted int64 }{{markedAtOnce, 4}, {16, 2}}

// demand starts fetches for what is missing of blocks first to last. c.mu is
// held.
func (ct *content) demand(first, last int64, urgent bool) {
	from, to := int64(0), int64(-1)
	switch {
	case ct.key.Size <= wholeFetch:
		first, last = 0, ct.lastBlock()
	case ct.ahead.whole.filling: // all of it is to come: this part now
		around := int64(aroundMiss)
		if !urgent {
			around = ct.ahead.unit
		}
		for last < ct.lastBlock() && last-first+1 < around && ct.missing(last+1) {
			last++
		}
		for first > 0 && last-first+1 < around && ct.missing(first-1) {
			first--
		}
	case urgent && first == last:
		from, to = ct.region(first)
		for last < to && ct.missing(last+1) { // in one request, whose first is waited for
			last++
		}
	}
	for i := first; i <= last; {
		i = ct.start(i, last, urgent)
	}
	for i := from; i <= to && ct.fetch.ahead < ct.c.opt.Parallel; {
		i = ct.start(i, to, false)
	}
}

// region is what is worth having with block i, which a program wants: the region around it, where much of that was wanted, of an origin that is near and
// fast, and where there is a place for it. Small reads at random cost a block each where
// its neighbours are not wanted, and soon nothing where they are; larger ones bring enough
// by themselves. first is behind last where nothing is. c.mu is held.
func (ct *content) region(i int64) (first, last int64) {
	if ct.fetch.wait > nearBy || !ct.kept() {
		return 0, -1
	}
	for _, r := range regions {
		if ct.fetch.wait+time.Duration(r.blocks)*ct.fetch.each > regionFor {
			continue
		}
		first = i - i%r.blocks
		if ct.ahead.wanted.count(first, r.blocks) >= r.wanted {
			return first, min(first+r.blocks-1, ct.lastBlock())
		}
	}
	return 0, -1
}
