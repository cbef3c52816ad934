package disk

import (
	"crypto/rand"
	"io"
	"os"
	"path"
)

// Scratch is an unlinked file, which grows at its end and is gone when it is closed,
// or with the process. Its methods are used by one goroutine at a time, but for
// ReadAt.
type Scratch struct {
	d    *Dir // nil: outside of one
	f    *os.File
	size int64 // bytes; with a Dir, so much room is reserved
}

// Scratch makes one on the directory's disk.
func (d *Dir) Scratch() (*Scratch, error) {
	var n Name
	rand.Read(n[:])
	fresh := n.path() + newExt // a scan removes it, if this process is killed before it does
	f, err := do(d, opMake, func() (*os.File, error) {
		if err := d.root.MkdirAll(path.Dir(fresh), 0o700); err != nil {
			return nil, err
		}
		f, err := d.root.OpenFile(fresh, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		return unlinked(f, d.root.Remove(fresh))
	}, func(f *os.File) { f.Close() })
	if err != nil {
		return nil, err
	}
	return &Scratch{d: d, f: f}, nil
}

// TempScratch makes one in the directory dir.
func TempScratch(dir string) (*Scratch, error) {
	f, err := tempFile(dir, ".mlflowfs-scratch-*")
	if err != nil {
		return nil, err
	}
	return &Scratch{f: f}, nil
}

// tempFile makes an unlinked file in the directory dir.
func tempFile(dir, pattern string) (*os.File, error) {
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err
	}
	return unlinked(f, os.Remove(f.Name()))
}

// unlinked is f, whose removal from its directory ended in err.
func unlinked(f *os.File, err error) (*os.File, error) {
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Append writes p at the end. An error leaves the file as it was. p is not the
// caller's any more.
func (s *Scratch) Append(p []byte) error {
	n := int64(len(p))
	if err := s.d.reserve(n, false); err != nil {
		return err
	}
	at := s.size
	err := s.d.try(opWrite, func() error {
		_, err := s.f.WriteAt(p, at)
		return err
	})
	if err != nil {
		s.d.wrote(Name{}, n, 0)
		return err
	}
	s.size += n
	return nil
}

// ReadAt fills p, which was written before.
func (s *Scratch) ReadAt(p []byte, off int64) error {
	if s.d == nil {
		return readFull(s.f, p, off)
	}
	own, err := do(s.d, opRead, func() ([]byte, error) {
		own := make([]byte, len(p)) // p is the caller's again when a disk is slow
		return own, readFull(s.f, own, off)
	}, nil)
	copy(p, own)
	return err
}

func readFull(f *os.File, p []byte, off int64) error {
	_, err := f.ReadAt(p, off)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// Close lets go of the file and of its room.
func (s *Scratch) Close() {
	s.d.wrote(Name{}, s.size, 0)
	s.size = 0
	go s.f.Close() // it may wait for the disk
}
