package sessionfile

import (
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
)

// index finds rows by a number and by a name in a directory. Its chains are in the records,
// from buckets here, of which there are about as many as rows. What strangers choose as names
// makes no long chains: the hashes are seeded.
type index struct {
	mem     memory
	seed    maphash.Seed
	odd     uint64
	shift   int
	numbers []Row
	names   []Row
}

const fewBuckets = 1 << 10

func newIndex(m memory) index {
	x := index{mem: m, seed: maphash.MakeSeed(), odd: rand.Uint64() | 1}
	x.empty(fewBuckets)
	return x
}

// empty makes the buckets, a power of two.
func (x *index) empty(buckets int) {
	x.numbers, x.names = make([]Row, buckets), make([]Row, buckets)
	x.shift = 64 - bits.TrailingZeros(uint(buckets))
}

func (x *index) numberBucket(number uint64) *Row { return &x.numbers[number*x.odd>>x.shift] }

func (x *index) nameBucket(parent, hash uint64) *Row {
	return &x.names[(parent*x.odd^hash)*0x9e3779b97f4a7c15>>x.shift]
}

func (x *index) number(number uint64) Row {
	r := *x.numberBucket(number)
	for r != 0 && x.mem.load64(r.off()+atNumber) != number {
		r = x.link(r, atNextNumber)
	}
	return r
}

func (x *index) addNumber(r Row) {
	b := x.numberBucket(x.mem.load64(r.off() + atNumber))
	x.setLink(r, atNextNumber, *b)
	*b = r
}

func (x *index) removeNumber(r Row) {
	x.unchain(x.numberBucket(x.mem.load64(r.off()+atNumber)), r, atNextNumber)
}

func (x *index) name(parent uint64, name string) Row {
	r := *x.nameBucket(parent, maphash.String(x.seed, name))
	for r != 0 && (x.mem.load64(r.off()+atParent) != parent || string(nameBytes(x.mem, r)) != name) {
		r = x.link(r, atNextName)
	}
	return r
}

func (x *index) addName(r Row) {
	b := x.nameBucketOf(r)
	x.setLink(r, atNextName, *b)
	*b = r
}

func (x *index) removeName(r Row) { x.unchain(x.nameBucketOf(r), r, atNextName) }

func (x *index) nameBucketOf(r Row) *Row {
	return x.nameBucket(x.mem.load64(r.off()+atParent), maphash.Bytes(x.seed, nameBytes(x.mem, r)))
}

func (x *index) unchain(b *Row, r Row, at int) {
	next := x.link(r, at)
	if *b == r {
		*b = next
		return
	}
	p := *b
	for x.link(p, at) != r {
		p = x.link(p, at)
	}
	x.setLink(p, at, next)
}

func (x *index) link(r Row, at int) Row        { return Row(x.mem.load32(r.off() + at)) }
func (x *index) setLink(r Row, at int, to Row) { x.mem.store32(r.off()+at, uint32(to)) }
