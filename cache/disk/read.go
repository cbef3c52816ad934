package disk

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// Has tells whether block i is there and can be read now, and whether it was
// verified by this process.
func (f *File) Has(i int64) (there, good bool) {
	if !f.d.may(opRead) {
		return false, false
	}
	s := f.stateOf(i)
	return s.readable(), s == verified
}

func (f *File) stateOf(i int64) state {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, _ := f.blocks.get(i)
	return s
}

// GoodTo is the block behind the last of those from i on, and before end, that
// are there and verified.
func (f *File) GoodTo(i, end int64) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ; i < end; i++ {
		if s, _ := f.blocks.get(i); s != verified {
			break
		}
	}
	return i
}

// Unverified is the first block from i to before end that is there and was not
// verified, or -1.
func (f *File) Unverified(i, end int64) int64 {
	if !f.Kept() || !f.d.may(opRead) {
		return -1
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.blocks.unverified(i, min(end, BlocksOf(f.size)))
}

func (f *File) tally() tally {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.blocks.tally
}

// Complete tells whether every block is there.
func (f *File) Complete() bool { return f.tally().readable == BlocksOf(f.size) }

// Bytes is how much of the content is there.
func (f *File) Bytes() int64 {
	n := f.tally().readable * BlockSize
	last := BlocksOf(f.size) - 1
	if f.stateOf(last).readable() {
		n -= BlockSize - BlockLen(f.size, last)
	}
	return n
}

// Memory is the bytes that what is known of the file takes, open or closed.
func (f *File) Memory() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.blocks.bytes()
}

// ReadNow reads what the system has in memory of verified blocks, waits for no
// disk, and returns how much that is.
func (f *File) ReadNow(p []byte, off int64) int { return readNow(f.data, p, off) }

// ReadAt reads from verified blocks. released is called once p is used no more,
// which may be after ReadAt has returned. A failure takes the block at off out.
func (f *File) ReadAt(p []byte, off int64, released func()) error {
	before := f.writes()
	err := f.d.tryWith(opRead, released, func() error {
		_, err := f.data.ReadAt(p, off)
		return err
	})
	f.failed(off/BlockSize, err, before)
	return err
}

// Verify reads block i whole into p, and holds it against its checksum.
func (f *File) Verify(i int64, p []byte, released func()) error {
	f.mu.Lock()
	_, sum := f.blocks.get(i)
	before := f.written
	f.mu.Unlock()
	err := f.d.tryWith(opRead, released, func() error {
		_, err := f.data.ReadAt(p, i*BlockSize)
		if err == nil && Sum(p) != sum {
			err = ErrDamaged
		}
		return err
	})
	f.failed(i, err, before)
	f.mu.Lock()
	defer f.mu.Unlock()
	if s, now := f.blocks.get(i); err == nil && s.readable() && now == sum {
		f.blocks.set(i, verified, sum)
	}
	return err
}

// failed takes a block out that is not what was written, or can't be read: it is
// a miss from now on, and is written anew. A disk that hangs, and what concerns
// the process, says nothing of the block; nor does what was read while something was
// written, so that written was another number before: the block may be mended by now.
func (f *File) failed(i int64, err error, written int) {
	if err == nil || err == errResting || (concerns(err) != thisFile && !errors.Is(err, syscall.EIO)) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.written == written {
		f.forget(i)
	}
}

func (f *File) writes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.written
}

// Forget takes block i for one that is not there, until it is written anew: it
// can't be read.
func (f *File) Forget(i int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forget(i)
}

// forget is Forget; f.mu is held.
func (f *File) forget(i int64) {
	if s, sum := f.blocks.get(i); !f.closed && s.readable() {
		f.blocks.set(i, damaged, sum)
	}
}

// IsDamage tells whether err says that what is on disk is not what was written.
func IsDamage(err error) bool { return errors.Is(err, ErrDamaged) || errors.Is(err, io.EOF) }

// Refresh takes up what other processes have brought of n blocks from i on.
func (f *File) Refresh(i, n int64) {
	if !f.Kept() {
		return
	}
	found, _ := do(f.d, opRead, func() (blocks, error) { return f.readMarks(f.record, i, n) }, nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blocks.merge(&found)
}

// WillNeed has the system read part of the file from the disk, behind the caller.
func (f *File) WillNeed(off, n int64) {
	go f.d.try(opRead, func() error { // it waits for a disk that hangs
		willNeed(f.data, off, n)
		return nil
	})
}

// Whole tells whether every block is there, and was written by this process or
// verified.
func (f *File) Whole() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Kept() && !f.closed && f.blocks.verified == BlocksOf(f.size)
}

// Backing gives the file that holds the whole content, every block of which was
// written by this process or verified; nil while there is none. It stays as it
// is, and open until Close.
func (f *File) Backing() *os.File {
	if !f.Whole() || !f.d.may(opRead) {
		return nil
	}
	if st, err := f.stat(); err != nil || st.Size() != f.size {
		return nil // somebody has cut it
	}
	return f.data
}
