package fs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// census is a directory of n directories of n files each.
type census struct{ n, depth int }

func (c census) child(i int) *Node {
	if c.depth == 0 {
		return &Node{File: text("x"), Size: 1, TTL: time.Hour}
	}
	return &Node{Dir: census{c.n, c.depth - 1}, TTL: time.Hour}
}

func (c census) Lookup(_ context.Context, name string) (*Node, error) {
	i, err := strconv.Atoi(name)
	if err != nil || i >= c.n {
		return nil, notExist(name)
	}
	return c.child(i), nil
}

func (c census) List(context.Context) (Listing, error) { return &roll{c: c}, nil }

type roll struct {
	c census
	i int
}

func (r *roll) Next(context.Context) (Entry, error) {
	if r.i == r.c.n {
		return Entry{}, io.EOF
	}
	r.i++
	return Entry{fmt.Sprintf("%06d", r.i-1), r.c.child(r.i - 1)}, nil
}

// Names that the kernel knows take what they did, most of it go-fuse's, and
// those that it forgets take none. (A hundred thousand of them here;
// MLFLOWFS_TEST_SEEDS has a million.)
func TestManyNames(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test has the kernel forget names: run it as root")
	}
	n := 316
	if os.Getenv("MLFLOWFS_TEST_SEEDS") != "" {
		n = 1000
	}
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	point, _ := mounted(t, &Node{Dir: census{n, 1}, TTL: time.Hour}, MountOptions{Log: slog.New(slog.DiscardHandler)})
	out, err := exec.Command("find", point, "-size", "-2", "-type", "f", "-printf", "x").Output()
	if err != nil || len(out) != n*n {
		t.Fatal(len(out), err)
	}
	each := float64(heap()-before) / float64(n*n)
	if each > 850 {
		t.Errorf("%.0f bytes for a name", each)
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
		t.Fatal(err)
	}
	var left float64
	for range 50 {
		time.Sleep(100 * time.Millisecond)
		if left = float64(heap()-before) / float64(n*n); left < each/5 {
			break
		}
	}
	if left > each/5 {
		t.Errorf("%.0f bytes for a name, and %.0f when it is forgotten", each, left)
	}
	t.Logf("%.0f bytes for a name, %.0f when it is forgotten", each, left)
}

// Beyond a bound the kernel is asked to forget what is not in use, and what is
// in use stays: an open file, the directory that a program stands in. A kernel
// that can't be asked so forgets files all the same.
func TestNamesAreBounded(t *testing.T) {
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprint("old ", old), func(t *testing.T) {
			const n, bound = 120, 1000
			point, m := mounted(t, &Node{Dir: census{n, 1}, TTL: time.Hour}, MountOptions{Log: slog.New(slog.DiscardHandler), MaxNames: bound})
			m.names.old.Store(old)
			open, err := os.Open(filepath.Join(point, "000000", "000000"))
			if err != nil {
				t.Fatal(err)
			}
			defer open.Close()
			sleep := exec.Command("sleep", "60")
			sleep.Dir = filepath.Join(point, "000001")
			if err := sleep.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				sleep.Process.Kill()
				sleep.Wait()
			}()
			out, err := exec.Command("find", point, "-size", "-2", "-type", "f", "-printf", "x").Output()
			if err != nil || len(out) != n*n {
				t.Fatal(len(out), err)
			}
			known := 0
			for range 100 {
				m.names.mu.Lock()
				known = m.names.known.Len()
				m.names.mu.Unlock()
				if known <= bound {
					break
				}
				time.Sleep(50 * time.Millisecond)
			}
			if known > bound {
				t.Errorf("%d names are known, of at most %d", known, bound)
			}
			if b, err := io.ReadAll(open); string(b) != "x" || err != nil {
				t.Errorf("the open file reads as %q, %v", b, err)
			}
			if to, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", sleep.Process.Pid)); to != sleep.Dir || err != nil {
				t.Errorf("the directory that is in use is %s now, %v", to, err)
			}
			if b, err := os.ReadFile(filepath.Join(point, "000119", "000119")); string(b) != "x" || err != nil {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}
