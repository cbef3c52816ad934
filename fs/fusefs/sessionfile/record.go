package sessionfile

import "hash/crc32"

// A name's record: what Add gave it, under a crc; what changes; the chains; the name.
const (
	atRecordCRC = 4 // of what follows up to atPages, of the name, and of the record's place
	atNumber    = 8
	atCheck     = 16
	atParent    = 24
	atTurn      = 32
	atLength    = 36 // of the name
	atKind      = 37 // isDir, isMoving; two bytes of zero follow

	atPages       = 40
	atLookups     = 48
	atNextNumber  = 52
	atNextName    = 56
	atFirstChild  = 60
	atNextSibling = 64
	atPrevSibling = 68
	atName        = 72
	maxName       = 255
)

const (
	isDir    = 1
	isMoving = 2
)

// Flags of the first word. Above them is the weight.
const (
	flagLeads   = 1 << 8
	flagStale   = 1 << 9
	flagTouched = 1 << 10
	flagNone    = 0xf800 // these are none
	weightShift = 16
)

func nameKind(length int) kind { return kindOf(atName + length) }

func isNameKind(k kind) bool { return nameKind(1) <= k && k <= nameKind(maxName) }

func nameBytes(m memory, r Row) []byte {
	off := r.off()
	return m[off+atName:][:m[off+atLength]]
}

// writeName writes all but the first word.
func writeName(m memory, r Row, name Name) {
	b := m[r.off():][:atName+len(name.Name)]
	clear(b[atRecordCRC:atName])
	order.PutUint64(b[atNumber:], name.Number)
	order.PutUint64(b[atCheck:], name.Check)
	order.PutUint64(b[atParent:], name.Parent)
	order.PutUint32(b[atTurn:], name.Turn)
	b[atLength] = byte(len(name.Name))
	if name.Dir {
		b[atKind] |= isDir
	}
	if name.Moves {
		b[atKind] |= isMoving
	}
	copy(b[atName:], name.Name)
	order.PutUint32(b[atRecordCRC:], nameCRC(b, r))
}

func readName(m memory, r Row) Name {
	b := m[r.off():][:atName]
	return Name{
		Number: order.Uint64(b[atNumber:]),
		Check:  order.Uint64(b[atCheck:]),
		Parent: order.Uint64(b[atParent:]),
		Turn:   order.Uint32(b[atTurn:]),
		Dir:    b[atKind]&isDir != 0,
		Moves:  b[atKind]&isMoving != 0,
		Name:   string(nameBytes(m, r)),
	}
}

func nameCRC(b []byte, r Row) uint32 {
	crc := crc32.Update(uint32(r), castagnoli, b[atNumber:atPages])
	return crc32.Update(crc, castagnoli, b[atName:])
}

// isName tells whether a record of a kind is a whole one.
func isName(m memory, r Row, k kind) bool {
	b := m[r.off():][:k.size()]
	length := int(b[atLength])
	head := order.Uint32(b)
	return length > 0 && nameKind(length) == k && head&flagNone == 0 && head>>weightShift > 0 &&
		order.Uint32(b[atRecordCRC:]) == nameCRC(b[:atName+length], r)
}
