package cache

import (
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// home keeps the files of contents: a directory of the cache, or the file that a
// download makes.
type home interface {
	Find(key disk.Key) (*disk.File, error) // nil where there is nothing of it
	Create(key disk.Key, validator string) (*disk.File, error)
	Takes() bool // now
}

var (
	_ home = (*disk.Dir)(nil)
	_ home = (*disk.Part)(nil)
)

// blockStore is what is resident of a content: blocks in memory, and those of
// its file on disk. Guarded by Cache.mu, but for opening.
type blockStore struct {
	opening sync.Mutex // held while the file is opened, made or closed; before Cache.mu

	blocks   int              // in memory, in the LRU
	writing  map[int64]*block // landed, and on their way to the disk; held by their run
	file     *disk.File       // nil: none
	open     bool             // file is open; it is closed while nobody has the content open
	attached bool             // file was looked for since somebody has the content open
	refused  error            // why the home takes no more of it
	known    bool             // something was read of the content: the kernel may have it
	damaged  bool             // which was said
}

// onDisk tells whether block i is on disk, where it can be read now, and
// whether it was verified. c.mu is held.
func (ct *content) onDisk(i int64) (there, good bool) {
	if !ct.store.open {
		return false, false
	}
	return ct.store.file.Has(i)
}

// inMemory gives block i if it is in memory, or nil. c.mu is held.
func (ct *content) inMemory(i int64) *block {
	if b, ok := ct.c.blocks.Get(blockKey{ct, i}); ok {
		return b
	}
	return ct.store.writing[i]
}

// resident tells whether block i is in memory or on disk. c.mu is held.
func (ct *content) resident(i int64) bool {
	there, _ := ct.onDisk(i)
	return there || ct.c.blocks.Has(blockKey{ct, i}) || ct.store.writing[i] != nil
}

// dropBlocks forgets what is in memory of the content. c.mu is held.
func (ct *content) dropBlocks() {
	if ct.store.blocks == 0 {
		return
	}
	for _, k := range ct.c.blocks.Keys() { // memory bounds them, and nothing the content's blocks
		if k.of == ct {
			ct.c.blocks.Remove(k)
		}
	}
}

// kept tells whether the disk takes what comes: more than memory holds may then
// be fetched before it is read. c.mu is held.
func (ct *content) kept() bool {
	return ct.home != nil && ct.life.keep && ct.store.refused == nil && ct.home.Takes()
}

// attach opens what the disk has of the content. False says that this is of
// another content than what is known of this one in memory, or that this one is
// out of the cache: the caller lets go of it, and begins anew.
func (ct *content) attach() bool {
	if !ct.life.keep || ct.key.Size == 0 {
		return true
	}
	s := &ct.store
	s.opening.Lock()
	defer s.opening.Unlock()
	ct.c.mu.Lock()
	old, open, gone, in := s.file, s.open, ct.life.state == dead, s.attached
	ct.c.mu.Unlock()
	if gone || in {
		return !gone
	}
	if open && old.Current() { // something still comes to it
		ct.c.mu.Lock()
		defer ct.c.mu.Unlock()
		s.attached = true
		return true
	}
	var f *disk.File
	if ct.home != nil {
		f, _ = ct.home.Find(disk.Key(ct.key)) // what can't be opened is as if it were not there
	}
	if f != nil {
		f.CarryOver(old)
	}
	ct.c.mu.Lock()
	same := ct.meets(f)
	close := f
	if same {
		s.refused, s.attached = nil, true
		if close = nil; s.open {
			close = s.file
		}
		s.file, s.open = f, f != nil
		s.known = s.known || f != nil
		if f != nil && ct.validator == "" {
			ct.validator = f.Validator()
		}
	}
	ct.c.mu.Unlock()
	if close != nil {
		close.Close()
	}
	return same
}

// meets compares what the disk has of the content, which may be nothing, with
// what is known of it: that has the validator of the answers, and the nonce of
// the file that it was attached to. It is the one place where the two meet.
// c.mu is held.
func (ct *content) meets(f *disk.File) bool {
	s := &ct.store
	switch {
	case !s.known && ct.fetch.running == 0 && !ct.fetch.stream:
		return true // nothing was read yet, nor is on its way
	case f != nil && s.file != nil && f.Nonce() == s.file.Nonce():
		return true
	case ct.validator == "":
		// Nothing tells what is in memory from what would come to it, unless it is
		// all of the content. A body that comes whole is compared with it.
		return f == nil && (s.file == nil || !s.file.Kept()) && !ct.unsure()
	case f == nil:
		return true // what comes is held against the validator
	}
	return f.Validator() == ct.validator || (f.Validator() == "" && ct.key.Version != "")
}

// verify reads a block of the disk that this process has not held against its
// checksum, and keeps it in memory.
func (ct *content) verify(f *disk.File, i int64) (*block, error) {
	b := ct.c.buffer(ct.blockLen(i))
	if err := f.Verify(i, b.data, ct.c.hold(b)); err != nil {
		ct.c.releaseUnlocked(b)
		ct.lost(err)
		return nil, err
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	if ct.life.state != dead {
		ct.c.add(ct, i, b)
	}
	return b, nil
}

// readDisk reads verified blocks: at once where the system has them in memory,
// else by way of a buffer, so that a disk that does not answer keeps none of the
// reader's. It returns how many bytes.
func (ct *content) readDisk(f *disk.File, p []byte, off int64) (int, error) {
	if n := f.ReadNow(p, off); n > 0 {
		return n, nil
	}
	p = p[:min(len(p), BlockSize)]
	b := ct.c.buffer(BlockSize)
	defer ct.c.releaseUnlocked(b)
	err := f.ReadAt(b.data[:len(p)], off, ct.c.hold(b))
	return copy(p, b.data[:len(p)]), err
}

// lost notes that a block could not be read from the disk. The reader asks
// again, and finds it elsewhere.
func (ct *content) lost(err error) {
	if !disk.IsDamage(err) {
		return
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	if !ct.store.damaged {
		ct.store.damaged = true
		ct.c.did.damaged.Add(1)
		ct.c.opt.Log.Warn("a file in the disk cache is damaged; what is wrong in it is fetched again", "err", err)
	}
}

// landed is blocks that have come, follow each other, and are to be written
// together.
type landed struct {
	first  int64
	blocks []*block // each held, and in blockStore.writing
	sums   []uint32
	since  time.Time // when the first of them came
}

// gatherFor is how long blocks that have come wait for others, to be written with
// them: what a kill loses of a slow origin's.
const gatherFor = 250 * time.Millisecond

// full tells whether the blocks are to be written, and not to wait for others.
func (l *landed) full() bool {
	return len(l.blocks) >= disk.RunBlocks || (len(l.blocks) > 0 && time.Since(l.since) >= gatherFor)
}

// add takes block i, which follows the others, and is in the hands of the
// caller. c.mu is held.
func (l *landed) add(ct *content, i int64, b *block, sum uint32) {
	switch {
	case len(l.blocks) == 0:
		l.first, l.since = i, time.Now()
	case i != l.first+int64(len(l.blocks)):
		panic("blocks that do not follow each other") // they would be written in each other's place
	}
	b.refs++
	ct.store.writing[i] = b
	l.blocks = append(l.blocks, b)
	l.sums = append(l.sums, sum)
}

// write has l written to the disk, where there is one and room in it, behind
// the caller. must says that it has to succeed: nothing else keeps the blocks.
// The channel gets the error; nobody has to wait for it. l is empty afterwards.
func (ct *content) write(l *landed, must bool) <-chan error {
	done := make(chan error, 1)
	run := *l
	*l = landed{}
	file := ct.fileToWrite()
	if file == nil || len(run.blocks) == 0 {
		ct.release(run)
		done <- nil
		return done
	}
	data := make([][]byte, len(run.blocks))
	for k, b := range run.blocks {
		data[k] = b.data
	}
	ct.c.mu.Lock()
	ct.begin()
	ct.c.mu.Unlock()
	file.Write(disk.Run{
		First: run.first, Data: data, Sums: run.sums, Force: must,
		Released: func() { ct.release(run) },
		Written: func(err error) {
			defer func() { go ct.end() }() // it may wait for this file
			if err != nil && file.Kept() {
				ct.without(err)
				if must {
					err = errElsewhere // what a directory can't take, a temporary file may
				}
			}
			done <- err
		},
	})
	return done
}

// release gives up what a run holds.
func (ct *content) release(run landed) {
	ct.c.mu.Lock()
	for k, b := range run.blocks {
		if i := run.first + int64(k); ct.store.writing[i] == b {
			delete(ct.store.writing, i)
		}
		ct.c.release(b)
	}
	ct.c.mu.Unlock()
}

// without goes on with no disk for this content, or, where the disk rests, for
// as long as it does.
func (ct *content) without(err error) {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	ct.ahead.whole.filling = false
	if !errors.Is(err, fs.ErrClosed) && ct.home.Takes() {
		ct.store.refused = err
	}
}

// fileToWrite is the content's file, which is made where it has none; nil where
// it can have none.
func (ct *content) fileToWrite() *disk.File {
	s := &ct.store
	s.opening.Lock()
	defer s.opening.Unlock()
	ct.c.mu.Lock()
	f, validator := s.file, ct.validator
	open, none := s.open, ct.life.state == dead || !ct.kept()
	ct.c.mu.Unlock()
	if open && (!none || !f.Kept()) {
		return f
	}
	if none || open {
		return nil
	}
	if validator == ct.key.Version {
		validator = "" // it is in the name
	}
	f, err := ct.home.Create(disk.Key(ct.key), validator)
	if err == nil && f.Kept() && f.Bytes() > 0 && validator == "" && ct.key.Version == "" {
		// Another process has just kept it, and nothing tells whether it is the same.
		f.Close()
		err = disk.ErrGone
	}
	if err != nil {
		ct.without(err)
		return nil
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	s.file, s.open = f, true
	return f
}

// ensureFile sees to it that the content has a file: one of the disk, or a
// temporary one.
func (ct *content) ensureFile() error {
	if ct.fileToWrite() != nil {
		return nil
	}
	f, err := disk.Temp(ct.c.opt.TempDir, ct.key.Size)
	if err != nil {
		return err
	}
	s := &ct.store
	s.opening.Lock()
	defer s.opening.Unlock()
	ct.c.mu.Lock()
	old, open := s.file, s.open
	s.file, s.open = f, true
	ct.c.mu.Unlock()
	if open {
		old.Close() // who writes to it ends first
	}
	return nil
}
