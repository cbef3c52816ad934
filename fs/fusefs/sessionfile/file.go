// Package sessionfile is what a mount's daemon knows of the kernel's side of it, in memory
// that outlives the process: the requests that are not answered, the names that the kernel
// was told of, the handles that programs have open.
//
// The memory is a file without a name (memfd_create(2)), which another process holds open. A
// daemon may be killed between any two of its instructions: a record counts from the store of
// its first word, which is made last, until that word is cleared, which is done first. What
// is found by, such as the chains of the indexes, the next daemon makes anew.
package sessionfile

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

// Errors of Open. Each says that the mount is to be made anew.
var (
	ErrVersion = errors.New("the session is of another version of mlflowfs")
	ErrForeign = errors.New("the session is of a mount with other settings")
	ErrDamaged = errors.New("the session is damaged")
)

// Slots are how many requests may be unanswered at once, and SlotSize how many bytes of each
// are kept.
const (
	Slots    = 4096
	SlotSize = 4096
)

const (
	mostSize  = 16 << 30 // of the file; it takes memory for what is used of it
	leastSize = firstChunk + handleChunks*chunkSize + 1<<20
	firstSlot = firstWord + maxChunks*4
)

// File is a session's file, mapped. Its slots may be used by many at once, each slot by one;
// Names and Handles are for one at a time, and each for itself: callers lock. Methods of
// Names that change nothing, and Touch, may run at once with each other.
type File struct {
	Names   Names
	Handles Handles

	f       *os.File
	mem     memory
	mounted time.Time
}

// Create makes an empty one. scope is what the numbers in it hold for: see Open.
func Create(scope uint64) (*File, error) {
	f, most, err := createFile(mostSize, leastSize)
	if err != nil {
		return nil, fmt.Errorf("no file in memory for the session: %w", err)
	}
	for size := most; ; size = size / 2 &^ (chunkSize - 1) { // an address space may be small (ulimit -v)
		var m memory
		m, err = mapFile(f, size)
		if err == nil {
			h := header{scope: scope, mounted: time.Now(), size: size}
			if err = errors.Join(setSize(f, size), allocate(f, 0, pageSize)); err != nil {
				unmap(m)
				break
			}
			copy(m, h.bytes())
			return newFile(f, m, h), nil
		}
		if size/2 < leastSize {
			break
		}
	}
	f.Close()
	return nil, fmt.Errorf("no memory for the session: %w", err)
}

// Open maps the file of another process that has ended or lets go of it, and makes the
// indexes; the descriptor stays the caller's. A record that was being written when that
// process was killed is dropped; whatever else is wrong is an error. scope must be Create's.
func Open(f *os.File, scope uint64) (*File, error) {
	h, err := readHeader(f, scope)
	if err != nil {
		return nil, err
	}
	own, err := duplicate(f)
	if err != nil {
		return nil, err
	}
	m, err := mapFile(own, h.size)
	if err != nil {
		own.Close()
		return nil, fmt.Errorf("no memory for the session: %w", err)
	}
	s := newFile(own, m, h)
	if err := s.load(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Check tells why Open would not even begin: the header is of another version, of another
// scope, or of no session at all. It may be called while another process changes the file,
// and so it looks at no record.
func Check(f *os.File, scope uint64) error {
	_, err := readHeader(f, scope)
	return err
}

func newFile(f *os.File, m memory, h header) *File {
	return &File{Names: newNames(nameChunksOf(f, m)), Handles: newHandles(handleChunksOf(f, m)), f: f, mem: m, mounted: h.mounted}
}

// load checks all records, and then makes the indexes.
func (f *File) load() error {
	if _, err := initOf(f.mem[:pageSize]); err != nil {
		return err
	}
	if err := f.Names.load(); err != nil {
		return err
	}
	return f.Handles.load()
}

// Descriptor is the file itself, to be given to another process; it stays f's.
func (f *File) Descriptor() *os.File { return f.f }

// Detach has what is written from now on reach nobody else: the mapping becomes this
// process's own. The slots that are in use, Init and the counts keep what they have; Names and
// Handles are empty and take nothing from then on, for their file is another process's to
// change. No other method may run meanwhile, but slots may be written.
func (f *File) Detach() error {
	if err := detach(f.f, f.mem, firstChunk); err != nil {
		return fmt.Errorf("the session can't be let go of: %w", err)
	}
	none := &chunks{f: f.f, mem: f.mem}
	f.Names, f.Handles = newNames(none), newHandles(none)
	used, err := f.Used()
	if err != nil {
		return fmt.Errorf("the session can't be let go of: %w", err)
	}
	for _, k := range used { // a page that was not written would still show what others write
		atomic.AddUint64(f.mem.word64(slotOff(k)), 0)
	}
	atomic.AddUint32(f.mem.word32(atTakeovers), 0)
	return nil
}

// Close unmaps it, and closes its descriptor. No method may run then, and no slot be used.
func (f *File) Close() error {
	return errors.Join(unmap(f.mem), f.f.Close())
}

// Init is the INIT request on which the kernel and the first daemon agreed; empty: none yet.
func (f *File) Init() []byte {
	n := int(uint32(f.mem.load64(atInitWord)))
	return slices.Clone(f.mem[atInit:][:n])
}

// SetInit notes it. It has at most 1 KiB.
func (f *File) SetInit(request []byte) {
	if len(request) > maxInit {
		panic("sessionfile: an INIT request of more than 1 KiB")
	}
	f.mem.store64(atInitWord, 0)
	copy(f.mem[atInit:][:maxInit], request)
	f.mem.store64(atInitWord, initWord(request))
}

// Mounted is when the mount was made, and TakenOver how often it was taken over since.
func (f *File) Mounted() time.Time { return f.mounted }

func (f *File) TakenOver() uint32 { return f.mem.load32(atTakeovers) }

// CountTakeover counts one more.
func (f *File) CountTakeover() { atomic.AddUint32(f.mem.word32(atTakeovers), 1) }

// Slot is the memory of a slot. It is in use while its first four bytes, a request's length,
// are not zero; the kernel writes them, and who answers the request clears them (Free).
func (f *File) Slot(k int) []byte {
	off := slotOff(k)
	return f.mem[off : off+SlotSize : off+SlotSize]
}

// Free clears a slot's first eight bytes by one store.
func (f *File) Free(k int) { f.mem.store64(slotOff(k), 0) }

func slotOff(k int) int {
	if k < 0 || k >= Slots {
		panic("sessionfile: there is no such slot")
	}
	return firstSlot + k*SlotSize
}

// Used gives the slots that are in use. To look at each would give each a page of memory.
func (f *File) Used() ([]int, error) {
	var used []int
	const end = firstSlot + Slots*SlotSize
	for next := firstSlot; ; {
		off, err := nextData(f.f, next, end)
		if err != nil || off >= end {
			return used, err
		}
		next = off + SlotSize
		if f.mem.load32(off) != 0 {
			used = append(used, (off-firstSlot)/SlotSize)
		}
	}
}
