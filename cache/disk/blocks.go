package disk

// BlockSize is the unit of caching, in bytes: what the kernel asks a FUSE
// daemon for at a time, unless told otherwise.
const BlockSize = 128 << 10

// BlocksOf is how many blocks size bytes take.
func BlocksOf(size int64) int64 { return (size + BlockSize - 1) / BlockSize }

// BlockLen is the length in bytes of block i of a content of size bytes.
func BlockLen(size, i int64) int64 { return min(BlockSize, size-i*BlockSize) }

// state is what is known of a block.
type state uint8

const (
	missing  state = iota
	present        // the record says that it is on the disk
	verified       // and this process wrote it, or read it and compared its checksum
	damaged        // its bytes are not what the record says: it is missing
)

func (s state) readable() bool { return s == present || s == verified }

const (
	pageBlocks = 1024              // blocks of a page: 128 MiB of a content
	pageBytes  = 5*pageBlocks + 16 // of memory
)

// page is what is known of pageBlocks blocks that follow each other.
type page struct {
	states [pageBlocks]state
	sums   [pageBlocks]uint32 // checksums of the readable blocks
	tally
}

// tally counts blocks.
type tally struct {
	readable int64
	verified int64 // of these
}

func (t *tally) add(s state, n int64) {
	if s.readable() {
		t.readable += n
	}
	if s == verified {
		t.verified += n
	}
}

// blocks is what is known of a content's blocks. Its memory grows with what is
// on the disk, and not with the content's size.
type blocks struct {
	pages map[int64]*page
	tally
}

func (b *blocks) get(i int64) (state, uint32) {
	p := b.pages[i/pageBlocks]
	if p == nil {
		return missing, 0
	}
	return p.states[i%pageBlocks], p.sums[i%pageBlocks]
}

func (b *blocks) set(i int64, s state, sum uint32) {
	p := b.pages[i/pageBlocks]
	if p == nil {
		if b.pages == nil {
			b.pages = map[int64]*page{}
		}
		p = &page{}
		b.pages[i/pageBlocks] = p
	}
	k := i % pageBlocks
	for _, t := range []*tally{&b.tally, &p.tally} {
		t.add(p.states[k], -1)
		t.add(s, 1)
	}
	p.states[k], p.sums[k] = s, sum
}

// unverified is the first block from i to before end that is readable and not
// verified, or -1.
func (b *blocks) unverified(i, end int64) int64 {
	if b.verified == b.readable {
		return -1
	}
	for i < end {
		p := b.pages[i/pageBlocks]
		if p == nil || p.verified == p.readable {
			i += pageBlocks - i%pageBlocks
			continue
		}
		if p.states[i%pageBlocks] == present {
			return i
		}
		i++
	}
	return -1
}

// merge adds what found has and b does not know of.
func (b *blocks) merge(found *blocks) {
	for n, p := range found.pages {
		for k, s := range p.states {
			i := n*pageBlocks + int64(k)
			if old, _ := b.get(i); old == missing && s.readable() {
				b.set(i, present, p.sums[k])
			}
		}
	}
}

// carryOver marks as verified what old had verified of the same bytes.
func (b *blocks) carryOver(old *blocks) {
	for n, p := range old.pages {
		for k, s := range p.states {
			i := n*pageBlocks + int64(k)
			if now, sum := b.get(i); s == verified && now == present && sum == p.sums[k] {
				b.set(i, verified, sum)
			}
		}
	}
}

// bytes is the memory that b takes.
func (b *blocks) bytes() int64 { return int64(len(b.pages)) * pageBytes }
