package disk

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"syscall"
)

// Part is a file that grows beside its place, outside of any Dir, until it is
// whole: a download. It is one process's at a time. Unless it is small it has a
// record beside it, as a content of a Dir has, by which it is taken up where it
// was left.
type Part struct {
	root         *os.Root
	name, record string
	lock         *os.File // the file, locked
}

// PartBytes is the size up to which a file has no record: it is begun anew.
const PartBytes = 16 << 20

// ErrBusy says that another process has the Part.
var ErrBusy = errors.New("another process is writing to it")

// OpenPart opens a Part with the name in root, and its record beside it, or makes
// it.
func OpenPart(root *os.Root, name, record string) (*Part, error) {
	for {
		f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		if err := flock(f, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				err = ErrBusy
			}
			return nil, err
		}
		// Who had it before may have moved it to its place by now.
		own, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if st, err := root.Lstat(name); err == nil && os.SameFile(own, st) {
			return &Part{root, name, record, f}, nil
		}
		f.Close()
	}
}

// Takes is of a Dir: a Part takes what comes.
func (p *Part) Takes() bool { return true }

// Find opens what an earlier process left of the content; nil where that is of
// another, or nothing could tell whether the rest would be of the same. The first
// block is not among it: one answer must say that the content is still the same.
func (p *Part) Find(key Key) (*File, error) {
	f := newFile(nil, label{name: nameOfKey("", key)})
	found, err := f.load(p.root, p.record, func(*label) string { return p.name }, key.Size)
	if err != nil || !found || (f.validator == "" && key.Version == "") {
		f.closeFiles()
		return nil, ignoreMissing(err)
	}
	f.blocks.set(0, missing, 0)
	return f, nil
}

// Create begins the content anew.
func (p *Part) Create(key Key, validator string) (_ *File, err error) {
	f := newFile(nil, label{nameOfKey("", key), rand.Uint64(), key.Size, validator})
	defer func() {
		if err != nil {
			f.closeFiles()
		}
	}()
	// First: it must not tell of the other bytes.
	if err := p.Forget(); err != nil {
		return nil, err
	}
	if f.data, err = p.root.OpenFile(p.name, os.O_RDWR|os.O_TRUNC, 0); err != nil || key.Size <= PartBytes || len(validator) > maxValidator {
		return f, err
	}
	if f.record, err = p.root.OpenFile(p.record, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, err
	}
	_, err = f.record.WriteAt(f.head(), 0)
	return f, err
}

// Commit gives the file, which is whole, its name.
func (p *Part) Commit(name string) error {
	if err := p.root.Rename(p.name, name); err != nil {
		return err
	}
	return p.Forget()
}

// Forget has nothing found of what is there.
func (p *Part) Forget() error { return ignoreMissing(p.root.Remove(p.record)) }

// Remove removes the file, and what tells of it.
func (p *Part) Remove() error {
	return errors.Join(p.Forget(), ignoreMissing(p.root.Remove(p.name)))
}

// Resumable tells whether the next process can take the file up.
func (p *Part) Resumable() bool {
	_, err := p.root.Lstat(p.record)
	return !errors.Is(err, fs.ErrNotExist)
}

// Close lets others have the Part.
func (p *Part) Close() error { return p.lock.Close() }
