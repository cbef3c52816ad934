package disk

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
)

// ErrNotWhole says that not every block of a content is there and verified.
var ErrNotWhole = errors.New("not all of it is in the disk cache")

// PutAt puts the content, which is complete and verified, at a name in root, in the
// place of what is there, in one step. It shares its blocks with the cache where the
// filesystem can have that (a reflink); else it is the cache's own file, read-only (a
// hard link), which the cache never writes to from then on; else a copy.
func (f *File) PutAt(root *os.Root, name string) error {
	_, err := f.place(root, name, 0o644, func(int64) error { return nil })
	return err
}

// place is PutAt. A file that is not the cache's own has the mode perm. copied says
// that it shares no bytes with the cache; room is asked for their number first.
func (f *File) place(root *os.Root, name string, perm os.FileMode, room func(int64) error) (copied bool, err error) {
	// With the patience that a reader has for a stat, a busy disk would be none.
	if st, err := f.data.Stat(); err != nil || st.Size() != f.size || !f.Whole() {
		return false, errors.Join(ErrNotWhole, err)
	}
	fresh := path.Join(path.Dir(name), fmt.Sprintf(".mlflowfs-%016x.part", rand.Uint64()))
	defer root.Remove(fresh) // also where it was moved: of two links to one file rename(2) leaves both
	err = f.fresh(root, fresh, perm, cloneFile)
	if err != nil {
		if err = linkIn(root, f.data, fresh); err == nil {
			err = f.data.Chmod(0o444)
		}
	}
	if err != nil {
		root.Remove(fresh)
		copied = true
		if err = room(onDiskOf(f.size)); err == nil {
			err = f.fresh(root, fresh, perm, f.copyTo)
		}
	}
	if err != nil {
		return false, err
	}
	return copied, root.Rename(fresh, name)
}

// fresh makes a file with the content by fill.
func (f *File) fresh(root *os.Root, name string, perm os.FileMode, fill func(to, from *os.File) error) error {
	to, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err = fill(to, f.data); err == nil {
		err = to.Chmod(perm)
	}
	if err = cmp.Or(err, to.Close()); err != nil {
		root.Remove(name)
	}
	return err
}

// copyTo copies the content, and holds each block against its checksum.
func (f *File) copyTo(to, from *os.File) error {
	b := make([]byte, BlockSize)
	for i := range BlocksOf(f.size) {
		b := b[:BlockLen(f.size, i)]
		if err := readFull(from, b, i*BlockSize); err != nil {
			return err
		}
		f.mu.Lock()
		_, sum := f.blocks.get(i)
		f.mu.Unlock()
		if Sum(b) != sum {
			return ErrDamaged
		}
		if _, err := to.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// linkIn gives an open file one more name, in root.
func linkIn(root *os.Root, f *os.File, name string) error {
	dir, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return linkFile(f, dir, path.Base(name))
}
