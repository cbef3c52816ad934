package disk

import (
	"cmp"
	"io/fs"
	"os"
	"slices"
	"sync"
)

// Run is blocks that follow each other, to be written.
type Run struct {
	First int64    // the first block
	Data  [][]byte // each block's bytes
	Sums  []uint32 // their checksums
	Force bool     // they are written beyond the bound, too: nothing else keeps them

	Written  func(error) // is told how it ended
	Released func()      // is called when Data is used no more
}

func (r *Run) end() int64 { return r.First + int64(len(r.Data)) }

func (r *Run) bytes() (n int64) { // of memory
	for _, b := range r.Data {
		n += int64(len(b))
	}
	return n
}

// writer is what one goroutine at a time, of those of a File, writes: two that
// write to one file wait for each other in the kernel, and small pieces cost a
// system call each. It ends when there is nothing to write. Guarded by File.mu.
type writer struct {
	running bool
	queue   []Run
	queued  int64     // bytes in queue
	drained sync.Cond // queue was taken
	failed  error     // of the first write that failed
}

const (
	// RunBlocks is how many blocks are worth a write, and are written by one system
	// call. They have less than 2 MiB, from which on a filesystem looks for memory in
	// pieces as large: these are dear where memory is in use, or was given back to a
	// machine's host, and cost up to twice the rest.
	RunBlocks = 15

	largeRun = 4 // blocks whose place is worth taking

	maxQueued = 4 << 20 // bytes that wait to be written to one file
)

// Write has a run written, behind the caller, who waits only where much is to be
// written already.
func (f *File) Write(r Run) {
	f.mu.Lock()
	w := &f.writer
	for w.queued >= maxQueued && f.d.may(opWrite) {
		w.drained.Wait()
	}
	var err error
	switch {
	case f.closed:
		err = fs.ErrClosed
	case !f.d.may(opWrite):
		err = errResting
	default:
		w.queue = append(w.queue, r)
		w.queued += r.bytes()
		if !w.running {
			w.running = true
			go f.write()
		}
	}
	f.mu.Unlock()
	if err != nil {
		r.Released()
		r.Written(err)
	}
}

// Failed is the first error of a write.
func (f *File) Failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writer.failed
}

// write writes what is queued until there is nothing.
func (f *File) write() {
	for {
		f.mu.Lock()
		w := &f.writer
		runs := w.queue
		w.queue, w.queued = nil, 0
		w.drained.Broadcast()
		w.running = len(runs) > 0
		last := !w.running && f.closed
		f.mu.Unlock()
		if len(runs) == 0 {
			if last {
				f.letGo()
			}
			return
		}
		slices.SortStableFunc(runs, func(a, b Run) int { return cmp.Compare(a.First, b.First) })
		for len(runs) > 0 {
			n, bytes := 1, runs[0].bytes()
			for n < len(runs) && runs[n].First == runs[n-1].end() && runs[n].Force == runs[0].Force && bytes+runs[n].bytes() <= RunBlocks*BlockSize {
				bytes += runs[n].bytes()
				n++
			}
			f.writeOne(runs[:n], bytes)
			runs = runs[n:]
		}
	}
}

// writeOne writes adjacent runs: the bytes in one call, and then the marks.
func (f *File) writeOne(runs []Run, bytes int64) {
	released := func() {
		for _, r := range runs {
			r.Released()
		}
	}
	room := onDiskOf(bytes)
	there, err := f.here(runs)
	if err == nil && !there {
		err = f.d.reserve(room, runs[0].Force)
	}
	if err != nil || there {
		released()
	} else {
		took := int64(0)
		err = f.d.tryWith(opWrite, func() {
			f.d.wrote(f.name, room, took)
			released()
		}, func() (err error) {
			if took, err = f.put(runs); err == nil {
				f.wrote(runs) // before they are released: a reader finds them here or there
			}
			return err
		})
	}
	f.mu.Lock()
	if err != nil && f.writer.failed == nil {
		f.writer.failed = err
	}
	f.mu.Unlock()
	for _, r := range runs {
		r.Written(err)
	}
}

// wrote notes that the blocks of runs are on disk.
func (f *File) wrote(runs []Run) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.written++
	for _, r := range runs {
		for k, sum := range r.Sums {
			f.blocks.set(r.First+int64(k), verified, sum)
		}
	}
}

// here is ErrGone where what is written would count for nobody. A disk that answers
// no stat is written to all the same.
//
// A file that others have under names of their own is not written to. What is there
// of runs, from another process, is told; if anything else is to be written, the
// file is damaged, and leaves the cache: the content is begun anew.
func (f *File) here(runs []Run) (there bool, err error) {
	if f.record == nil {
		return false, nil
	}
	type standing struct{ gone, shared bool }
	is, err := do(f.d, opStat, func() (is standing, err error) {
		record, err := f.record.Stat()
		if err != nil {
			return is, err
		}
		data, err := f.data.Stat()
		if err == nil {
			is.gone = links(record) == 0
			is.shared = links(record) > 1 || links(data) > 1 || data.Mode()&0o200 == 0
		}
		return is, err
	}, nil)
	switch {
	case err != nil || (!is.gone && (!is.shared || !f.Kept())):
		return false, nil
	case is.gone:
		return false, ErrGone
	case f.brought(runs):
		return true, nil
	}
	f.Remove()
	return false, ErrGone
}

// brought tells whether another process has written all of runs.
func (f *File) brought(runs []Run) bool {
	for _, r := range runs {
		f.Refresh(r.First, int64(len(r.Data)))
		for k, sum := range r.Sums {
			f.mu.Lock()
			s, is := f.blocks.get(r.First + int64(k))
			f.mu.Unlock()
			if !s.readable() || is != sum {
				return false
			}
		}
	}
	return true
}

// put returns how much more of the disk the file takes.
func (f *File) put(runs []Run) (took int64, err error) {
	var data [][]byte
	var marks []byte
	for _, r := range runs {
		data = append(data, r.Data...)
		for k, sum := range r.Sums {
			marks = append(marks, f.mark(r.First+int64(k), sum)...)
		}
	}
	if f.d != nil && f.d.takesPlace && len(data) >= largeRun {
		takePlace(f.data, runs[0].First*BlockSize, int64(len(data)-1)*BlockSize+int64(len(data[len(data)-1])))
	}
	n, err := writeAll(f.data, data, runs[0].First*BlockSize)
	if err == nil && f.record != nil {
		_, err = f.record.WriteAt(marks, headSize+markSize*runs[0].First)
	}
	return onDiskOf(n), err
}

// writeAll writes pieces that follow each other: in one call, or, what that
// leaves, one by one.
func writeAll(f *os.File, pieces [][]byte, off int64) (written int64, err error) {
	left := writev(f, pieces, off) // of what it wrote
	for _, p := range pieces {
		n := min(left, len(p))
		left -= n
		if n < len(p) {
			more, err := f.WriteAt(p[n:], off+written+int64(n))
			if err != nil {
				return written + int64(n+more), err
			}
		}
		written += int64(len(p))
	}
	return written, nil
}
