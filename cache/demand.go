package cache

import "time"

// What is fetched with a block that a program wants is told here: it alone, what a file
// that comes whole has around it, or its region.

const (
	wholeFetch = 1 << 20              // bytes: a file up to this size is fetched in one request
	aroundMiss = 16                   // blocks that are fetched for a missing one, of a file that is to come whole
	nearBy     = 8 * time.Millisecond // for a first byte: of what is no further, more than is asked for may come
	densePart  = 8                    // one in so many blocks of a region is wanted before the rest comes: what comes in vain is bounded by it
)

// regions are the blocks of those that come whole, the largest first.
var regions = [...]int64{64, 16}

// demand starts fetches for what is missing of blocks first to last. c.mu is
// held.
func (ct *content) demand(first, last int64, urgent bool) {
	from := first
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
		from = first
	case urgent && first == last:
		from, last = ct.denseAround(first)
	}
	for i := first; i <= last; {
		i = ct.start(i, last, urgent)
	}
	for i := from; i < first; {
		i = ct.start(i, first-1, false)
	}
}

// denseAround is what is to come with block i, which a program wants: a region of which
// one block in densePart is here or wanted, of an origin that is near, where there is a
// place for it. Small reads at random cost a block each where their neighbours are not
// wanted, and soon nothing where they are; larger ones bring enough by themselves. c.mu is
// held.
func (ct *content) denseAround(i int64) (first, last int64) {
	if ct.fetch.wait > nearBy || !ct.kept() {
		return i, i
	}
	for _, blocks := range regions {
		first, last = i-i%blocks, min(i-i%blocks+blocks-1, ct.lastBlock())
		wanted := int64(1)
		for j := first; j <= last && wanted*densePart < blocks; j++ {
			if !ct.missing(j) {
				wanted++
			}
		}
		if wanted*densePart >= blocks {
			return first, last
		}
	}
	return i, i
}
