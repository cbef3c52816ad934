package sessionfile

import (
	"errors"
	"fmt"
	"os"
)

// Row is a record's place in the file until it is removed; zero is none.
type Row uint32

const rowUnit = 8 // bytes: a row's place is so many of these from the file's beginning

func (r Row) off() int { return int(r) * rowUnit }

// The first word of a record: whether there is one, flags, and a name's weight.
const (
	state     = 0xff
	stateLive = 0xa5
)

// kind is of which size the records of a chunk are, in units of rows.
type kind uint16

func kindOf(size int) kind { return kind((size + rowUnit - 1) / rowUnit) }

func (k kind) size() int  { return int(k) * rowUnit }
func (k kind) count() int { return chunkSize / k.size() }

// word is how the table says it: a changed bit shows. Zero is a chunk without records.
func (k kind) word() uint32 { return uint32(^k)<<16 | uint32(k) }

const (
	chunkSize    = 64 << 10
	maxChunks    = mostSize / chunkSize
	handleChunks = 64 << 20 / chunkSize // the first; a million handles and more. Names have the others
	firstWord    = pageSize             // of the chunks' table
	firstChunk   = (firstSlot + Slots*SlotSize + chunkSize - 1) &^ (chunkSize - 1)
	geometry     = Slots<<44 | SlotSize<<24 | chunkSize
)

var errFull = errors.New("the session takes no more")

// chunks give records their place. A chunk's records have one size; it has memory while there
// are some of them.
type chunks struct {
	f           *os.File
	mem         memory
	first, most int             // of the file's chunks, those that are here
	allowed     func(kind) bool // the kinds that are here

	all    []chunk
	unused []int32   // those of all without a kind
	room   [64]int32 // by kind, one and the place of the first chunk that has room
}

func handleChunksOf(f *os.File, m memory) *chunks {
	return &chunks{f: f, mem: m, most: handleChunks, allowed: isHandleKind}
}

func nameChunksOf(f *os.File, m memory) *chunks {
	most := (len(m)-firstChunk)/chunkSize - handleChunks
	return &chunks{f: f, mem: m, first: handleChunks, most: most, allowed: isNameKind}
}

type chunk struct {
	kind       kind // 0: it has no memory
	used       int32
	next       int32 // from here on no place was used
	free       Row   // of the places before it that are free, the first; it tells the next
	prev, more int32 // as in room, the others that have room
}

func (c *chunks) off(i int32) int    { return firstChunk + (c.first+int(i))*chunkSize }
func (c *chunks) wordOf(i int32) int { return firstWord + (c.first+int(i))*4 }
func (c *chunks) of(r Row) int32     { return int32((r.off()-firstChunk)/chunkSize - c.first) }
func (c *chunks) row(i, place int32) Row {
	return Row((c.off(i) + int(place)*c.all[i].kind.size()) / rowUnit)
}
func (c *chunks) nextFree(r Row) int { return r.off() + 4 }

// isLive tells whether there is a record.
func (c *chunks) isLive(r Row) bool {
	return r != 0 && c.mem.load32(r.off())&state == stateLive
}

// add finds a place. It has no record until its first word is stored.
func (c *chunks) add(k kind) (Row, error) {
	i := c.room[k] - 1
	if i < 0 {
		var err error
		if i, err = c.grow(k); err != nil {
			return 0, err
		}
	}
	chunk := &c.all[i]
	r := chunk.free
	if r != 0 {
		chunk.free = Row(c.mem.load32(c.nextFree(r)))
	} else {
		r = c.row(i, chunk.next)
		chunk.next++
	}
	chunk.used++
	if int(chunk.used) == k.count() {
		c.setFull(i)
	}
	return r, nil
}

// remove takes a record's place back.
func (c *chunks) remove(r Row) {
	c.mem.store32(r.off(), 0)
	i := c.of(r)
	chunk := &c.all[i]
	if int(chunk.used) == chunk.kind.count() {
		c.setRoom(i)
	}
	c.mem.store32(c.nextFree(r), uint32(chunk.free))
	chunk.free = r
	chunk.used--
	if chunk.used == 0 && (chunk.prev != 0 || chunk.more != 0) { // one with room stays, for the next
		c.shrink(i)
	}
}

// grow gives a chunk memory, and a kind.
func (c *chunks) grow(k kind) (int32, error) {
	i := int32(len(c.all))
	if n := len(c.unused); n > 0 {
		i = c.unused[n-1]
	} else if int(i) == c.most {
		return 0, errFull
	}
	word := c.wordOf(i)
	if err := errors.Join(allocate(c.f, word&^(pageSize-1), pageSize), allocate(c.f, c.off(i), chunkSize)); err != nil {
		return 0, fmt.Errorf("no memory for the session: %w", err)
	}
	if int(i) == len(c.all) {
		c.all = append(c.all, chunk{})
	} else {
		c.unused = c.unused[:len(c.unused)-1]
	}
	c.all[i] = chunk{kind: k}
	c.mem.store32(word, k.word())
	c.setRoom(i)
	return i, nil
}

// shrink takes them away again.
func (c *chunks) shrink(i int32) {
	c.setFull(i)
	c.mem.store32(c.wordOf(i), 0)
	c.all[i] = chunk{}
	c.unused = append(c.unused, i)
	if release(c.f, c.off(i), chunkSize) != nil {
		clear(c.mem[c.off(i):][:chunkSize]) // it is to begin with zeros
	}
}

// setRoom puts a chunk first among those with room, and setFull takes it from among them.
func (c *chunks) setRoom(i int32) {
	chunk := &c.all[i]
	first := &c.room[chunk.kind]
	chunk.prev, chunk.more = 0, *first
	if *first != 0 {
		c.all[*first-1].prev = i + 1
	}
	*first = i + 1
}

func (c *chunks) setFull(i int32) {
	chunk := &c.all[i]
	if chunk.prev != 0 {
		c.all[chunk.prev-1].more = chunk.more
	} else {
		c.room[chunk.kind] = chunk.more
	}
	if chunk.more != 0 {
		c.all[chunk.more-1].prev = chunk.prev
	}
	chunk.prev, chunk.more = 0, 0
}

// each calls with all records, until it returns false.
func (c *chunks) each(f func(Row) bool) {
	for i := range c.all {
		chunk := &c.all[i]
		if chunk.used == 0 {
			continue
		}
		for place := range chunk.next {
			if r := c.row(int32(i), place); c.isLive(r) && !f(r) {
				return
			}
		}
	}
}

// load reads the table and finds what is free. What a process that was killed had taken away
// from a chunk, or was giving it, is released.
func (c *chunks) load() error {
	if err := c.loadTable(); err != nil {
		return err
	}
	if err := c.checkAllocated(); err != nil {
		return err
	}
	for i := int32(len(c.all)) - 1; i >= 0; i-- {
		if c.all[i].kind == 0 {
			c.unused = append(c.unused, i)
		} else if err := c.loadChunk(i); err != nil {
			return err
		}
	}
	return c.releaseUnused()
}

// loadTable reads those pages of the table that there are: to read others would make them.
func (c *chunks) loadTable() error {
	end := c.wordOf(int32(c.most))
	for next := c.wordOf(0); ; {
		page, err := nextData(c.f, next, end)
		if err != nil || page >= end {
			return err
		}
		next = min(page+pageSize, end)
		for at := page; at < next; at += 4 {
			word := c.mem.load32(at)
			if word == 0 {
				continue
			}
			k := kind(word)
			if word != k.word() || !c.allowed(k) {
				return damaged("its table of chunks has changed")
			}
			i := (at - c.wordOf(0)) / 4
			c.all = append(c.all, make([]chunk, i+1-len(c.all))...)
			c.all[i] = chunk{kind: k}
		}
	}
}

// checkAllocated fails where the table tells of more chunks than have memory: to read them
// would take it.
func (c *chunks) checkAllocated() error {
	have, err := allocated(c.f)
	if err != nil {
		return err
	}
	for _, chunk := range c.all {
		if chunk.kind != 0 {
			have -= chunkSize
		}
	}
	if have < 0 {
		return damaged("chunks of it are missing")
	}
	return nil
}

func (c *chunks) loadChunk(i int32) error {
	chunk := &c.all[i]
	chunk.next = int32(chunk.kind.count())
	for place := chunk.next - 1; place >= 0; place-- {
		r := c.row(i, place)
		switch c.mem.load32(r.off()) & state {
		case 0:
			c.mem.store32(c.nextFree(r), uint32(chunk.free))
			chunk.free = r
		case stateLive:
			chunk.used++
		default:
			return damaged("a record of it is none")
		}
	}
	if chunk.used < chunk.next {
		c.setRoom(i)
	}
	return nil
}

func (c *chunks) releaseUnused() error {
	from := int32(0)
	for i := range int32(len(c.all)) + 1 {
		if int(i) < len(c.all) && c.all[i].kind == 0 {
			continue
		}
		if from < i {
			if err := release(c.f, c.off(from), int(i-from)*chunkSize); err != nil {
				return err
			}
		}
		from = i + 1
	}
	from = int32(len(c.all))
	if int(from) == c.most {
		return nil
	}
	return release(c.f, c.off(from), (c.most-int(from))*chunkSize)
}
