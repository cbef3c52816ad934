package fusefs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/fs"
)

// census is a directory of n directories of n files each.
type census struct{ n, depth int }

func (c census) child(i int) *fs.Node {
	if c.depth == 0 {
		return &fs.Node{File: text("x"), Size: 1, TTL: time.Hour}
	}
	return &fs.Node{Dir: census{c.n, c.depth - 1}, TTL: time.Hour}
}

func (c census) Lookup(_ context.Context, name string) (*fs.Node, error) {
	i, err := strconv.Atoi(name)
	if err != nil || i >= c.n {
		return nil, os.ErrNotExist
	}
	return c.child(i), nil
}

func (c census) List(context.Context) (fs.Listing, error) { return &roll{c: c}, nil }

type roll struct {
	c census
	i int
}

func (r *roll) Next(context.Context) (fs.Entry, error) {
	if r.i == r.c.n {
		return fs.Entry{}, io.EOF
	}
	r.i++
	return fs.Entry{Name: fmt.Sprintf("%06d", r.i-1), Node: r.c.child(r.i - 1)}, nil
}

// find counts the files below point that pass a test of their sizes, which has a
// program look up each of them.
func find(t *testing.T, point string, size ...string) int {
	t.Helper()
	out, err := exec.Command("find", slices.Concat([]string{point}, size, []string{"-type", "f", "-printf", "x"})...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return len(out)
}

var tiny = []string{"-size", "-2"}

// TestForgottenNamesAreFreed fails when a name that the kernel knows takes more
// memory than it did, or when the memory of names that the
// kernel forgets is kept: a daemon that is walked through once a night grows.
// (Twenty thousand names here; a million with MLFLOWFS_SOAK.) It measures the heap
// and drops the kernel's caches, so it runs alone.
func TestForgottenNamesAreFreed(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test has the kernel forget names: run it as root")
	}
	n, most := 150, 600.0 // bytes for a name
	if soak() {
		n, most = 1000, 650 // maps of that many have more room to spare
	}
	point, m := mounted(t, &fs.Node{Dir: census{n, 1}, TTL: time.Hour}, MountOptions{
		Log:     slog.New(slog.DiscardHandler),
		MaxRead: 4 << 10, // each of go-fuse's readers, which come and go, has a buffer of that
	})
	m.a.names.mu.Lock()
	m.a.names.keeps = 0 // what is remembered keeps whole chunks of the session
	m.a.names.mu.Unlock()
	if got := find(t, filepath.Join(point, "000000"), tiny...); got != n {
		t.Fatalf("%d files in the first directory, want %d", got, n)
	}
	used := func() int64 { // of the heap, and of the session
		var st syscall.Stat_t
		if err := syscall.Fstat(int(m.a.file.Descriptor().Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return heapNow() + st.Blocks*512
	}
	before, names := used(), n*(n-1)
	if got := find(t, point, tiny...); got != n*n {
		t.Fatalf("%d files, want %d", got, n*n)
	}
	perName := func() float64 { return float64(used()-before) / float64(names) }
	each := perName()
	if each > most {
		t.Errorf("%.0f bytes for a name, want at most %.0f", each, most)
	}
	left := each
	eventually(t, "most of the memory of forgotten names is free", func() bool { // but for the slots of the FORGETs that come at once
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
			t.Fatal(err)
		}
		left = perName()
		return left < each/2
	})
	t.Logf("figure: %d names: %.0f bytes for each, %.0f when it is forgotten", names, each, left)
}

// TestNamesAreBounded fails when the daemon's memory grows with each name that
// was ever looked up, or when something in use is forgotten: an open file, the
// directory that a program stands in. A kernel that can't be asked to forget
// inodes (old) forgets files all the same.
func TestNamesAreBounded(t *testing.T) {
	t.Parallel()
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprint("old ", old), func(t *testing.T) {
			t.Parallel()
			const n, bound = 80, 1000
			point, m := mounted(t, &fs.Node{Dir: census{n, 1}, TTL: time.Hour}, MountOptions{Log: slog.New(slog.DiscardHandler), MaxNames: bound})
			m.a.names.old.Store(old)
			open, err := os.Open(filepath.Join(point, "000000", "000000"))
			if err != nil {
				t.Fatal(err)
			}
			defer open.Close()
			dir := filepath.Join(point, "000001")
			stander := standIn(t, dir)
			if got := find(t, point, tiny...); got != n*n {
				t.Fatalf("%d files, want %d", got, n*n)
			}
			eventually(t, fmt.Sprintf("at most %d names are known", bound), func() bool { return m.a.names.over() <= 0 })
			if b, err := io.ReadAll(open); string(b) != "x" || err != nil {
				t.Errorf("the open file reads as %q, %v", b, err)
			}
			if to, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", stander.Pid)); to != dir || err != nil {
				t.Errorf("the directory that is in use is %s now, %v", to, err)
			}
			last := fmt.Sprintf("%06d", n-1)
			if b, err := os.ReadFile(filepath.Join(point, last, last)); string(b) != "x" || err != nil {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

// standIn starts a process whose working directory is dir. The process goes there
// itself: exec.Cmd.Dir is looked up while this program's collector may wait for the
// fork to end, and stops the goroutines that have to answer the look-up.
func standIn(t *testing.T, dir string) *os.Process {
	t.Helper()
	c := exec.CommandContext(t.Context(), "sh", "-c", `cd "$1" && echo there && exec sleep 600`, "sh", dir)
	c.Stderr = t.Output()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Wait() }) // the end of the test's context kills it
	if _, err := io.ReadFull(out, make([]byte, len("there"))); err != nil {
		t.Fatal(err)
	}
	return c.Process
}

// tables is a directory of n large texts, as a tree of runs has them, each made when it is
// looked up.
type tables struct {
	fs.Dir
	n int
}

func newTables(t *testing.T, n, size int) tables {
	t.Helper()
	texts := map[string]func() []byte{}
	for i := range n {
		texts[fmt.Sprintf("%06d", i)] = func() []byte { return bytes.Repeat([]byte("x"), size) }
	}
	root, err := fs.New(fs.Options{About: texts})
	if err != nil {
		t.Fatal(err)
	}
	about, err := root.Dir.Lookup(t.Context(), fs.AboutDir)
	if err != nil {
		t.Fatal(err)
	}
	return tables{about.Dir, n}
}

func (d tables) Lookup(ctx context.Context, name string) (*fs.Node, error) {
	n, err := d.Dir.Lookup(ctx, name)
	if err == nil {
		n.TTL = time.Hour
	}
	return n, err
}

func (d tables) List(context.Context) (fs.Listing, error) {
	var out entries
	for i := range d.n {
		out = append(out, fs.Entry{Name: fmt.Sprintf("%06d", i), Node: &fs.Node{File: text(""), Later: true}})
	}
	return &out, nil
}

// TestTextsOfKnownNamesAreBounded fails when the daemon keeps the text of each table
// that a program ever looked at, beyond what the names that the kernel knows may
// take.
func TestTextsOfKnownNamesAreBounded(t *testing.T) {
	t.Parallel()
	const n, size, bound = 100, 1 << 20, 1000
	point, m := mounted(t, &fs.Node{Dir: newTables(t, n, size), TTL: time.Hour}, MountOptions{Log: slog.New(slog.DiscardHandler), MaxNames: bound})
	if got := find(t, point, "-size", "+2"); got != n {
		t.Fatalf("%d files, want %d", got, n)
	}
	eventually(t, "no more is kept than the bound allows", func() bool { return m.a.names.over() <= 0 })
	if kept, most := m.a.names.len(), bound*nameBytes/size+1; kept > most {
		t.Errorf("%d names are kept, each with a text of %d bytes: want at most %d", kept, size, most)
	}
}
