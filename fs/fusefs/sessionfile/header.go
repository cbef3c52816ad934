package sessionfile

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"
)

// The file is a page of the header, the chunks' table, the slots, the chunks.
const (
	pageSize = 4096
	magic    = "mlfsess\n"
	version  = 1

	atVersion  = 8
	atCRC      = 12 // of what follows up to atHeaderEnd
	atScope    = 16
	atMounted  = 24 // nanoseconds of Unix
	atSize     = 32 // of the file
	atGeometry = 40 // the constants of this version, which tell of a mistake in it

	atHeaderEnd = 48
	atTakeovers = 48
	atInitWord  = 56 // length, and the crc of length and bytes: one word, stored last
	atInit      = 64
	maxInit     = 1 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is what never changes.
type header struct {
	scope   uint64
	mounted time.Time
	size    int64
}

func (h header) bytes() []byte {
	b := make([]byte, atHeaderEnd)
	copy(b, magic)
	order.PutUint32(b[atVersion:], version)
	order.PutUint64(b[atScope:], h.scope)
	order.PutUint64(b[atMounted:], uint64(h.mounted.UnixNano()))
	order.PutUint64(b[atSize:], uint64(h.size))
	order.PutUint64(b[atGeometry:], geometry)
	order.PutUint32(b[atCRC:], crc32.Checksum(b[atScope:], castagnoli))
	return b
}

// readHeader reads and checks it, and the agreement with the kernel beside it.
func readHeader(f *os.File, scope uint64) (header, error) {
	b := make([]byte, pageSize)
	if _, err := f.ReadAt(b, 0); errors.Is(err, io.EOF) {
		return header{}, damaged("it is too short")
	} else if err != nil {
		return header{}, err
	}
	if string(b[:len(magic)]) != magic {
		return header{}, damaged("it does not begin as one")
	}
	if v := order.Uint32(b[atVersion:]); v != version {
		return header{}, fmt.Errorf("%w: its version is %d, and this mlflowfs knows %d", ErrVersion, v, version)
	}
	if order.Uint32(b[atCRC:]) != crc32.Checksum(b[atScope:atHeaderEnd], castagnoli) || order.Uint64(b[atGeometry:]) != geometry {
		return header{}, damaged("its header has changed")
	}
	h := header{
		scope:   order.Uint64(b[atScope:]),
		mounted: time.Unix(0, int64(order.Uint64(b[atMounted:]))),
		size:    int64(order.Uint64(b[atSize:])),
	}
	if h.scope != scope {
		return header{}, ErrForeign
	}
	st, err := f.Stat()
	if err != nil {
		return header{}, err
	}
	if st.Size() != h.size || h.size < leastSize || h.size > mostSize || h.size%chunkSize != 0 || !isSealed(f) {
		return header{}, damaged("its size is not the one that it had")
	}
	return h, nil
}

// initOf gives the INIT request of a header's page.
func initOf(page []byte) ([]byte, error) {
	word := order.Uint64(page[atInitWord:])
	n := int(uint32(word))
	if n > maxInit || word != initWord(page[atInit:][:n]) {
		return nil, damaged("the kernel's INIT request in it has changed")
	}
	return page[atInit:][:n], nil
}

func initWord(request []byte) uint64 {
	if len(request) == 0 {
		return 0
	}
	return uint64(crc32.Update(uint32(len(request)), castagnoli, request))<<32 | uint64(len(request))
}

func damaged(why string) error { return fmt.Errorf("%w: %s", ErrDamaged, why) }
