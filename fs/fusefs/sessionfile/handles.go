package sessionfile

import (
	"errors"
	"fmt"
	"hash/crc32"
)

// Handle is what a program has open.
type Handle struct {
	Number   uint64 // by which the kernel knows it; unique, not 0
	Inode    uint64 // its number
	Identity uint64 // hash of the content's identity; 0: it has none
	Size     int64  // bytes, as the kernel was told
	Mtime    int64  // nanoseconds since 1970, as the kernel was told
	Backing  int32  // by which the kernel knows the file that it reads itself, where Passed
	Dir      bool
	Passed   bool // the kernel reads a file of the cache itself
	Grows    bool
}

// A handle's record, all of it under a crc but for the identity, which changes.
const (
	atInode    = 16
	atIdentity = 24
	atFileSize = 32
	atBacking  = 40
	atFlags    = 44
	atMtime    = 48
	handleSize = 56

	handleDir    = 1
	handlePassed = 2
	handleGrows  = 4
)

// Handles is the table of handles.
type Handles struct {
	chunks *chunks
	rows   map[uint64]Row
}

func isHandleKind(k kind) bool { return k == kindOf(handleSize) }

func newHandles(c *chunks) Handles { return Handles{chunks: c, rows: map[uint64]Row{}} }

// Add adds one, Remove takes it out where it is there.
func (h *Handles) Add(handle Handle) error {
	if handle.Number == 0 {
		return errors.New("0 is no handle's number")
	}
	if h.rows[handle.Number] != 0 {
		return fmt.Errorf("handle %d is there already", handle.Number)
	}
	r, err := h.chunks.add(kindOf(handleSize))
	if err != nil {
		return err
	}
	b := h.chunks.mem[r.off():][:handleSize]
	order.PutUint64(b[atNumber:], handle.Number)
	order.PutUint64(b[atInode:], handle.Inode)
	order.PutUint64(b[atIdentity:], handle.Identity)
	order.PutUint64(b[atFileSize:], uint64(handle.Size))
	order.PutUint64(b[atMtime:], uint64(handle.Mtime))
	order.PutUint32(b[atBacking:], uint32(handle.Backing))
	order.PutUint32(b[atFlags:], flagsOf(handle))
	order.PutUint32(b[atRecordCRC:], handleCRC(b, r))
	h.chunks.mem.store32(r.off(), stateLive)
	h.rows[handle.Number] = r
	return nil
}

// SetIdentity changes the identity of one, where it is there.
func (h *Handles) SetIdentity(number, to uint64) {
	if r := h.rows[number]; r != 0 {
		h.chunks.mem.store64(r.off()+atIdentity, to)
	}
}

func (h *Handles) Remove(number uint64) {
	if r := h.rows[number]; r != 0 {
		delete(h.rows, number)
		h.chunks.remove(r)
	}
}

// All calls each with all of them. None is added or removed meanwhile.
func (h *Handles) All(each func(Handle)) {
	for _, r := range h.rows {
		each(h.get(r))
	}
}

// Len is how many there are.
func (h *Handles) Len() int { return len(h.rows) }

func (h *Handles) get(r Row) Handle {
	b := h.chunks.mem[r.off():][:handleSize]
	flags := order.Uint32(b[atFlags:])
	return Handle{
		Number:   order.Uint64(b[atNumber:]),
		Inode:    order.Uint64(b[atInode:]),
		Identity: order.Uint64(b[atIdentity:]),
		Size:     int64(order.Uint64(b[atFileSize:])),
		Mtime:    int64(order.Uint64(b[atMtime:])),
		Backing:  int32(order.Uint32(b[atBacking:])),
		Dir:      flags&handleDir != 0,
		Passed:   flags&handlePassed != 0,
		Grows:    flags&handleGrows != 0,
	}
}

func (h *Handles) load() (err error) {
	if err := h.chunks.load(); err != nil {
		return err
	}
	h.chunks.each(func(r Row) bool {
		b := h.chunks.mem[r.off():][:handleSize]
		number := order.Uint64(b[atNumber:])
		if order.Uint32(b) != stateLive || order.Uint32(b[atRecordCRC:]) != handleCRC(b, r) || number == 0 {
			err = damaged("a handle in it has changed")
		} else if h.rows[number] != 0 {
			err = damaged("two handles in it have one number")
		}
		h.rows[number] = r
		return err == nil
	})
	return err
}

func flagsOf(h Handle) (flags uint32) {
	if h.Dir {
		flags |= handleDir
	}
	if h.Passed {
		flags |= handlePassed
	}
	if h.Grows {
		flags |= handleGrows
	}
	return flags
}

func handleCRC(b []byte, r Row) uint32 {
	crc := crc32.Update(uint32(r), castagnoli, b[atNumber:atIdentity])
	return crc32.Update(crc, castagnoli, b[atFileSize:])
}
