package sessionfile

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// memory is the mapped file. A word is read and written whole, and in the order of the
// program: a process that is killed leaves what it stored before, and nothing of what it
// would have stored after.
type memory []byte

func (m memory) word32(off int) *uint32 { return (*uint32)(unsafe.Pointer(&m[off : off+4 : off+4][0])) }
func (m memory) word64(off int) *uint64 { return (*uint64)(unsafe.Pointer(&m[off : off+8 : off+8][0])) }

func (m memory) load32(off int) uint32      { return atomic.LoadUint32(m.word32(off)) }
func (m memory) load64(off int) uint64      { return atomic.LoadUint64(m.word64(off)) }
func (m memory) store32(off int, to uint32) { atomic.StoreUint32(m.word32(off), to) }
func (m memory) store64(off int, to uint64) { atomic.StoreUint64(m.word64(off), to) }

// at is where a part of the memory begins, for mmap(2).
func (m memory) at(off int) unsafe.Pointer { return unsafe.Pointer(&m[off]) }

// order is the machine's: the file never leaves it.
var order = binary.NativeEndian
