package disk

import "math/bits"

// BlockSize is the unit of caching, in bytes: what the kernel asks a FUSE
// daemon for at a time, unless told otherwise.
const BlockSize = 128 << 10

// BlocksOf is how many blocks size bytes take.
func BlocksOf(size int64) int64 { return (size + BlockSize - 1) / BlockSize }

// BlockLen is the length in bytes of block i of a content of size bytes.
func BlockLen(size, i int64) int64 { return min(BlockSize, size-i*BlockSize) }

const (
	pageBlocks = 1024 // blocks of a page: 128 MiB of a content
	pageBytes  = pageBlocks*4 + 3*pageBlocks/8
)

// page is what is known of pageBlocks blocks that follow each other.
type page struct {
	have bitset             // blocks that are on the disk
	good bitset             // of these, those that this process wrote or verified
	bad  bitset             // blocks whose bytes were found not to be what the record says
	sums [pageBlocks]uint32 // CRC32C of the blocks in have
}

type bitset [pageBlocks / 64]uint64

func (s *bitset) has(i int64) bool { return s[i>>6]&(1<<(i&63)) != 0 }
func (s *bitset) set(i int64)      { s[i>>6] |= 1 << (i & 63) }
func (s *bitset) clear(i int64)    { s[i>>6] &^= 1 << (i & 63) }

// blocks are what is known of a content's blocks. What it takes grows with what
// is on the disk, and not with the content's size.
type blocks struct {
	pages map[int64]*page
	have  int64 // blocks on the disk
	good  int64 // of these, verified ones
}

func (b *blocks) at(i int64) (*page, int64) { return b.pages[i/pageBlocks], i % pageBlocks }

func (b *blocks) has(i int64) bool {
	p, k := b.at(i)
	return p != nil && p.have.has(k)
}

func (b *blocks) isGood(i int64) bool {
	p, k := b.at(i)
	return p != nil && p.good.has(k)
}

func (b *blocks) isBad(i int64) bool {
	p, k := b.at(i)
	return p != nil && p.bad.has(k)
}

func (b *blocks) sum(i int64) uint32 {
	p, k := b.at(i)
	if p == nil {
		return 0
	}
	return p.sums[k]
}

// add notes that block i is there, with the checksum sum.
func (b *blocks) add(i int64, sum uint32) {
	p, k := b.at(i)
	if p == nil {
		p = &page{}
		if b.pages == nil {
			b.pages = map[int64]*page{}
		}
		b.pages[i/pageBlocks] = p
	}
	if !p.have.has(k) {
		b.have++
	}
	p.have.set(k)
	p.bad.clear(k)
	p.sums[k] = sum
}

// verified notes that block i, which is there, is what its checksum says.
func (b *blocks) verified(i int64) {
	if p, k := b.at(i); p != nil && p.have.has(k) && !p.good.has(k) {
		p.good.set(k)
		b.good++
	}
}

// forget takes block i out: its bytes are not what the record says.
func (b *blocks) forget(i int64) {
	p, k := b.at(i)
	if p == nil || !p.have.has(k) {
		return
	}
	b.have--
	if p.good.has(k) {
		b.good--
	}
	p.have.clear(k)
	p.good.clear(k)
	p.bad.set(k)
}

// unverified is the first block from i to before end that is there and was not
// verified, or -1.
func (b *blocks) unverified(i, end int64) int64 {
	if b.good == b.have {
		return -1
	}
	for i < end {
		p, k := b.at(i)
		if p == nil {
			i += pageBlocks - k
			continue
		}
		for w := k >> 6; w < int64(len(p.have)); w++ {
			word := p.have[w] &^ p.good[w]
			if w == k>>6 {
				word &= ^uint64(0) << (k & 63)
			}
			if word != 0 {
				if at := i - k + w<<6 + int64(bits.TrailingZeros64(word)); at < end {
					return at
				}
				return -1
			}
		}
		i += pageBlocks - k
	}
	return -1
}

// carryOver takes over what is known to be good of the same bytes.
func (b *blocks) carryOver(old *blocks) {
	for n, p := range old.pages {
		q := b.pages[n]
		if q == nil {
			continue
		}
		for w := range p.good {
			q.good[w] = p.good[w] & q.have[w]
		}
	}
	b.good = 0
	for _, p := range b.pages {
		for _, w := range p.good {
			b.good += int64(bits.OnesCount64(w))
		}
	}
}

// bytes is the memory that b takes.
func (b *blocks) bytes() int64 { return int64(len(b.pages)) * pageBytes }
