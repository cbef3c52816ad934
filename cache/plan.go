package cache

import (
	"time"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// plan is what of a content is worth having before it is asked for: the window
// of a reader that goes on, or all of it. Guarded by Cache.mu.
type plan struct {
	next, end int64 // the window of the reader that read last: blocks from next, before end

	jumps   int   // reads that followed on none
	read    int64 // blocks read, however often
	filling bool  // all of it is to come
	whole   bool  // it was once: the kernel is worth telling of what comes
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
	places    = 4   // reads in so many places say that a file is read whole,
	fewPlaces = 2   // or in so many,
	manyRead  = 8   // of so many blocks
	fastFetch = 150 * time.Millisecond
	slowFetch = 600 * time.Millisecond
)

// adapt makes the requests ahead larger where they are over fast, and smaller
// where a program that wants the last of their blocks would wait long. c.mu is
// held.
func (ct *content) adapt(f *fetch, took time.Duration) {
	switch {
	case f.urgent:
	case took < fastFetch:
		ct.unit = min(2*ct.unit, maxUnit)
	case took > slowFetch:
		ct.unit = max(ct.unit/2, 2)
	}
}

// fill has the whole content fetched, the head and the tail first: safetensors,
// zip, GGUF and parquet have their index there. Then it goes on behind the
// reader at block i. c.mu is held.
func (ct *content) fill(i int64) {
	if s := &ct.store; s.open && s.file.Complete() {
		ct.plan.whole = true
		return
	}
	most := ct.c.opt.Fill
	if !ct.kept() {
		most = min(most, ct.c.opt.Memory/2)
	}
	if !ct.plan.filling && ct.key.Size <= most {
		ct.plan.filling, ct.plan.whole, ct.plan.edges, ct.plan.wrapped = true, true, 0, false
		ct.plan.at, ct.plan.from = i, i
	}
}

// pump starts the fetches ahead that the plan wants, as far as the content's
// share of parallel requests allows. c.mu is held.
func (ct *content) pump() {
	if ct.err != nil || ct.gone || ct.stream != nil || !ct.ranged {
		return
	}
	for ct.aheads < ct.c.opt.Parallel {
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
	p := &ct.plan
	if p.filling {
		if first, last, ok = ct.nextFill(); ok {
			return first, last, true
		}
		p.filling = false
	}
	if ct.refs == 0 {
		return 0, 0, false
	}
	unit := min(max((p.end-p.next)/int64(ct.c.opt.Parallel), 2), ct.unit)
	end := min(p.end, disk.BlocksOf(ct.key.Size))
	for i := p.next; i < end; i++ {
		if !ct.missing(i) {
			continue
		}
		if end == disk.BlocksOf(ct.key.Size) {
			unit = ct.request(i, end, unit)
		} else if i != p.next && end-i < unit {
			return 0, 0, false // wait until a whole request's worth is missing
		}
		return i, min(i+unit, end) - 1, true
	}
	return 0, 0, false
}

func (ct *content) nextFill() (first, last int64, ok bool) {
	p := &ct.plan
	n := disk.BlocksOf(ct.key.Size)
	for ; p.edges < 2; p.edges++ {
		from, to := int64(0), min(edge, n)
		if p.edges == 1 {
			from, to = max(n-edge, 0), n
		}
		if first, last, ok = ct.firstMissing(from, to, edge); ok {
			return first, last, true
		}
	}
	for {
		end := n
		if p.wrapped {
			end = min(p.from, n)
		}
		rest := end // what is to come after it, on both ways
		if !p.wrapped {
			rest += min(p.from, n)
		}
		if first, last, ok = ct.firstMissing(p.at, end, ct.request(p.at, rest, ct.unit)); ok {
			p.at = last + 1
			return first, last, true
		}
		if p.wrapped {
			return 0, 0, false
		}
		p.at, p.wrapped = 0, true
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

// ahead takes note of a read of blocks first to last, by a reader that wants
// the window of blocks behind them; jumped says that it followed on none, and
// whole that the file is of a kind that is read whole.
func (ct *content) ahead(first, last, window int64, jumped, whole bool) {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	p := &ct.plan
	if jumped {
		p.jumps++
	}
	p.read += last - first + 1
	if whole || p.jumps >= places || (p.jumps >= fewPlaces && p.read >= manyRead) {
		ct.fill(last + 1)
	}
	if !ct.kept() { // memory alone must hold it until it is read
		window = min(window, ct.c.share())
	}
	if window > 0 {
		p.next, p.end = last+1, last+1+window
	}
	ct.verifyAhead()
	ct.pump()
}

// verifyAhead holds blocks on disk against their checksums before a program
// asks for them: those of the window, or all where the whole is wanted. Then
// a reader finds them right, and the next open may have the file itself
// ([File.Backing]). c.mu is held.
func (ct *content) verifyAhead() {
	if ct.verifying || ct.refs == 0 {
		return
	}
	if _, ok := ct.nextUnverified(); !ok {
		return
	}
	ct.verifying = true
	ct.fetches++ // its file stays open
	ct.c.running.Add(1)
	go func() {
		defer ct.c.running.Done()
		for ct.verifyNext() {
		}
		ct.settle()
	}()
}

// verifyNext verifies one block; false says that there is none left.
func (ct *content) verifyNext() bool {
	ct.c.mu.Lock()
	i, ok := ct.nextUnverified()
	if !ok || ct.refs == 0 || ct.err != nil {
		ct.verifying = false
		ct.fetches--
		ct.c.mu.Unlock()
		return false
	}
	file := ct.store.file
	ct.c.mu.Unlock()
	if i%maxUnit == 0 {
		file.WillNeed(i*BlockSize, maxUnit*BlockSize)
	}
	if b, err := ct.verify(file, i); err == nil {
		ct.c.mu.Lock()
		ct.news(i)
		ct.c.release(b)
		ct.c.mu.Unlock()
	}
	return true
}

// nextUnverified is the next block to verify ahead. c.mu is held.
func (ct *content) nextUnverified() (int64, bool) {
	s, p := &ct.store, &ct.plan
	if !s.open {
		return 0, false
	}
	end := p.end
	if p.whole {
		end = disk.BlocksOf(ct.key.Size)
	}
	i := s.file.Unverified(p.next, end)
	if i < 0 && p.whole {
		i = s.file.Unverified(0, end)
	}
	return i, i >= 0
}
