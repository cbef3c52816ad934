package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// journal is what a partial file says of itself behind its content's last
// byte: a head that names the content, and for each piece, once it is there, a
// mark and its CRC32C. It is cut off when the file is whole.
type journal struct {
	f         *os.File
	key       Key
	pieces    int
	validator string // of the content that is being collected, or empty
}

type journalHead struct {
	Location  string // its SHA-256: a location may hold a credential
	Size      int64
	Validator string
}

// locationSum is the SHA-256 of where a content lies.
func locationSum(k Key) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(k.Location)))
}

const (
	journalHeadSize = 4096
	journalMark     = 1 << 32 // beside a CRC32C
)

// openJournal reads the journal of f; one of another content, or that can't be
// read, is as none.
func openJournal(f *os.File, key Key, pieces int) (*journal, error) {
	j := &journal{f: f, key: key, pieces: pieces}
	b := make([]byte, journalHeadSize)
	if _, err := f.ReadAt(b, key.Size); err != nil {
		if err == io.EOF {
			err = nil
		}
		return j, err
	}
	var head journalHead
	if json.Unmarshal(bytes.TrimRight(b, "\x00"), &head) == nil && head.Location == locationSum(key) && head.Size == key.Size {
		j.validator = head.Validator
	}
	return j, nil
}

// begin empties the file and names the content that will be collected. A
// content without a validator is collected, and not resumed.
func (j *journal) begin(validator string) error {
	head, err := json.Marshal(journalHead{locationSum(j.key), j.key.Size, validator})
	if err != nil || len(head) > journalHeadSize {
		return errors.Join(err, j.f.Truncate(0))
	}
	if err := j.f.Truncate(0); err != nil {
		return err
	}
	b := make([]byte, journalHeadSize+8*j.pieces)
	copy(b, head)
	_, err = j.f.WriteAt(b, j.key.Size)
	return err
}

func (j *journal) mark(i int, crc uint32) error {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], journalMark|uint64(crc))
	_, err := j.f.WriteAt(b[:], j.key.Size+journalHeadSize+8*int64(i))
	return err
}

// check reads the pieces that are marked and gives those that are right.
func (j *journal) check() ([]bool, error) {
	marks := make([]byte, 8*j.pieces)
	done := make([]bool, j.pieces)
	if _, err := j.f.ReadAt(marks, j.key.Size+journalHeadSize); err != nil {
		if err == io.EOF {
			err = nil
		}
		return done, err
	}
	for i := range done {
		mark := binary.BigEndian.Uint64(marks[8*i:])
		if mark&journalMark == 0 {
			continue
		}
		off := int64(i) * pieceSize
		n := min(pieceSize, j.key.Size-off)
		crc := crc32.New(castagnoli)
		if _, err := io.Copy(crc, io.NewSectionReader(j.f, off, n)); err != nil {
			return nil, err
		}
		done[i] = crc.Sum32() == uint32(mark)
	}
	return done, nil
}
