package cache

import "context"

// What has come and nobody has asked for can be pushed into the kernel's page
// cache, so that it never asks.

// Wake has w called when blocks have come that nobody has asked for yet; see
// [File.Fresh]. w must not wait, nor call the File. One handle of a content is
// served, the last that asked.
func (f *File) Wake(w func()) {
	f.ct.c.mu.Lock()
	defer f.ct.c.mu.Unlock()
	f.ct.ahead.wake = w
}

// Fresh gives bytes that have come and that nobody has asked for yet: as many
// blocks that follow each other as p holds. Each is given once; n is 0 where
// there is none.
func (f *File) Fresh(p []byte) (n int, off int64) {
	ct := f.ct
	ct.c.mu.Lock()
	first, last := ct.ahead.takeFresh(&f.reader, int64(len(p)/BlockSize))
	ct.c.mu.Unlock()
	if first < 0 {
		return 0, 0
	}
	off = first * BlockSize
	want := int(min((last+1)*BlockSize, f.Size()) - off)
	for n < want {
		m, ok := ct.readHere(p[n:want], off+int64(n), last)
		if !ok {
			break
		}
		n += m
	}
	return n, off
}

// readHere is content.read of what is resident and right.
func (ct *content) readHere(p []byte, off, last int64) (int, bool) {
	i := off / BlockSize
	ct.c.mu.Lock()
	_, good := ct.onDisk(i)
	here := ct.life.err == nil && (ct.inMemory(i) != nil || good)
	ct.c.mu.Unlock()
	if !here {
		return 0, false
	}
	n, err := ct.read(context.Background(), p, off, last, false)
	return n, err == nil
}

// news tells of block i, which is here and which nobody has asked for. Who reads in
// order has the kernel's own read-ahead, for which a push is a copy more.
func (a *prefetching) news(i int64) {
	if a.wake != nil && a.whole.was && a.whole.jumps > 0 {
		a.fresh.set(i)
		a.wake()
	}
}

// vicinity is how many blocks behind a reader are not worth pushing: it asks for
// them before long, and a page that it waits for is not to be waited for by who
// pushes.
const vicinity = 8

// takeFresh takes up to most blocks that follow each other out of the fresh ones,
// those that the reader wants next first; first is -1 where there is none.
func (a *prefetching) takeFresh(p *prefetcher, most int64) (first, last int64) {
	near := max(p.next, 0)
	for i := near; i < near+vicinity; i++ {
		a.fresh.clear(i)
	}
	if first = a.fresh.next(near); first < 0 {
		first = a.fresh.next(0)
	}
	last = first
	if first < 0 {
		return first, last
	}
	for last+1-first < most && a.fresh.has(last+1) {
		last++
	}
	for i := first; i <= last; i++ {
		a.fresh.clear(i)
	}
	return first, last
}
