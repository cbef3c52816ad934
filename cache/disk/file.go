package disk

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"sync"
	"syscall"
	"time"
)

// File is one content on disk, open. Its methods may be called by many at once,
// and beside Close.
type File struct {
	d *Dir // nil: of no directory
	label
	data, record *os.File // record is nil where nobody takes the file up

	mu      sync.Mutex // guards what follows; no other lock is taken under it, but by CarryOver
	blocks  blocks
	written int // writes that have ended well
	closed  bool
	left    time.Time // when the file was last written to, as of Close
	writer  writer
}

func newFile(d *Dir, l label) *File {
	f := &File{d: d, label: l}
	f.writer.drained.L = &f.mu
	return f
}

// Find opens what there is of a content; nil where there is nothing. An
// unfinished one whose origin gives no validator is nothing: nothing can tell
// that what is missing would be of the same content.
func (d *Dir) Find(key Key) (*File, error) { return d.find(key, true) }

// find is Find. used says that it counts as a use of the content.
func (d *Dir) find(key Key, used bool) (*File, error) {
	f, err := do(d, opOpen, func() (*File, error) { return d.open(key) }, func(f *File) {
		if f != nil {
			f.Close()
		}
	})
	if f == nil || err != nil {
		return nil, err
	}
	// What answers no stat is read all the same: each block has its checksum.
	err = d.try(opStat, func() error {
		st, err := f.data.Stat()
		if err == nil && st.Size() > f.size {
			return ErrDamaged
		}
		if err == nil && used {
			err = f.touch()
		}
		return err
	})
	if err == ErrDamaged {
		f.Close()
		return nil, nil
	}
	return f, nil
}

func (d *Dir) open(key Key) (*File, error) {
	f := newFile(d, label{name: d.name(key)})
	found, err := f.load(d.root, f.name.record(), (*label).data, key.Size)
	found = found && (f.validator != "" || key.Version != "" || f.Complete())
	if err != nil || !found {
		f.closeFiles()
		return nil, ignoreMissing(err)
	}
	d.use(f.name, 1)
	return f, nil
}

// load reads a record, and opens the file that it is of, which has the name that
// data gives; false where it is no record of the content.
func (f *File) load(root *os.Root, record string, data func(*label) string, size int64) (found bool, err error) {
	if f.record, err = root.OpenFile(record, os.O_RDWR, 0); err != nil {
		return false, err
	}
	l, err := readLabel(f.record, f.name)
	if err != nil || l == nil || l.size != size {
		return false, err
	}
	f.label = *l
	f.data, err = root.OpenFile(data(l), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) { // it is somebody's read-only file, too
		f.data, err = root.Open(data(l))
	}
	if err != nil {
		return false, err
	}
	f.blocks, err = l.readMarks(f.record, 0, BlocksOf(size))
	return err == nil, err
}

// maxSize is that of the largest content that is kept, in bytes: its record has
// 64 MiB.
const maxSize = 1 << 40

// Create makes the files of a content, in the place of what there is, unless
// that has the same validator, as another process may just have made it: then
// it opens those. The validator is the origin's, or empty.
func (d *Dir) Create(key Key, validator string) (*File, error) {
	if len(validator) > maxValidator {
		return nil, errors.New("its validator is too long for a record")
	}
	if key.Size > maxSize {
		return nil, ErrNoRoom
	}
	for try := range 4 { // another process may be as fast
		old, err := d.Find(key)
		switch {
		case err != nil || (old != nil && old.validator == validator):
			return old, err
		case old != nil:
			old.Remove()
			old.Close()
		case try > 0: // what has the name is no content
			if _, err := d.Evict(key); err != nil {
				return nil, err
			}
		}
		f, err := do(d, opMake, func() (*File, error) { return d.create(key, validator) }, (*File).Close)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
	return nil, ErrGone
}

func (d *Dir) create(key Key, validator string) (*File, error) {
	f := newFile(d, label{d.name(key), rand.Uint64(), key.Size, validator})
	if err := f.make(); err != nil {
		f.closeFiles()
		d.root.Remove(f.label.data())
		return nil, err
	}
	d.use(f.name, 1)
	d.wrote(f.name, 0, onDiskOf(headSize+markSize*BlocksOf(key.Size)))
	return f, nil
}

// make makes the files. The record appears last, in one step, and under a name
// that leads to it alone: one that is there by then is another process's, and
// [fs.ErrExist].
func (f *File) make() (err error) {
	root, fresh := f.d.root, f.label.data()+newExt
	if err := root.MkdirAll(path.Dir(fresh), 0o700); err != nil {
		return err
	}
	if f.data, err = root.OpenFile(f.label.data(), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if f.record, err = root.OpenFile(fresh, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); err != nil {
		return err
	}
	defer root.Remove(fresh)
	if _, err = f.record.WriteAt(f.head(), 0); err == nil {
		// It has its whole length: some filesystems, FUSE and NFS among them, ask
		// for attributes when a read goes beyond the end.
		err = f.record.Truncate(headSize + markSize*BlocksOf(f.size))
	}
	if err != nil {
		return err
	}
	if err = root.Link(fresh, f.name.record()); err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	return root.Rename(fresh, f.name.record()) // a filesystem without links
}

// Temp makes a file of no directory, for a content that no Dir keeps: an
// unlinked one in dir, which is gone with the process.
func Temp(dir string, size int64) (*File, error) {
	data, err := tempFile(dir, ".mlflowfs-stream-*")
	if err != nil {
		return nil, err
	}
	f := newFile(nil, label{size: size})
	f.data = data
	return f, nil
}

// Kept tells whether the file is one of a Dir, and not of Temp or of a Part.
func (f *File) Kept() bool { return f.d != nil }

// Nonce tells the file from any other.
func (f *File) Nonce() uint64 { return f.nonce }

// Validator is that of the origin's answers, or empty.
func (f *File) Validator() string { return f.validator }

func (f *File) stat() (os.FileInfo, error) { return do(f.d, opStat, f.data.Stat, nil) }

// Remove takes the content out of the directory, and the name of each tree that has
// it, unless its name leads to another file by now.
func (f *File) Remove() error {
	if !f.Kept() {
		return nil
	}
	return f.d.try(opMake, func() error {
		l, _, err := f.d.look(f.name)
		if err == nil && l != nil && l.nonce == f.nonce {
			if _, _, err = f.d.withdraw(map[Name]bool{f.name: true}, treeStays); err == nil {
				_, err = f.d.remove(f.name)
			}
		}
		return ignoreMissing(err)
	})
}

// CarryOver takes over which blocks old, the same file before it was closed, had
// verified, if nobody has written to it since.
func (f *File) CarryOver(old *File) {
	if old == nil || old.nonce != f.nonce || !f.Kept() {
		return
	}
	st, err := f.stat()
	f.mu.Lock()
	defer f.mu.Unlock()
	old.mu.Lock() // a read of it may still end; f is nobody else's yet
	defer old.mu.Unlock()
	if err == nil && !old.left.IsZero() && st.ModTime().Equal(old.left) {
		f.blocks.carryOver(&old.blocks)
	}
}

// The time of the last use is noted at an open, if that is news, and for as long
// as the content is open.
const (
	touchEvery = 10 * time.Second
	openEvery  = 10 * time.Minute
)

// touch notes that the content is used now, where that is news.
func (f *File) touch() error {
	st, err := f.record.Stat()
	if err == nil && (time.Since(st.ModTime()) > touchEvery || isAhead(st.ModTime())) {
		err = f.d.touch(f.name)
	}
	return err
}

func (d *Dir) touch(n Name) error { return d.root.Chtimes(n.record(), time.Time{}, time.Now()) }

// touchOpen notes that what this process has open is used now.
func (d *Dir) touchOpen() {
	d.mu.Lock()
	open := make([]Name, 0, len(d.inUse))
	for n := range d.inUse {
		open = append(open, n)
	}
	d.mu.Unlock()
	for _, n := range open {
		d.touch(n) // what is gone needs no time
	}
}

// Close lets go of the file, when what waits to be written is. What is known of
// its blocks stays known, for [File.CarryOver].
func (f *File) Close() {
	f.mu.Lock()
	first, busy := !f.closed, f.writer.running
	f.closed = true
	f.mu.Unlock()
	if first && !busy { // else the writer does it
		f.letGo()
	}
}

func (f *File) letGo() {
	if f.Kept() {
		if st, err := f.stat(); err == nil {
			f.mu.Lock()
			f.left = st.ModTime()
			f.mu.Unlock()
		}
		f.d.use(f.name, -1)
	}
	go f.closeFiles() // a close may wait for the disk, and is not left out while that rests
}

func (f *File) closeFiles() {
	f.data.Close()
	f.record.Close()
}

// Current tells whether the content's name still leads to f, which is open. A
// file of no directory has no name to lose.
func (f *File) Current() bool {
	gone, err := f.gone()
	return err == nil && !gone
}

// gone tells whether the content's name leads to f no more.
func (f *File) gone() (bool, error) {
	if f.record == nil {
		return false, nil
	}
	st, err := do(f.d, opStat, f.record.Stat, nil)
	if err != nil {
		return false, err
	}
	s, ok := st.Sys().(*syscall.Stat_t)
	return ok && s.Nlink == 0, nil
}
