package sessionfile

import (
	"fmt"
	"math"
	"sync/atomic"
)

// Name is a name that the kernel was told of, and the inode that it leads to.
type Name struct {
	Number uint64 // of the inode; unique
	Check  uint64 // tells the inode from others of that number
	Parent uint64 // the directory's number
	Turn   uint32 // how often the name was found to have changed before
	Dir    bool
	Moves  bool   // a link that may lead elsewhere
	Name   string // in the directory; 1 to 255 bytes
}

// Names is the table of names.
type Names struct {
	chunks  *chunks
	mem     memory
	index   index
	orphans map[uint64]Row // the first child of directories that have no row, such as the root
	len     int
	weight  int
	hand    hand
}

func newNames(c *chunks) Names {
	return Names{chunks: c, mem: c.mem, index: newIndex(c.mem), orphans: map[uint64]Row{}}
}

// Add adds a name. Its number must not be there. The name's way in its directory leads to it
// from now on (Leads). After an error, such as that there is no memory, all is as before.
func (n *Names) Add(name Name) (Row, error) {
	if len(name.Name) == 0 || len(name.Name) > maxName {
		return 0, fmt.Errorf("a name has 1 to %d bytes, and this one %d", maxName, len(name.Name))
	}
	if n.At(name.Number) != 0 {
		return 0, fmt.Errorf("inode %d has a name already", name.Number)
	}
	r, err := n.chunks.add(nameKind(len(name.Name)))
	if err != nil {
		return 0, err
	}
	writeName(n.mem, r, name)
	old := n.Leads(name.Parent, name.Name)
	head := uint32(stateLive | flagTouched | 1<<weightShift)
	if old == 0 {
		head |= flagLeads
	}
	n.mem.store32(r.off(), head)
	n.len++
	n.weight++
	n.index.addNumber(r)
	n.adopt(r, name.Number)
	if old != 0 {
		n.Lead(r)
	} else {
		n.index.addName(r)
		n.addChild(r, name.Parent)
	}
	n.resize()
	return r, nil
}

// Remove takes one out. Where its name led to it, the name leads nowhere then. A row that
// was removed before may be another name's by now.
func (n *Names) Remove(r Row) {
	if !n.chunks.isLive(r) {
		return
	}
	head := n.mem.load32(r.off())
	if head&flagLeads != 0 {
		n.index.removeName(r)
		n.removeChild(r)
	}
	n.orphan(r)
	n.index.removeNumber(r)
	n.len--
	n.weight -= int(head >> weightShift)
	n.chunks.remove(r)
	n.resize()
}

// At is the row of a number; 0 where there is none.
func (n *Names) At(number uint64) Row { return n.index.number(number) }

// Leads is the row that a name in a directory leads to; 0 where there is none.
func (n *Names) Leads(parent uint64, name string) Row { return n.index.name(parent, name) }

// Lead has the row's name in its directory lead to it, in the place of another row that has
// the same name there. A process that is killed meanwhile leaves a name that leads nowhere.
func (n *Names) Lead(r Row) {
	if !n.chunks.isLive(r) || n.has(r, flagLeads) {
		return
	}
	parent := n.Parent(r)
	if old := n.index.name(parent, string(nameBytes(n.mem, r))); old != 0 {
		n.unlead(old)
		n.index.removeName(old)
		n.removeChild(old)
	}
	n.set(r, flagLeads)
	n.index.addName(r)
	n.addChild(r, parent)
}

// Get is what Add was given.
func (n *Names) Get(r Row) Name { return readName(n.mem, r) }

// Number, Check, Parent, Turn and Weight are of a row, without the cost of Get. Leading tells
// whether its name leads to it.
func (n *Names) Number(r Row) uint64 { return n.mem.load64(r.off() + atNumber) }
func (n *Names) Parent(r Row) uint64 { return n.mem.load64(r.off() + atParent) }
func (n *Names) Weight(r Row) int    { return int(n.mem.load32(r.off()) >> weightShift) }

func (n *Names) Check(r Row) uint64 { return n.mem.load64(r.off() + atCheck) }
func (n *Names) Turn(r Row) uint32  { return n.mem.load32(r.off() + atTurn) }
func (n *Names) Leading(r Row) bool { return n.has(r, flagLeads) }

// Lookups is how often the kernel was told of it and has not forgotten it. What exceeds 32
// bits counts as their largest number, and stays that.
func (n *Names) Lookups(r Row) uint64 { return uint64(n.mem.load32(r.off() + atLookups)) }

func (n *Names) SetLookups(r Row, to uint64) {
	if n.chunks.isLive(r) && n.Lookups(r) != math.MaxUint32 {
		n.mem.store32(r.off()+atLookups, uint32(min(to, math.MaxUint32)))
	}
}

// Pages is the hash of the content of which the kernel has pages; 0: it has none.
func (n *Names) Pages(r Row) uint64 { return n.mem.load64(r.off() + atPages) }

func (n *Names) SetPages(r Row, to uint64) {
	if n.chunks.isLive(r) {
		n.mem.store64(r.off()+atPages, to)
	}
}

// Stale says that the content was found to have changed: its name leads to another inode now.
func (n *Names) Stale(r Row) bool { return n.has(r, flagStale) }

func (n *Names) SetStale(r Row) {
	if n.chunks.isLive(r) {
		n.set(r, flagStale)
	}
}

// SetWeight has it count as so many names, 1 to 65535. Add gives it 1.
func (n *Names) SetWeight(r Row, w int) {
	if !n.chunks.isLive(r) {
		return
	}
	w = min(max(w, 1), math.MaxUint16)
	head := n.mem.load32(r.off())
	n.weight += w - int(head>>weightShift)
	n.mem.store32(r.off(), head&(1<<weightShift-1)|uint32(w)<<weightShift)
}

// Len is how many rows there are, and TotalWeight what they weigh together.
func (n *Names) Len() int         { return n.len }
func (n *Names) TotalWeight() int { return n.weight }

// All calls each with all rows, until it returns false; none is added or removed meanwhile.
func (n *Names) All(each func(Row) bool) { n.chunks.each(each) }

func (n *Names) has(r Row, flag uint32) bool { return n.mem.load32(r.off())&flag != 0 }
func (n *Names) set(r Row, flag uint32)      { atomic.OrUint32(n.mem.word32(r.off()), flag) }
func (n *Names) unlead(r Row)                { atomic.AndUint32(n.mem.word32(r.off()), ^uint32(flagLeads)) }

// resize has about as many buckets as rows.
func (n *Names) resize() {
	buckets := len(n.index.numbers)
	switch {
	case n.len > buckets:
		n.index.empty(buckets * 2)
	case n.len < buckets/8 && buckets > fewBuckets:
		n.index.empty(buckets / 2)
	default:
		return
	}
	n.All(func(r Row) bool {
		n.index.addNumber(r)
		if n.has(r, flagLeads) {
			n.index.addName(r)
		}
		return true
	})
}
