//go:build linux

package sessionfile

import (
	"hash/crc32"
	"slices"
	"testing"
)

// image is a small file, whose bytes may be changed: those that there are, one part after the
// other.
type image struct {
	f     *File
	parts [][]byte
	saved [][]byte
	names []Name
}

func newImage(t testing.TB) *image {
	f := create(t)
	f.SetInit([]byte("what the kernel asked"))
	f.CountTakeover()
	i := &image{f: f}
	for number, name := range []string{"a", "b", "a", "ä longer name of more bytes", "d"} {
		i.names = append(i.names, Name{Number: uint64(number + 1), Check: 77, Parent: uint64(number) / 3, Turn: 3, Dir: number%2 == 0, Name: name})
		r, err := f.Names.Add(i.names[number])
		if err != nil {
			t.Fatal(err)
		}
		f.Names.SetLookups(r, uint64(number))
		f.Names.SetPages(r, 99)
	}
	f.Names.Remove(f.Names.At(2))
	i.names = slices.Delete(i.names, 1, 2)
	for number := range uint64(3) {
		if err := f.Handles.Add(Handle{Number: number + 1, Inode: 3, Identity: 5, Size: 1 << 40}); err != nil {
			t.Fatal(err)
		}
	}
	f.Handles.Remove(2)
	part := func(off, n int) { i.parts = append(i.parts, f.mem[off:][:n]) }
	part(0, atInit+64)
	part(f.Handles.chunks.wordOf(0), 8)
	part(f.Handles.chunks.off(0), 4*handleSize)
	part(f.Names.chunks.wordOf(0), 12)
	part(f.Names.chunks.off(0), 6*nameKind(1).size())
	part(f.Names.chunks.off(1), 2*nameKind(len("ä longer name of more bytes")).size())
	for _, p := range i.parts {
		i.saved = append(i.saved, slices.Clone(p))
	}
	return i
}

func (i *image) restore() {
	for k, p := range i.parts {
		copy(p, i.saved[k])
	}
}

func (i *image) len() (n int) {
	for _, p := range i.parts {
		n += len(p)
	}
	return n
}

func (i *image) at(off int) *byte {
	for _, p := range i.parts {
		if off < len(p) {
			return &p[off]
		}
		off -= len(p)
	}
	panic("behind the image")
}

// reseal makes all checksums right again, where something else is wrong.
func (i *image) reseal() {
	m := i.f.mem
	order.PutUint32(m[atCRC:], crc32.Checksum(m[atScope:atHeaderEnd], castagnoli))
	for r := range 4 {
		off := i.f.Handles.chunks.off(0) + r*handleSize
		order.PutUint32(m[off+atRecordCRC:], handleCRC(m[off:][:handleSize], Row(off/rowUnit)))
	}
	for chunk, length := range []int{1, len("ä longer name of more bytes")} {
		size := nameKind(length).size()
		for off := i.f.Names.chunks.off(int32(chunk)); off < i.f.Names.chunks.off(int32(chunk))+2*size; off += size {
			r := Row(off / rowUnit)
			order.PutUint32(m[off+atRecordCRC:], nameCRC(m[off:][:atName+len(nameBytes(m, r))], r))
		}
	}
}

// use does with a file what a daemon does.
func use(t testing.TB, f *File) {
	n := &f.Names
	count := 0
	var rows []Row
	n.All(func(r Row) bool {
		name := n.Get(r)
		n.Children(name.Number, func(Row) bool { count++; return count < 1000 })
		n.Leads(name.Parent, name.Name)
		n.Touch(r)
		n.Oldest()
		rows = append(rows, r)
		return true
	})
	if n.Len() != len(rows) || count >= 1000 {
		t.Errorf("%d rows, Len %d, and %d children", len(rows), n.Len(), count)
	}
	for _, r := range rows {
		n.Lead(r)
	}
	if r, err := n.Add(Name{Number: 1 << 50, Name: "another"}); err != nil || n.At(1<<50) != r {
		t.Errorf("another name: %v", err)
	}
	for _, r := range rows {
		n.Remove(r)
	}
	if n.Len() != 1 || n.TotalWeight() != 1 {
		t.Errorf("%d rows are left, of weight %d", n.Len(), n.TotalWeight())
	}
	f.Handles.All(func(h Handle) { count++ })
	f.Handles.Add(Handle{Number: 1 << 50})
	f.Init()
	if _, err := f.Used(); err != nil {
		t.Error(err)
	}
}
