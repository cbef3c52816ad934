package cache

import (
	"slices"
	"time"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// What is fetched, verified or read from the disk before a program asks for it
// is told here. A content wants two kinds of blocks ahead: the window of each
// reader that goes on in order (prefetcher), and, once its reads say that the
// file will be read whole, all of it (wholeFile). pump starts as many fetches for
// them as Options.Parallel allows, whenever a read or a fetch has ended. Blocks
// that come so are news to the kernel, to which they can be pushed.

// prefetching is what of a content is worth having before it is asked for.
// Guarded by Cache.mu.
type prefetching struct {
	readers []*prefetcher // those with a window, the one that read last first
	whole   wholeFile
	unit    int64 // blocks of one request

	verifying int     // how many verify blocks
	claimed   []int64 // those blocks

	wanted marks  // blocks that programs have asked for
	fresh  bitset // blocks that came unasked, and that nobody has read
	wake   func() // told of fresh blocks
}

// prefetcher is what the reads of one handle say of those to come. Guarded by
// Cache.mu.
type prefetcher struct {
	next   int64 // the block that a sequential reader asks for next, -1 at first
	window int64 // blocks to have ahead of the reader
	run    int64 // blocks read in order since the last jump; -1: since the file's beginning
	low    int64 // the first block read since next last moved on
	back   int   // how often that moved back
	needed int64 // the block up to which the disk was told of this reader

	at, end int64 // the window: blocks before at were asked for
}

// wholeFile is the plan to have all of a content.
type wholeFile struct {
	filling bool // it is to come
	was     bool // it was once: the kernel is worth telling of what comes

	jumps int   // reads that followed on none
	read  int64 // blocks read, however often

	at      int64 // where the filling is
	from    int64 // where it began, to end there on its second way
	edges   int   // of the head and the tail, what has been asked for
	wrapped bool
}

const (
	firstUnit = 16  // blocks of a first request ahead, and of the smallest of a fill
	maxUnit   = 128 // and of any
	edge      = 8   // blocks at the head and at the tail that a fill begins with
	maxWindow = 512 // blocks
	maxReader = 16  // windows of one content

	distinctRegions = 4 // reads in so many places say that a file is read whole,
	fewRegions      = 2 // or in so many,
	manyRead        = 8 // of so many blocks

	fastFetch = 150 * time.Millisecond
	slowFetch = 600 * time.Millisecond

	// Reads of one process come a little out of order through the kernel: a step
	// back of up to slack blocks is still a sequential read, unless more
	// follow: the C library copies large pieces from their end.
	slack = 16
)

// follow notes a read of blocks first to last and returns how many blocks
// after them are worth having, and whether it followed on none. The window
// opens with the second block read in order, doubles with each further one,
// and closes at a jump; a jump within it is none. Behind a jump it is at most
// a quarter of what was read in order since: a large read at random is many of the
// kernel's, and brings little more than itself.
func (p *prefetcher) follow(first, last int64) (window int64, jumped bool) {
	switch n := last - first + 1; {
	case p.next < 0 && first == 0: // a beginning: of what, the next read tells
		p.next, p.run = last+1, -1
	case p.next < 0, first > p.next+p.window, first < p.next-slack, p.goesBack(first):
		p.next, p.low, p.run, p.window = last+1, first, n, 0
		return 0, true
	case last >= p.next:
		p.window = min(max(2*p.window, 2*n, 4), maxWindow)
		if p.run >= 0 {
			p.run += last + 1 - p.next
			p.window = min(p.window, p.run/4)
		}
		p.next, p.low, p.back = last+1, first, 0
	}
	return p.window, false
}

// goesBack tells whether a read at block first is not the first in a row that
// lies before all of those since the reader last moved on.
func (p *prefetcher) goesBack(first int64) bool {
	if first >= p.low {
		return false
	}
	p.low = first
	p.back++
	return p.back > 1
}

// fetchAhead takes note of a read of blocks first to last by the reader p, which
// wants the window of blocks behind them; jumped says that it followed on none,
// and whole that the file is of a kind that is read whole. It returns a part of
// the file that the disk is to be told of. c.mu is held.
func (ct *content) fetchAhead(p *prefetcher, first, last, window int64, jumped, whole bool) (file *disk.File, from, to int64) {
	w := &ct.ahead.whole
	if jumped {
		w.jumps++
	}
	w.read += last - first + 1
	if whole || w.jumps >= distinctRegions || (w.jumps >= fewRegions && w.read >= manyRead) {
		ct.fill(last + 1)
	}
	kept := window
	if !ct.kept() { // memory alone must hold it until it is read
		window = min(window, ct.c.share())
	}
	if window > 0 {
		if p.at <= last || p.at > last+1+window {
			p.at = last + 1
		}
		p.end = min(last+1+window, disk.BlocksOf(ct.key.Size))
		ct.ahead.isLast(p)
	}
	ct.verifyAhead()
	ct.pump()
	return ct.willNeed(p, last+1, kept)
}

// isLast notes that p is the reader that read last.
func (a *prefetching) isLast(p *prefetcher) {
	if len(a.readers) > 0 && a.readers[0] == p {
		return
	}
	a.leave(p)
	a.readers = slices.Insert(a.readers, 0, p)
	a.readers = a.readers[:min(len(a.readers), maxReader)]
}

// leave forgets the window of a reader.
func (a *prefetching) leave(p *prefetcher) {
	if i := slices.Index(a.readers, p); i >= 0 {
		a.readers = slices.Delete(a.readers, i, i+1)
	}
}

// willNeed gives the part of the window of blocks from next on that lies on disk
// and is worth having in the system's page cache: the kernel's own read-ahead does
// not see that the reads of many handles, which come out of order, follow each
// other. c.mu is held.
func (ct *content) willNeed(p *prefetcher, next, window int64) (file *disk.File, from, to int64) {
	if window == 0 || p.needed > next+window {
		p.needed = 0
		return nil, 0, 0
	}
	from, to = max(p.needed, next), min(next+window, disk.BlocksOf(ct.key.Size))
	if to-from < min(window/2, maxUnit) {
		return nil, 0, 0
	}
	p.needed = to
	if first, _ := ct.onDisk(from); !first {
		return nil, 0, 0
	}
	if last, _ := ct.onDisk(to - 1); !last {
		return nil, 0, 0
	}
	return ct.store.file, from, to
}

// adapt makes the requests ahead larger where they are over fast, and smaller
// where a program that wants the last of their blocks would wait long. c.mu is
// held.
func (ct *content) adapt(f *fetch, took time.Duration) {
	switch a := &ct.ahead; {
	case f.urgent:
	case took < fastFetch:
		a.unit = min(2*a.unit, maxUnit)
	case took > slowFetch:
		a.unit = max(a.unit/2, 2)
	}
}

// fill has the whole content fetched, the head and the tail first: safetensors,
// zip, GGUF and parquet have their index there. Then it goes on behind the
// reader at block i. c.mu is held.
func (ct *content) fill(i int64) {
	w := &ct.ahead.whole
	if s := &ct.store; s.open && s.file.Complete() {
		w.was = true
		return
	}
	most := ct.c.opt.Fill
	if !ct.kept() {
		most = min(most, ct.c.opt.Memory/2)
	}
	if !w.filling && ct.key.Size <= most {
		w.filling, w.was, w.edges, w.wrapped = true, true, 0, false
		w.at, w.from = i, i
	}
}

// pump starts the fetches ahead that are wanted, as far as the content's share of
// parallel requests allows. c.mu is held.
func (ct *content) pump() {
	if ct.life.state == dead || ct.fetch.stream || !ct.fetch.ranged {
		return
	}
	for ct.fetch.ahead < ct.c.opt.Parallel {
		first, last, ok := ct.nextAhead()
		if !ok {
			return
		}
		ct.start(first, last, false)
	}
}

// nextAhead gives the blocks of the next fetch ahead: a run of missing ones.
// c.mu is held.
func (ct *content) nextAhead() (first, last int64, ok bool) {
	if w := &ct.ahead.whole; w.filling {
		if first, last, ok = ct.nextFill(); ok {
			return first, last, true
		}
		w.filling = false
	}
	for _, p := range ct.ahead.readers {
		if first, last, ok = ct.nextOf(p); ok {
			return first, last, true
		}
	}
	return 0, 0, false
}

// nextOf gives a run of missing blocks of a reader's window. c.mu is held.
func (ct *content) nextOf(p *prefetcher) (first, last int64, ok bool) {
	unit := min(max((p.end-p.next)/int64(ct.c.opt.Parallel), 2), ct.ahead.unit)
	for ; p.at < p.end; p.at++ {
		if !ct.missing(p.at) {
			continue
		}
		if p.end == disk.BlocksOf(ct.key.Size) {
			unit = ct.request(p.at, p.end, unit)
		} else if p.at != p.next && p.end-p.at < unit {
			return 0, 0, false // wait until a whole request's worth is missing
		}
		first = p.at
		p.at = min(p.at+unit, p.end)
		return first, p.at - 1, true
	}
	return 0, 0, false
}

// nextFill gives the next run of missing blocks of a content that is to come
// whole. c.mu is held.
func (ct *content) nextFill() (first, last int64, ok bool) {
	w := &ct.ahead.whole
	n := disk.BlocksOf(ct.key.Size)
	for ; w.edges < 2; w.edges++ {
		from, to := int64(0), min(edge, n)
		if w.edges == 1 {
			from, to = max(n-edge, 0), n
		}
		if first, last, ok = ct.firstMissing(from, to, edge); ok {
			return first, last, true
		}
	}
	for {
		end := n
		if w.wrapped {
			end = min(w.from, n)
		}
		rest := end // what is to come after it, on both ways
		if !w.wrapped {
			rest += min(w.from, n)
		}
		if first, last, ok = ct.firstMissing(w.at, end, ct.request(w.at, rest, ct.ahead.unit)); ok {
			w.at = last + 1
			return first, last, true
		}
		if w.wrapped {
			return 0, 0, false
		}
		w.at, w.wrapped = 0, true
	}
}

// request is how many blocks to ask for at once from block i on, of what is
// wanted before end: all connections are to be busy until the last has come.
func (ct *content) request(i, end, unit int64) int64 {
	return min(unit, max((end-i)/int64(ct.c.opt.Parallel), firstUnit))
}

// firstMissing is the first run of missing blocks of those before to, cut to
// most blocks.
func (ct *content) firstMissing(from, to, most int64) (first, last int64, ok bool) {
	for first = from; first < to; first++ {
		if ct.missing(first) {
			for last = first; last+1 < min(first+most, to) && ct.missing(last+1); {
				last++
			}
			return first, last, true
		}
	}
	return 0, 0, false
}
