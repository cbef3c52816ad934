package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"
)

// The reference model: what a mount shows is held against the known files by
// processes that do, at random, all that a program does with a read-only
// filesystem, while the origin is broken under it. An operation may fail with
// an error; it may not give a wrong byte, a short read, a name too many or one
// too few.

// asWorker is the variable that makes this test program one such process.
const asWorker = "MLFLOWFS_TEST_WORKER"

// job is what such a process is to do, as JSON in asWorker.
type job struct {
	Mount, Truth string // directories
	Seed         uint64
	For          time.Duration
	Replaced     bool // the files are patchworks, and are replaced all the time
}

// found is what it says when it is done.
type found struct {
	Ops    int
	Errors map[string]int // by operation and errno
	Worst  time.Duration  // the longest operation
	Wrong  string
	Mixed  []mixture // reads of replaced files that were not of one version
}

// add counts what another process has found, too.
func (f *found) add(other found) {
	f.Ops += other.Ops
	f.Mixed = append(f.Mixed, other.Mixed...)
	f.Worst = max(f.Worst, other.Worst)
	for k, n := range other.Errors {
		f.Errors[k] += n
	}
}

func actAsWorker(spec string) {
	var j job
	if err := json.Unmarshal([]byte(spec), &j); err != nil {
		panic(err)
	}
	if j.Replaced {
		actOnReplaced(j)
		return
	}
	w := &worker{job: j, r: rand.New(rand.NewPCG(j.Seed, 2)), names: map[string][]string{}}
	out := found{Errors: map[string]int{}}
	if err := w.learn(); err != nil {
		out.Wrong = err.Error()
	}
	debug.SetPanicOnFault(true) // a map that can't be filled is a SIGBUS
	end := time.Now().Add(j.For)
	for out.Wrong == "" && time.Now().Before(end) {
		begin := time.Now()
		op, wrong, err := w.step()
		out.Ops++
		out.Worst = max(out.Worst, time.Since(begin))
		if wrong != "" {
			out.Wrong = fmt.Sprintf("operation %d: %s", out.Ops, wrong)
		}
		if err != nil {
			var no syscall.Errno
			errors.As(err, &no)
			out.Errors[op+" "+no.Error()]++
			if !slices.Contains([]syscall.Errno{syscall.EIO, syscall.ESTALE, syscall.EACCES, syscall.ENOENT}, no) || (no == syscall.ENOENT && op != "pread" && op != "map" && op != "whole") {
				out.Wrong = fmt.Sprintf("operation %d: %s: %v", out.Ops, op, err)
			}
		}
	}
	json.NewEncoder(os.Stdout).Encode(out)
}

// worker is such a process's mind.
type worker struct {
	job
	r     *rand.Rand
	dirs  []string
	files []string
	data  [][]byte            // of the files
	names map[string][]string // of a directory
	open  []opened
}

type opened struct {
	f    *os.File
	file int
}

// learn reads the truth.
func (w *worker) learn() error {
	return filepath.WalkDir(w.Truth, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(w.Truth, p)
		if err != nil {
			return err
		}
		if rel != "." {
			w.names[filepath.Dir(rel)] = append(w.names[filepath.Dir(rel)], e.Name())
		}
		if e.IsDir() {
			w.dirs = append(w.dirs, rel)
			return nil
		}
		b, err := os.ReadFile(p)
		w.files, w.data = append(w.files, rel), append(w.data, b)
		return err
	})
}

func (w *worker) at(rel string) string { return filepath.Join(w.Mount, rel) }

// span is a random piece of a file, that may reach beyond its end.
func (w *worker) span(size int) (off, n int) {
	n = []int{1, 100, 4096, 60_000, 131_072, 131_073, 1 << 20}[w.r.IntN(7)]
	switch w.r.IntN(4) {
	case 0:
		off = max(size-n/2, 0)
	case 1:
		off = 0
	default:
		off = w.r.IntN(size + 1)
	}
	return off, n
}

// step does one operation: what it was, what is wrong, and its error.
func (w *worker) step() (op, wrong string, err error) {
	k := w.r.IntN(len(w.files))
	file, want := w.files[k], w.data[k]
	switch n := w.r.IntN(100); {
	case n < 15:
		st, err := os.Lstat(w.at(file))
		if err == nil && (st.IsDir() || st.Size() != int64(len(want))) {
			wrong = fmt.Sprintf("%s has %d bytes, and not %d", file, st.Size(), len(want))
		}
		return "stat", wrong, err
	case n < 20:
		dir := w.dirs[w.r.IntN(len(w.dirs))]
		st, err := os.Lstat(w.at(dir))
		if err == nil && !st.IsDir() {
			wrong = dir + " is no directory"
		}
		return "stat", wrong, err
	case n < 25:
		name := file + []string{"x", ".", "/x", "~"}[w.r.IntN(4)]
		_, err := os.Lstat(w.at(name))
		if err == nil {
			wrong = name + " is there"
		}
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) {
			err = nil
		}
		return "absent", wrong, err
	case n < 35:
		dir := w.dirs[w.r.IntN(len(w.dirs))]
		entries, err := os.ReadDir(w.at(dir))
		if err == nil {
			var got []string
			for _, e := range entries {
				got = append(got, e.Name())
			}
			if !slices.Equal(got, w.names[dir]) {
				wrong = fmt.Sprintf("%s holds %q, and not %q", dir, got, w.names[dir])
			}
		}
		return "list", wrong, err
	case n < 50:
		f, err := os.Open(w.at(file))
		if err == nil {
			w.open = append(w.open, opened{f, k})
		}
		if len(w.open) > 12 {
			w.shut(0)
		}
		return "open", "", err
	case n < 55 && len(w.open) > 0:
		w.shut(w.r.IntN(len(w.open)))
		return "close", "", nil
	case n < 85 && len(w.open) > 0:
		return w.pread(w.open[w.r.IntN(len(w.open))])
	case n < 95 && len(w.open) > 0:
		return w.mapped(w.open[w.r.IntN(len(w.open))])
	}
	f, err := os.Open(w.at(file))
	if err != nil {
		return "open", "", err
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if !bytes.HasPrefix(want, got) || (err == nil && len(got) != len(want)) {
		wrong = fmt.Sprintf("%s reads as %d of %d bytes%s", file, len(got), len(want), differs(want, got))
	}
	return "whole", wrong, err
}

// differs says where bytes are not those that are wanted.
func differs(want, got []byte) string {
	n := min(len(want), len(got))
	for i := range n {
		if want[i] != got[i] {
			last := n - 1
			for want[last] == got[last] {
				last--
			}
			return fmt.Sprintf(", of which those from %d to %d differ: %x… and not %x…", i, last, got[i:min(i+16, n)], want[i:min(i+16, n)])
		}
	}
	return ""
}

func (w *worker) shut(i int) {
	w.open[i].f.Close()
	w.open = slices.Delete(w.open, i, i+1)
}

func (w *worker) pread(o opened) (op, wrong string, err error) {
	want := w.data[o.file]
	off, n := w.span(len(want))
	buf := make([]byte, n)
	want = want[off:min(off+n, len(want))]
	for got := 0; ; {
		// Where a page can't be had, the kernel gives what is before it, and its
		// error to who goes on there.
		some, err := syscall.Pread(int(o.f.Fd()), buf[got:], int64(off+got))
		if err != nil {
			return "pread", "", err
		}
		if !bytes.Equal(buf[got:got+some], want[got:min(got+some, len(want))]) {
			return "pread", fmt.Sprintf("%s: %d bytes from %d%s", w.files[o.file], some, off+got, differs(want[got:], buf[got:got+some])), nil
		}
		got += some
		if some == 0 && got < len(want) {
			return "pread", fmt.Sprintf("%s ends at %d", w.files[o.file], off+got), nil
		}
		if some == 0 || got == n {
			return "pread", "", nil
		}
	}
}

func (w *worker) mapped(o opened) (op, wrong string, err error) {
	want := w.data[o.file]
	if len(want) == 0 {
		return "map", "", nil
	}
	m, err := syscall.Mmap(int(o.f.Fd()), 0, len(want), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return "map", "", err
	}
	defer syscall.Munmap(m)
	defer func() {
		if e := recover(); e != nil { // the page could not be had
			op, wrong, err = "map", "", syscall.EIO
		}
	}()
	off, n := w.span(len(want))
	end := min(off+n, len(want))
	if !bytes.Equal(m[off:end], want[off:end]) {
		wrong = fmt.Sprintf("%s: the map between %d and %d%s", w.files[o.file], off, end, differs(want[off:end], m[off:end]))
	}
	return "map", wrong, nil
}
