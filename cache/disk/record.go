package disk

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/zeebo/xxh3"
)

// A record begins with a head of headSize bytes: the content that it is of, and a
// checksum of the head. Eight bytes follow for each block, its mark: the checksum
// of the block's bytes, and one over that, the block's index, the name and the
// nonce. A mark is written after the block's bytes, and a block counts only when
// both match: a crash, a power loss or another program can leave a block less,
// and no wrong byte. So nothing needs an fsync.
const (
	recordMagic  = "mlflowfs 3\n"
	headSize     = 512
	markSize     = 8
	marksAtOnce  = 4096 // are read
	maxValidator = 300  // bytes
)

// Sum is the checksum of a block's bytes: the low half of their XXH3, which takes
// a quarter of the time of a CRC32C made by the processor.
func Sum(b []byte) uint32 { return uint32(xxh3.Hash(b)) }

// Name is what a content, or an answer, is called in the directory.
type Name [32]byte

func (n Name) String() string { return hex.EncodeToString(n[:]) }

// MarshalText and UnmarshalText have a Name written as String has it.
func (n Name) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

func (n *Name) UnmarshalText(b []byte) (err error) {
	var ok bool
	if *n, ok = parseName(string(b)); !ok {
		err = errors.New("this is no name")
	}
	return err
}

// path is that of the files of n, up to the last dot.
func (n Name) path() string {
	s := n.String()
	return s[:2] + "/" + s[2:]
}

func (n Name) record() string { return n.path() + recordExt }

func parseName(s string) (n Name, ok bool) {
	if len(s) != 2*len(n) || strings.ToLower(s) != s {
		return n, false
	}
	_, err := hex.Decode(n[:], []byte(s))
	return n, err == nil
}

// label is what a record's head says.
type label struct {
	name      Name
	nonce     uint64
	size      int64
	validator string // of the origin's answers, or empty
}

// data is the path of the file that holds the bytes.
func (l *label) data() string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], l.nonce)
	return l.name.path() + "." + hex.EncodeToString(b[:])
}

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

// readLabel reads the head of a record; nil where it is damaged, or of another
// content than n.
func readLabel(record *os.File, n Name) (*label, error) {
	b := make([]byte, headSize)
	if _, err := record.ReadAt(b, 0); err != nil {
		if err == io.EOF {
			err = nil
		}
		return nil, err
	}
	fields := b[len(recordMagic)+len(n):]
	length := min(binary.BigEndian.Uint16(fields[20:]), maxValidator)
	l := &label{n, binary.BigEndian.Uint64(fields), int64(binary.BigEndian.Uint64(fields[8:])), string(fields[22 : 22+length])}
	if string(b) != string(l.head()) {
		return nil, nil
	}
	return l, nil
}

// mark is what the record says of block i: that its bytes have the checksum sum.
func (l *label) mark(i int64, sum uint32) []byte {
	b := make([]byte, 0, 52)
	b = binary.BigEndian.AppendUint32(b, sum)
	b = binary.BigEndian.AppendUint64(b, uint64(i))
	b = binary.BigEndian.AppendUint64(b, l.nonce)
	b = append(b, l.name[:]...)
	check := Sum(b) | 1 // never what a hole reads as
	return binary.BigEndian.AppendUint32(b[:4], check)
}

// readMarks reads which of n blocks from i on the record has, as far as it goes.
func (l *label) readMarks(record *os.File, i, n int64) (found blocks, err error) {
	buf := make([]byte, markSize*min(n, marksAtOnce))
	for end := i + n; i < end; {
		b := buf[:markSize*min(end-i, marksAtOnce)]
		got, err := record.ReadAt(b, headSize+markSize*i)
		if err != nil && err != io.EOF {
			return found, err
		}
		for b = b[:got]; len(b) >= markSize; b = b[markSize:] {
			if sum := binary.BigEndian.Uint32(b); string(b[:markSize]) == string(l.mark(i, sum)) {
				found.set(i, present, sum)
			}
			i++
		}
		if err == io.EOF {
			break
		}
	}
	return found, nil
}
