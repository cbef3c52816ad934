package disk

import (
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"io"
	"os"
)

// A record begins with a head of headSize bytes: who it is of, and a CRC32C of
// itself. For each block follow eight bytes, its mark: the CRC32C of the block's
// bytes, and a CRC32C over that, the block's index, the name and the nonce. A
// mark is written after the block's bytes, and a block counts only when both
// hold: whatever a crash, a power loss or another hand leaves there is a block
// less, and no wrong byte. So nothing needs an fsync.
const (
	recordMagic  = "mlflowfs 2\n"
	headSize     = 512
	markSize     = 8
	maxValidator = 300 // bytes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sum is the checksum of a block's bytes.
func Sum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// Name is what a content is called in the directory.
type Name [32]byte

func (n Name) String() string { return hex.EncodeToString(n[:]) }

// path is that of the content's files, without what follows the last dot.
func (n Name) path() string {
	s := n.String()
	return s[:2] + "/" + s[2:]
}

// label is what a record is of.
type label struct {
	name      Name
	nonce     uint64
	size      int64
	validator string // of the origin's answers, or empty
}

func (l *label) record() string { return l.name.path() + recordExt }

func (l *label) data() string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], l.nonce)
	return l.name.path() + "." + hex.EncodeToString(b[:])
}

// head is the record's first bytes.
func (l *label) head() []byte {
	b := make([]byte, 0, headSize)
	b = append(b, recordMagic...)
	b = append(b, l.name[:]...)
	b = binary.BigEndian.AppendUint64(b, l.nonce)
	b = binary.BigEndian.AppendUint64(b, uint64(l.size))
	b = binary.BigEndian.AppendUint32(b, BlockSize)
	b = binary.BigEndian.AppendUint16(b, uint16(len(l.validator)))
	b = append(b, l.validator...)
	b = b[:headSize]
	binary.BigEndian.PutUint32(b[headSize-4:], Sum(b[:headSize-4]))
	return b
}

// readLabel reads a head; false where it is none of the content name.
func readLabel(b []byte, name Name) (l label, ok bool) {
	const nonceAt = len(recordMagic) + len(name)
	if len(b) < headSize || string(b[:len(recordMagic)]) != recordMagic {
		return l, false
	}
	l = label{name: name, nonce: binary.BigEndian.Uint64(b[nonceAt:]), size: int64(binary.BigEndian.Uint64(b[nonceAt+8:]))}
	n := int(binary.BigEndian.Uint16(b[nonceAt+20:]))
	if n > maxValidator {
		return l, false
	}
	l.validator = string(b[nonceAt+22 : nonceAt+22+n])
	return l, string(b[:headSize]) == string(l.head())
}

// mark is what the record says of block i: that its bytes have the checksum sum.
func (l *label) mark(i int64, sum uint32) []byte {
	b := make([]byte, 0, markSize)
	b = binary.BigEndian.AppendUint32(b, sum)
	return binary.BigEndian.AppendUint32(b, l.check(i, sum))
}

// marked tells whether a mark is one of block i, and of what sum.
func (l *label) marked(i int64, mark []byte) (sum uint32, ok bool) {
	sum = binary.BigEndian.Uint32(mark)
	return sum, binary.BigEndian.Uint32(mark[4:]) == l.check(i, sum)
}

func (l *label) check(i int64, sum uint32) uint32 {
	b := make([]byte, 0, 52)
	b = binary.BigEndian.AppendUint32(b, sum)
	b = binary.BigEndian.AppendUint64(b, uint64(i))
	b = binary.BigEndian.AppendUint64(b, l.nonce)
	b = append(b, l.name[:]...)
	return Sum(b) | 1 // never what a hole reads as
}

// markPiece is how many marks are read at a time.
const markPiece = 4096

// eachMark calls f with the marks of n blocks from i on, as far as the record
// goes.
func eachMark(record *os.File, i, n int64, f func(i int64, mark []byte)) error {
	buf := make([]byte, markSize*min(n, markPiece))
	for n > 0 {
		b := buf[:markSize*min(n, markPiece)]
		got, err := record.ReadAt(b, headSize+markSize*i)
		if err != nil && err != io.EOF {
			return err
		}
		for ; got >= markSize; b, got = b[markSize:], got-markSize {
			f(i, b)
			i, n = i+1, n-1
		}
		if err == io.EOF {
			return nil
		}
	}
	return nil
}
