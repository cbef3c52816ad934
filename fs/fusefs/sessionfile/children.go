package sessionfile

import "sync/atomic"

// Children calls each with the rows that names in a directory lead to, until it returns
// false. The table must not be changed meanwhile.
func (n *Names) Children(parent uint64, each func(Row) bool) {
	r := n.orphans[parent]
	if d := n.At(parent); d != 0 {
		r = n.index.link(d, atFirstChild)
	}
	for r != 0 && each(r) {
		r = n.index.link(r, atNextSibling)
	}
}

// addChild has r be the first of its directory.
func (n *Names) addChild(r Row, parent uint64) {
	next := n.setFirstChild(parent, r)
	n.index.setLink(r, atPrevSibling, 0)
	n.index.setLink(r, atNextSibling, next)
	if next != 0 {
		n.index.setLink(next, atPrevSibling, r)
	}
}

func (n *Names) removeChild(r Row) {
	prev, next := n.index.link(r, atPrevSibling), n.index.link(r, atNextSibling)
	if prev != 0 {
		n.index.setLink(prev, atNextSibling, next)
	} else {
		n.setFirstChild(n.Parent(r), next)
	}
	if next != 0 {
		n.index.setLink(next, atPrevSibling, prev)
	}
}

func (n *Names) setFirstChild(parent uint64, to Row) (was Row) {
	if d := n.At(parent); d != 0 {
		was = n.index.link(d, atFirstChild)
		n.index.setLink(d, atFirstChild, to)
		return was
	}
	was = n.orphans[parent]
	if to == 0 {
		delete(n.orphans, parent)
	} else {
		n.orphans[parent] = to
	}
	return was
}

// adopt gives a new row the children that its number has already.
func (n *Names) adopt(r Row, number uint64) {
	if len(n.orphans) == 0 {
		return
	}
	if first := n.orphans[number]; first != 0 {
		n.index.setLink(r, atFirstChild, first)
		delete(n.orphans, number)
	}
}

// orphan keeps the children of a row that is removed.
func (n *Names) orphan(r Row) {
	if first := n.index.link(r, atFirstChild); first != 0 {
		n.orphans[n.Number(r)] = first
	}
}

// hand is where the clock stands: at a place of a chunk.
type hand struct {
	chunk, place int32
}

// Touch notes that a row was used. Oldest gives a row that was not for as long as about half
// of the others at least (a clock's hand: what it passes it takes for untouched); it goes on
// behind it the next time. 0 where there is none at all.
func (n *Names) Touch(r Row) {
	if n.chunks.isLive(r) && !n.has(r, flagTouched) {
		n.set(r, flagTouched)
	}
}

func (n *Names) Oldest() Row {
	for n.len > 0 {
		if int(n.hand.chunk) >= len(n.chunks.all) {
			n.hand = hand{}
		}
		if r := n.oldestOfChunk(n.hand.chunk); r != 0 {
			return r
		}
		n.hand = hand{chunk: n.hand.chunk + 1}
	}
	return 0
}

func (n *Names) oldestOfChunk(i int32) Row {
	chunk := &n.chunks.all[i]
	if chunk.used == 0 {
		return 0
	}
	for n.hand.place < chunk.next {
		r := n.chunks.row(i, n.hand.place)
		n.hand.place++
		if !n.chunks.isLive(r) {
			continue
		}
		if !n.has(r, flagTouched) {
			return r
		}
		atomic.AndUint32(n.mem.word32(r.off()), ^uint32(flagTouched))
	}
	return 0
}

// load checks the records of names, and makes the index. Two that claim that one name leads to
// them are no work of this package: it leads to neither.
func (n *Names) load() error {
	if err := n.chunks.load(); err != nil {
		return err
	}
	sound := true
	n.All(func(r Row) bool {
		sound = isName(n.mem, r, n.chunks.all[n.chunks.of(r)].kind)
		n.len++
		return sound
	})
	if !sound {
		return damaged("a name in it has changed")
	}
	buckets := fewBuckets
	for buckets < n.len {
		buckets *= 2
	}
	n.index.empty(buckets)
	n.All(func(r Row) bool {
		sound = n.At(n.Number(r)) == 0
		n.index.addNumber(r)
		n.index.setLink(r, atFirstChild, 0)
		n.weight += n.Weight(r)
		return sound
	})
	if !sound {
		return damaged("two names in it have one number")
	}
	n.loadLeading()
	return nil
}

func (n *Names) loadLeading() {
	var disputed []Row
	n.All(func(r Row) bool {
		if !n.has(r, flagLeads) {
			return true
		}
		if other := n.index.name(n.Parent(r), string(nameBytes(n.mem, r))); other != 0 {
			n.unlead(r)
			disputed = append(disputed, other)
			return true
		}
		n.index.addName(r)
		n.addChild(r, n.Parent(r))
		return true
	})
	for _, r := range disputed {
		if n.has(r, flagLeads) {
			n.unlead(r)
			n.index.removeName(r)
			n.removeChild(r)
		}
	}
}
