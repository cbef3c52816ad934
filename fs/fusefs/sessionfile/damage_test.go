//go:build linux

package sessionfile

import (
	"cmp"
	"errors"
	"os"
	"slices"
	"testing"
)

// openDamaged opens the image as it is now, and reads it. The file is as it was afterwards.
func (i *image) openDamaged() (names []Name, handles []Handle, err error) {
	defer i.restore()
	f, err := Open(i.f.Descriptor(), 7)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	f.Names.All(func(r Row) bool { names = append(names, f.Names.Get(r)); return true })
	slices.SortFunc(names, func(a, b Name) int { return cmp.Compare(a.Number, b.Number) })
	f.Handles.All(func(h Handle) {
		h.Identity = 0 // one that changed is that of no content
		handles = append(handles, h)
	})
	slices.SortFunc(handles, func(a, b Handle) int { return cmp.Compare(a.Number, b.Number) })
	return names, handles, nil
}

// TestAnyChangedBitIsFoundOrHarmless fails when a bit of the file that changed alters a name
// or a handle without being noticed.
func TestAnyChangedBitIsFoundOrHarmless(t *testing.T) {
	t.Parallel()
	i := newImage(t)
	kept, handles, err := i.openDamaged()
	if err != nil || !slices.Equal(kept, i.names) || len(handles) != 2 {
		t.Fatalf("%v: %v, %v", err, kept, handles)
	}
	found, harmless := 0, 0
	step := 1
	if raceDetector {
		step = 5
	}
	for bit := 0; bit < i.len()*8; bit += step {
		*i.at(bit / 8) ^= 1 << (bit % 8)
		names, opened, err := i.openDamaged()
		switch {
		case err == nil && slices.Equal(names, kept) && slices.Equal(opened, handles):
			harmless++
		case errors.Is(err, ErrDamaged) || errors.Is(err, ErrVersion):
			found++
		default:
			t.Errorf("bit %d of byte %d: %v: %v, %v", bit%8, bit/8, err, names, opened)
		}
	}
	t.Logf("%d were found, %d are harmless", found, harmless)
	if found < 3040/step-9 {
		t.Error("too few were found")
	}
}

// TestOtherFilesAreToldApart fails when Open or Check take another file for a session's, or
// say the wrong thing of it.
func TestOtherFilesAreToldApart(t *testing.T) {
	t.Parallel()
	i := newImage(t)
	sized := func(size int64) *os.File {
		f, _, err := createFile(mostSize, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if _, err := f.WriteAt(i.f.mem[:min(size, pageSize)], 0); err != nil {
			t.Fatal(err)
		}
		if err := setSize(f, size); err != nil {
			t.Fatal(err)
		}
		return f
	}
	zero, _, err := createFile(mostSize, 0)
	if err != nil || setSize(zero, mostSize) != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { zero.Close() })
	page, err := os.Create(t.TempDir() + "/page")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { page.Close() })
	if _, err := page.WriteAt(i.f.mem[:pageSize], 0); err != nil || page.Truncate(mostSize) != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		f     *os.File
		scope uint64
		want  error
	}{
		"itself":         {i.f.Descriptor(), 7, nil},
		"another scope":  {i.f.Descriptor(), 8, ErrForeign},
		"zeros":          {zero, 7, ErrDamaged},
		"none":           {sized(0), 7, ErrDamaged},
		"half a header":  {sized(100), 7, ErrDamaged},
		"a header":       {sized(pageSize), 7, ErrDamaged},
		"cut":            {sized(mostSize / 2), 7, ErrDamaged},
		"not of memory":  {page, 7, ErrDamaged},
		"without chunks": {sized(mostSize), 7, nil},
	} {
		if f, err := Open(c.f, c.scope); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, and not %v", name, err, c.want)
		} else if f != nil {
			f.Close()
		}
		if err := Check(c.f, c.scope); !errors.Is(err, c.want) {
			t.Errorf("%s: the check says %v, and not %v", name, err, c.want)
		}
	}
	order.PutUint32(i.f.mem[atVersion:], 2)
	if _, _, err := i.openDamaged(); !errors.Is(err, ErrVersion) {
		t.Errorf("another version: %v", err)
	}
}

// TestMissingChunksAreNotMade fails when a table that tells of chunks which are not there has
// Open take memory for them.
func TestMissingChunksAreNotMade(t *testing.T) {
	t.Parallel()
	f := create(t)
	c := f.Names.chunks
	for i := range int32(c.most) {
		f.mem.store32(c.wordOf(i), nameKind(32).word())
	}
	if _, err := Open(f.Descriptor(), 7); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	if took, err := allocated(f.Descriptor()); err != nil || took > 2<<20 {
		t.Errorf("%d bytes were taken: %v", took, err)
	}
}

// TestDisputedNameLeadsNowhere fails when two or three rows that claim one name are not
// settled.
func TestDisputedNameLeadsNowhere(t *testing.T) {
	t.Parallel()
	for claim := range 4 {
		f := create(t)
		for number := range uint64(4) {
			if _, err := f.Names.Add(Name{Number: number, Parent: 9, Name: "name"}); err != nil {
				t.Fatal(err)
			}
		}
		for number := range uint64(claim) {
			f.Names.set(f.Names.At(number), flagLeads)
		}
		next := open(t, f)
		leads := next.Names.Leads(9, "name")
		children := 0
		next.Names.Children(9, func(Row) bool { children++; return true })
		if alone := claim == 0; (leads != 0) != alone || (children == 1) != alone || next.Names.Len() != 4 {
			t.Errorf("%d more rows claim a name: it leads to %d, of %d children", claim, leads, children)
		}
		use(t, next)
	}
}

// FuzzOpen fails when a file's bytes have Open or what follows end otherwise than by an error.
func FuzzOpen(f *testing.F) {
	i := newImage(f)
	f.Add(false, []byte{})
	f.Add(true, []byte{0, 8, 2, 0, 40, 255})
	f.Add(true, []byte{0, 128, 0xff, 1, 0, 0xa5})
	for off := 0; off < i.len(); off += 13 {
		f.Add(off%2 == 0, []byte{byte(off >> 8), byte(off), byte(off * 7)})
	}
	f.Fuzz(func(t *testing.T, resealed bool, changes []byte) {
		defer i.restore()
		for c := range slices.Chunk(changes, 3) {
			if len(c) == 3 {
				*i.at((int(c[0])<<8 | int(c[1])) % i.len()) = c[2]
			}
		}
		if resealed {
			i.reseal()
		}
		opened, err := Open(i.f.Descriptor(), order.Uint64(i.f.mem[atScope:]))
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
				t.Error(err)
			}
			return
		}
		defer opened.Close()
		use(t, opened)
	})
}
