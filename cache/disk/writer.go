package disk

import (
	"cmp"
	"io/fs"
	"slices"
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

// fail ends a run of which nothing is written.
func (r *Run) fail(err error) {
	r.Released()
	r.Written(err)
}

// writer is what one goroutine at a time, of those of a File, writes: two that
// write to one file wait for each other in the kernel, and small pieces cost a
// system call each. It ends when there is nothing to write. Guarded by File.mu.
type writer struct {
	running bool
	queue   []Run
	queued  int64         // bytes in queue
	drained chan struct{} // closed when queue was taken
	failed  error         // what could not be written first
}

const (
	// RunBlocks is how many blocks are worth a write.
	RunBlocks = 16

	maxQueued = 16 << 20 // bytes that wait to be written to one file
	maxWrite  = 8 << 20  // bytes of one write
)

// Write has a run written, behind the caller, who waits only where much is to be
// written already.
func (f *File) Write(r Run) {
	f.mu.Lock()
	for f.writer.queued >= maxQueued && f.d.may(opWrite) {
		drained := f.writer.drained
		f.mu.Unlock()
		<-drained
		f.mu.Lock()
	}
	if f.closed || !f.d.may(opWrite) {
		err := errResting
		if f.closed {
			err = fs.ErrClosed
		}
		f.mu.Unlock()
		r.fail(err)
		return
	}
	w := &f.writer
	w.queue = append(w.queue, r)
	w.queued += r.bytes()
	if w.drained == nil {
		w.drained = make(chan struct{})
	}
	if !w.running {
		w.running = true
		go f.write()
	}
	f.mu.Unlock()
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
		if w.drained != nil {
			close(w.drained)
			w.drained = nil
		}
		if len(runs) == 0 {
			w.running = false
			last := f.closed
			f.mu.Unlock()
			if last {
				f.close()
			}
			return
		}
		f.mu.Unlock()
		slices.SortStableFunc(runs, func(a, b Run) int { return cmp.Compare(a.First, b.First) })
		for len(runs) > 0 {
			n, bytes := 1, runs[0].bytes()
			for n < len(runs) && runs[n].First == runs[n-1].end() && runs[n].Force == runs[0].Force && bytes+runs[n].bytes() <= maxWrite {
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
	release := func() {
		for _, r := range runs {
			r.Released()
		}
	}
	room := onDiskOf(bytes)
	err := f.d.reserve(room, runs[0].Force)
	if err == nil {
		err = f.d.try(opWrite, func() error {
			defer release()
			return f.put(runs)
		})
		f.d.written(room)
		if err != nil {
			f.d.took(-room)
		}
	}
	if err == errResting || err == ErrNoRoom {
		release()
	}
	f.mu.Lock()
	if err != nil && f.writer.failed == nil {
		f.writer.failed = err
	}
	for _, r := range runs {
		for k, sum := range r.Sums {
			if err == nil {
				f.blocks.add(r.First+int64(k), sum)
				f.blocks.verified(r.First + int64(k))
			}
		}
	}
	f.mu.Unlock()
	for _, r := range runs {
		r.Written(err)
	}
}

func (f *File) put(runs []Run) error {
	if f.record != nil && f.gone() {
		return ErrGone
	}
	var data [][]byte
	var marks []byte
	for _, r := range runs {
		data = append(data, r.Data...)
		for k, sum := range r.Sums {
			marks = append(marks, f.mark(r.First+int64(k), sum)...)
		}
	}
	if err := writeAll(f.data, data, runs[0].First*BlockSize); err != nil || f.record == nil {
		return err
	}
	_, err := f.record.WriteAt(marks, headSize+markSize*runs[0].First)
	return err
}
