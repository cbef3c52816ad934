package fusefs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/fs/fusefs/sessionfile"
	"github.com/mlflowfs/mlflowfs/test/count"
)

// asked is a tree without a kernel: a test asks it as one does.
func asked(root *fs.Node) raw {
	opt := MountOptions{Log: slog.New(slog.DiscardHandler), Stuck: time.Minute, NoPassing: true, NoPushing: true}
	file, err := sessionfile.Create(0)
	if err != nil {
		panic(err)
	}
	return raw{fuse.NewDefaultRawFileSystem(), newAdapter("", root, opt, file)}
}

// find looks a name up; what is there must be of the kind that is wanted.
func (r raw) find(t *testing.T, in uint64, name string) (out fuse.EntryOut) {
	t.Helper()
	if status := r.Lookup(nil, &fuse.InHeader{NodeId: in}, name, &out); !status.Ok() {
		t.Errorf("%s: %v", name, status)
	}
	return out
}

// list asks for one answer of a listing, of so many bytes.
func (r raw) list(fh, off uint64, size int, plus bool) ([]fuse.DirEntry, fuse.Status) {
	reply := make([]byte, size)
	out := fuse.NewDirEntryList(reply, off)
	ask := r.ReadDir
	if plus {
		ask = r.ReadDirPlus
	}
	status := ask(nil, &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}, Fh: fh, Offset: off, Size: uint32(size)}, out)
	var entries []fuse.DirEntry
	for b := out.Bytes(); len(b) > 0; {
		if plus {
			b = b[unsafe.Sizeof(fuse.EntryOut{}):]
		}
		const head = 24 // struct fuse_dirent, without the name
		n := int(binary.NativeEndian.Uint32(b[16:]))
		entries = append(entries, fuse.DirEntry{Name: string(b[head : head+n]), Off: binary.NativeEndian.Uint64(b[8:])})
		b = b[head+(n+7)&^7:]
	}
	return entries, status
}

// rolls is a directory of n files. Its listing fails before number fails, once for each
// time that the directory is listed.
type rolls struct {
	n, fails int
	lists    int
}

var errRoll = errors.New("the server hung up")

func (d *rolls) Lookup(_ context.Context, name string) (*fs.Node, error) {
	return &fs.Node{File: text(name), Size: int64(len(name))}, nil
}

func (d *rolls) List(context.Context) (fs.Listing, error) {
	d.lists++
	return &rollsOn{d: d}, nil
}

type rollsOn struct {
	d      *rolls
	at     int
	failed bool
}

func (l *rollsOn) Next(context.Context) (fs.Entry, error) {
	if l.d.fails > 0 && l.at == l.d.fails && !l.failed {
		l.failed = true
		return fs.Entry{}, errRoll
	}
	if l.at == l.d.n {
		return fs.Entry{}, io.EOF
	}
	l.at++
	name := fmt.Sprintf("f%05d", l.at-1)
	return fs.Entry{Name: name, Node: &fs.Node{File: text(name), Size: int64(len(name))}}, nil
}

// TestListingIsGivenOnce fails when an entry of a listing is given twice, or not at all,
// whatever room an answer has and wherever the kernel asks on: behind an entry that a
// program took before it was interrupted, at one that came long before, at the beginning.
func TestListingIsGivenOnce(t *testing.T) {
	t.Parallel()
	for _, plus := range []bool{false, true} {
		for _, size := range []int{300, 1000, 4096} {
			t.Run(fmt.Sprintf("plus %v, %d bytes", plus, size), func(t *testing.T) {
				t.Parallel()
				d := &rolls{n: 150}
				r := asked(&fs.Node{Dir: d})
				var open fuse.OpenOut
				if status := r.OpenDir(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}}, &open); !status.Ok() {
					t.Fatal(status)
				}
				want := []string{".", ".."}
				for i := range d.n {
					want = append(want, fmt.Sprintf("f%05d", i))
				}
				off, lists := uint64(0), 1
				for step := 1; ; step++ {
					got, status := r.list(open.Fh, off, size, plus)
					if !status.Ok() {
						t.Fatal(status)
					}
					for k, e := range got {
						if e.Name != want[int(off)+k] || e.Off != off+uint64(k)+1 {
							t.Fatalf("entry %d from %d is %q, at %d", k, off, e.Name, e.Off)
						}
					}
					if len(got) == 0 {
						break
					}
					switch {
					case step == 20: // as rewinddir(3) does
						off = 0
						lists++
					case step%3 == 0: // one was taken
						off++
					default:
						off += uint64(len(got))
					}
				}
				if off != uint64(len(want)) {
					t.Errorf("it ends behind %d entries, want %d", off, len(want))
				}
				if d.lists != lists {
					t.Errorf("the directory is listed %d times, want %d", d.lists, lists)
				}
			})
		}
	}
}

// TestListingThatFailsIsTold fails when an error in the midst of a listing is not told, as
// if the directory ended there, when what came before it is lost, or when the rest is not
// given to who asks on.
func TestListingThatFailsIsTold(t *testing.T) {
	t.Parallel()
	d := &rolls{n: 10, fails: 4}
	r := asked(&fs.Node{Dir: d})
	var open fuse.OpenOut
	r.OpenDir(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}}, &open)
	for _, want := range []struct {
		entries int
		status  fuse.Status
	}{{6, fuse.OK}, {0, fuse.EIO}, {6, fuse.OK}, {0, fuse.OK}} {
		got, status := r.list(open.Fh, r.given(open.Fh), 4096, false)
		if len(got) != want.entries || status != want.status {
			t.Errorf("%d entries and %v, want %d and %v", len(got), status, want.entries, want.status)
		}
	}
}

// given is how many entries of a listing were taken.
func (r raw) given(fh uint64) uint64 { return r.a.handles.at(fh).(*openDir).pos }

// TestNumberIsForgottenWithItsLastLookUp fails when the kernel asks by a number that it was
// told and is not known, when one that it has forgotten is kept, or when one that is known
// to nobody panics.
func TestNumberIsForgottenWithItsLastLookUp(t *testing.T) {
	t.Parallel()
	r := asked(&fs.Node{Dir: &rolls{n: 3}})
	first := r.find(t, fuse.FUSE_ROOT_ID, "a")
	again := r.find(t, fuse.FUSE_ROOT_ID, "a")
	if first.NodeId != again.NodeId || first.Generation != again.Generation || first.NodeId == r.find(t, fuse.FUSE_ROOT_ID, "b").NodeId {
		t.Fatalf("%d and %d", first.NodeId, again.NodeId)
	}
	ask := func(number uint64) fuse.Status {
		return r.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: number}}, &fuse.AttrOut{})
	}
	for lookups := range 2 {
		if status := ask(first.NodeId); !status.Ok() {
			t.Errorf("after %d of two are forgotten: %v", lookups, status)
		}
		r.Forget(first.NodeId, 1)
	}
	if found := r.find(t, first.NodeId, "."); found.NodeId != first.NodeId || found.Generation != first.Generation {
		t.Errorf("it is forgotten, and found by its handle as %d, and was %d", found.NodeId, first.NodeId)
	}
	if above := r.find(t, first.NodeId, ".."); above.NodeId != fuse.FUSE_ROOT_ID {
		t.Errorf("its directory is found by its handle as %d", above.NodeId)
	}
	if status := ask(first.NodeId + 1); status != fuse.Status(syscall.ESTALE) {
		t.Errorf("what was never known answers %v", status)
	}
	r.Forget(first.NodeId, 5)
	r.Forget(fuse.FUSE_ROOT_ID, 1<<40)
	if status := ask(fuse.FUSE_ROOT_ID); !status.Ok() {
		t.Errorf("the root: %v", status)
	}
	if n := r.a.names.len(); n != 1 {
		t.Errorf("%d names are known, want 1", n)
	}
	if next := r.find(t, fuse.FUSE_ROOT_ID, "a"); next.NodeId != first.NodeId || next.Generation != first.Generation {
		t.Errorf("after it was forgotten it is %d, and was %d", next.NodeId, first.NodeId)
	}
}

// TestNumbersAreNotShared fails when two inodes that are known at once have one number,
// which their idents agree in.
func TestNumbersAreNotShared(t *testing.T) {
	t.Parallel()
	r := asked(&fs.Node{Dir: &rolls{n: 3}})
	n, root := r.a.names, r.a.root
	node := &fs.Node{File: text("two")}
	id := root.ident("two", node, 0)
	n.add(sessionfile.Name{Number: id.number(), Check: id[1] + 1, Parent: root.number, Name: "one"})
	n.again(id.number())
	two, errno := n.tell(root, "two", node)
	if errno != 0 {
		t.Fatal(errno)
	}
	if one := n.use(r.a, id.number()); one == nil || one.number == two.number || one.name != "one" || n.use(r.a, two.number) != two {
		t.Errorf("one is %v, and two has %d", one, two.number)
	}
	n.forget(id.number(), 1)
	if n.use(r.a, two.number) != two || n.len() != 1 {
		t.Error("one that was forgotten takes another with it")
	}
}

// TestCloseAsksNothing fails when each close of a file waits for the daemon, to which it
// says nothing (FLUSH): a program that opens many small files does so twice for each.
func TestCloseAsksNothing(t *testing.T) {
	t.Parallel()
	const opens = 50
	var out count.Log
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	point, _ := mounted(t, &fs.Node{Dir: &rolls{n: 1}}, MountOptions{Debug: true, Log: log})
	for range opens {
		if b, err := os.ReadFile(filepath.Join(point, "f00000")); err != nil || string(b) != "f00000" {
			t.Fatalf("%q, %v", b, err)
		}
	}
	if n := strings.Count(out.String(), ": OPEN "); n < opens {
		t.Fatalf("the log tells of %d opens, want %d", n, opens)
	}
	if n := strings.Count(out.String(), ": FLUSH "); n > opens/10 { // of a file of go-fuse's own, and until the kernel is told that there is nothing of the kind
		t.Errorf("%d FLUSHes for %d closes", n, opens)
	}
}
