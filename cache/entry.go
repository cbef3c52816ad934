package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// entry is one content on disk: a sparse file of the content's size, and
// beside it a record.
//
// The record begins with a head of headSize bytes that names the content and
// ends in a CRC32C of itself. For each block follow eight bytes: the CRC32C of
// the block's bytes, and a CRC32C over that, the block's index and the
// content's name. They are written after the block's bytes, and a block counts
// only when both hold: whatever a crash, a power loss or another hand leaves
// there is a block less, and no wrong byte. So nothing needs an fsync.
//
// An entry of no directory is an unlinked temporary file without a record.
//
// Its methods do the I/O and take no lock; what is known of its blocks (have,
// good, sums) is guarded by Cache.mu, once the entry is a content's.
type entry struct {
	d         *Disk // nil: of no directory
	name      string
	size      int64
	validator string // of the origin's answers, or empty

	entryFiles
	id fileID

	have bitset   // blocks that are there
	good bitset   // of these, those that this process wrote or has held against their sums
	bad  bitset   // blocks whose bytes were found not to be what the record says
	sums []uint32 // CRC32C of the blocks in have
	n    int64    // len(have)
}

// entryFiles are the open files of an entry; nil while they are closed.
type entryFiles struct{ data, record *os.File }

const (
	headSize     = 512
	recordMagic  = "mlflowfs 1\n"
	maxValidator = 300 // bytes
)

// health is that of the entry's disk; nil where it is of no directory.
func (e *entry) health() *health {
	if e.d == nil {
		return nil
	}
	return e.d.health
}

// fileID is what a file is known again by.
type fileID struct {
	dev, ino uint64
	mtime    time.Time
}

func idOf(f *os.File) (id fileID) {
	if st, err := f.Stat(); err == nil {
		id.mtime = st.ModTime()
		if s, ok := st.Sys().(*syscall.Stat_t); ok {
			id.dev, id.ino = uint64(s.Dev), s.Ino
		}
	}
	return id
}

func blocksOf(size int64) int64 { return (size + BlockSize - 1) / BlockSize }

// open opens the entry of a content, or returns nil where there is none. An
// unfinished entry whose origin gives no validator is none: nothing can tell
// that what is missing would be of the same content.
func (d *Disk) open(key Key) (*entry, error) {
	name := d.name(key)
	e := &entry{d: d, name: name, size: key.Size}
	var err error
	if e.record, err = os.OpenFile(d.path(name)+recordExt, os.O_RDWR, 0); err != nil {
		return nil, ignoreMissing(err)
	}
	if e.data, err = os.OpenFile(d.path(name), os.O_RDWR, 0); err != nil {
		e.record.Close()
		return nil, ignoreMissing(err)
	}
	ok, err := e.load()
	if err != nil || !ok || (key.Version == "" && e.validator == "" && e.n < blocksOf(e.size)) {
		e.data.Close()
		e.record.Close()
		return nil, err
	}
	d.use(name, 1)
	now := time.Now()
	os.Chtimes(e.record.Name(), now, now) // used now
	return e, nil
}

// create makes the entry of a content, or opens that which another process
// has made meanwhile.
func (d *Disk) create(key Key, validator string) (e *entry, err error) {
	if len(validator) > maxValidator {
		return nil, errors.New("its validator is too long for a record")
	}
	if !d.reserve(headSize+8*blocksOf(key.Size), false) {
		return nil, errNoRoom
	}
	err = d.locked(func() error {
		if e, err = d.open(key); e != nil || err != nil {
			return err
		}
		name := d.name(key)
		p := d.path(name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			return err
		}
		// Never into a file that somebody may have open.
		for _, f := range []string{p + recordExt, p} {
			if err := ignoreMissing(os.Remove(f)); err != nil {
				return err
			}
		}
		e = &entry{d: d, name: name, size: key.Size, validator: validator}
		return e.make(p)
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

var errNoRoom = errors.New("the cache's disk has no room for it")

// make makes the files of an entry.
func (e *entry) make(p string) (err error) {
	if e.data, err = os.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err = e.data.Truncate(e.size); err == nil {
		e.record, err = os.OpenFile(p+recordExt, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	}
	if err == nil {
		_, err = e.record.WriteAt(e.head(), 0)
	}
	if err != nil {
		e.data.Close()
		if e.record != nil {
			e.record.Close()
		}
		return err
	}
	e.sums = make([]uint32, blocksOf(e.size))
	e.id = idOf(e.data)
	e.d.use(e.name, 1)
	return nil
}

// anonymous makes an entry of no directory.
func anonymous(dir string, size int64) (*entry, error) {
	f, err := os.CreateTemp(dir, ".mlflowfs-stream-*")
	if err != nil {
		return nil, err
	}
	// Unlinked at once: nothing is left behind, whatever ends the process.
	if err = os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return &entry{size: size, entryFiles: entryFiles{data: f}, sums: make([]uint32, blocksOf(size))}, nil
}

func (e *entry) head() []byte {
	b := make([]byte, headSize)
	n := copy(b, recordMagic)
	n += copy(b[n:], e.name)
	binary.BigEndian.PutUint64(b[n:], uint64(e.size))
	binary.BigEndian.PutUint32(b[n+8:], BlockSize)
	binary.BigEndian.PutUint16(b[n+12:], uint16(len(e.validator)))
	copy(b[n+14:], e.validator)
	binary.BigEndian.PutUint32(b[headSize-4:], crc32.Checksum(b[:headSize-4], castagnoli))
	return b
}

// load reads the record; false where it is none of this content. An error is
// the disk's.
func (e *entry) load() (bool, error) {
	b := make([]byte, headSize+8*blocksOf(e.size))
	if n, err := e.record.ReadAt(b, 0); err != nil && err != io.EOF {
		return false, err
	} else if n < headSize {
		return false, nil
	}
	at := len(recordMagic) + len(e.name) + 12
	n := int(binary.BigEndian.Uint16(b[at:]))
	if n > maxValidator {
		return false, nil
	}
	e.validator = string(b[at+2 : at+2+n])
	if string(b[:headSize]) != string(e.head()) {
		return false, nil
	}
	if st, err := e.data.Stat(); err != nil || st.Size() != e.size {
		return false, nil
	}
	e.sums = make([]uint32, blocksOf(e.size))
	for i := range e.sums {
		e.noted(int64(i), b[headSize+8*i:])
	}
	e.id = idOf(e.data)
	return true, nil
}

// noted takes what the record says of block i.
func (e *entry) noted(i int64, mark []byte) {
	if sum := binary.BigEndian.Uint32(mark); !e.have.has(i) && !e.bad.has(i) && binary.BigEndian.Uint32(mark[4:]) == e.check(i, sum) {
		e.have.set(i)
		e.sums[i] = sum
		e.n++
	}
}

func (e *entry) check(i int64, sum uint32) uint32 {
	var b [12]byte
	binary.BigEndian.PutUint32(b[:], sum)
	binary.BigEndian.PutUint64(b[4:], uint64(i))
	c := crc32.Update(crc32.Checksum(b[:], castagnoli), castagnoli, []byte(e.name))
	return c | 1 // never what a hole reads as
}

// marks reads what a record says of n blocks from i on: another process may
// have brought some.
func marks(record *os.File, i, n int64) []byte {
	b := make([]byte, 8*n)
	if _, err := record.ReadAt(b, headSize+8*i); err != nil && err != io.EOF {
		return nil
	}
	return b
}

func blockLen(size, i int64) int64 { return min(BlockSize, size-i*BlockSize) }

// write writes block i to the entry's files, and then its mark. An entry that another process has
// evicted takes no more, as if there were no room, unless it is forced: its
// bytes would count for nobody.
func (e *entry) write(to entryFiles, i int64, data []byte, sum uint32, force bool) error {
	if e.d != nil && ((!force && unlinked(to.data)) || !e.d.reserve(int64(len(data)), force)) {
		return errNoRoom
	}
	if _, err := to.data.WriteAt(data, i*BlockSize); err != nil {
		return err
	}
	if to.record == nil {
		return nil
	}
	var b [8]byte
	binary.BigEndian.PutUint32(b[:], sum)
	binary.BigEndian.PutUint32(b[4:], e.check(i, sum))
	_, err := to.record.WriteAt(b[:], headSize+8*i)
	return err
}

func unlinked(f *os.File) bool {
	st, err := f.Stat()
	if err != nil {
		return false // the write tells
	}
	s, ok := st.Sys().(*syscall.Stat_t)
	return ok && s.Nlink == 0
}

// wrote notes a block of this process's own. Cache.mu is held.
func (e *entry) wrote(i int64, sum uint32) {
	if !e.have.has(i) {
		e.n++
	}
	e.have.set(i)
	e.good.set(i)
	e.bad.clear(i)
	e.sums[i] = sum
}

// errDamagedBlock says that a block is not what was written.
var errDamagedBlock = errors.New("a block of the disk cache does not match its checksum")

// read reads block i whole from data, the entry's file, and holds it against
// its sum.
func (e *entry) read(data *os.File, i int64, p []byte, sum uint32) error {
	if _, err := data.ReadAt(p, i*BlockSize); err != nil {
		return err
	}
	if crc32.Checksum(p, castagnoli) != sum {
		return fmt.Errorf("%w (block %d of %s)", errDamagedBlock, i, e.name)
	}
	return nil
}

// forget takes block i out: it is fetched again. Cache.mu is held.
func (e *entry) forget(i int64) {
	if e.have.has(i) {
		e.n--
	}
	e.have.clear(i)
	e.good.clear(i)
	e.bad.set(i)
}

// whole tells whether every block is there and is known to be right. Cache.mu
// is held.
func (e *entry) whole() bool {
	return e.n == blocksOf(e.size) && e.good.count() == e.n
}

// bytes is how much is there.
func (e *entry) bytes() int64 {
	n := e.n * BlockSize
	if last := blocksOf(e.size) - 1; e.have.has(last) {
		n -= BlockSize - blockLen(e.size, last)
	}
	return n
}

// detach gives the files, for closing. What is known of the blocks stays
// known, for [entry.knows].
func (e *entry) detach() (files []*os.File) {
	if e.data != nil && e.d != nil {
		e.id = idOf(e.data)
		e.d.use(e.name, -1)
	}
	for _, f := range []**os.File{&e.data, &e.record} {
		if *f != nil {
			files = append(files, *f)
			*f = nil
		}
	}
	return files
}

// close lets go of the files of an entry that is no content's.
func (e *entry) close() {
	for _, f := range e.detach() {
		f.Close()
	}
}

// knows takes over what an entry of this process knew of the same file, if
// nobody has written to it since.
func (e *entry) knows(old *entry) {
	if old != nil && old.id == e.id {
		e.good = old.good
	}
}
