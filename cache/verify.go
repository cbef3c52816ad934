package cache

import (
	"runtime"
	"slices"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// verifyAhead holds blocks on disk against their checksums before a program
// asks for them: those of the window, or all where the whole is wanted. Then
// a reader finds them right, and the next open may have the file itself
// ([File.Backing]). c.mu is held.
func (ct *content) verifyAhead() {
	if ct.ahead.verifying == verifiers || ct.life.refs == 0 {
		return
	}
	if _, ok := ct.nextUnverified(); !ok {
		return
	}
	ct.ahead.verifying++
	ct.begin()
	go func() {
		defer ct.end()
		if err := Guard(func() error {
			for ct.verifyNext() {
			}
			return nil
		}); err != nil {
			ct.c.mu.Lock()
			defer ct.c.mu.Unlock()
			ct.ahead.verifying--
		}
	}()
}

// verifiers is how many blocks of a content are verified ahead at once: a disk's file is
// read by several as fast as the disk, and one reads it as fast as it can hold it against
// its checksums.
var verifiers = min(runtime.GOMAXPROCS(0), 4)

// verifyNext verifies one block; false says that there is none left.
func (ct *content) verifyNext() bool {
	ct.c.mu.Lock()
	i, ok := ct.nextUnverified()
	if !ok || ct.life.state != open {
		ct.ahead.verifying--
		ct.c.mu.Unlock()
		return false
	}
	ct.ahead.claimed = append(ct.ahead.claimed, i)
	defer func() {
		ct.c.mu.Lock()
		defer ct.c.mu.Unlock()
		ct.ahead.claimed = slices.DeleteFunc(ct.ahead.claimed, func(claimed int64) bool { return claimed == i })
	}()
	ct.verifyAhead() // more of them, as long as there is something for each
	file := ct.store.file
	ct.c.mu.Unlock()
	if i%maxUnit == 0 {
		file.WillNeed(i*BlockSize, maxUnit*BlockSize)
	}
	if b, err := ct.verify(file, i); err == nil {
		ct.c.mu.Lock()
		ct.ahead.news(i)
		ct.c.release(b)
		ct.c.mu.Unlock()
	}
	return true
}

// nextUnverified is the next block to verify ahead. c.mu is held.
func (ct *content) nextUnverified() (int64, bool) {
	s, a := &ct.store, &ct.ahead
	if !s.open {
		return 0, false
	}
	free := func(i, end int64) int64 {
		for i = s.file.Unverified(i, end); i >= 0 && slices.Contains(a.claimed, i); {
			i = s.file.Unverified(i+1, end)
		}
		return i
	}
	i := int64(-1)
	if len(a.readers) > 0 {
		p := a.readers[0]
		i = free(p.next, p.end)
	}
	if i < 0 && a.whole.was {
		i = free(0, disk.BlocksOf(ct.key.Size))
	}
	return i, i >= 0
}
