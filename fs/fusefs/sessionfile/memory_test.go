//go:build linux

package sessionfile

import (
	"runtime"
	"testing"
	"time"
)

// taken is what a file takes of the machine's memory, and this process of its heap.
func taken(t *testing.T, f *File) int64 {
	t.Helper()
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	file := int64(0)
	if f != nil {
		var err error
		if file, err = allocated(f.Descriptor()); err != nil {
			t.Fatal(err)
		}
	}
	return file + int64(stats.HeapAlloc)
}

// TestMillionNamesTakeLittleMemory fails when a million names take more than 115 MiB, when
// memory does not go back with names, or when one that is added waits long.
func TestMillionNamesTakeLittleMemory(t *testing.T) {
	many := many
	if raceDetector {
		many /= 4
	}
	before := taken(t, nil)
	f := create(t)
	longest := time.Duration(0)
	start := time.Now()
	for i := range uint64(many) {
		at := time.Now()
		if _, err := f.Names.Add(Name{Number: numberOf(i), Check: i, Parent: i % 1000, Dir: true, Name: runName(i)}); err != nil {
			t.Fatal(err)
		}
		longest = max(longest, time.Since(at))
	}
	took := time.Since(start)
	all := taken(t, f) - before
	t.Logf("%d MiB, %.1f bytes a name, added in %v, the longest in %v", all>>20, float64(all)/float64(many), took, longest)
	if all > 115<<20*int64(many)/1e6 {
		t.Errorf("a million names take %d MiB", all>>20)
	}
	next := open(t, f)
	if two := taken(t, next) - before; two > 125<<20*int64(many)/1e6 { // the former's buckets are here too
		t.Errorf("a million names take %d MiB after the file was opened", two>>20)
	}
	for i := range uint64(many) {
		next.Names.Remove(next.Names.At(numberOf(i)))
	}
	f.Names = newNames(f.Names.chunks)
	if left := taken(t, next) - before; left > 1<<20 || next.Names.Len() != 0 {
		t.Errorf("none of a million names take %d KiB", left>>10)
	}
	if left := taken(t, open(t, next)) - before; left > 1<<20 {
		t.Errorf("none of a million names take %d KiB after the file was opened", left>>10)
	}
}

// TestHalfMadeChunksAreReleased fails when a daemon that is killed while it gives a chunk
// memory, or takes it away, leaves that memory taken, or what was in it to be read.
func TestHalfMadeChunksAreReleased(t *testing.T) {
	t.Parallel()
	f := create(t)
	for i := range uint64(10000) {
		if _, err := f.Names.Add(Name{Number: i, Name: "a name"}); err != nil {
			t.Fatal(err)
		}
	}
	c := f.Names.chunks
	last := int32(len(c.all)) - 1
	first := 0
	for i := range last + 1 {
		if i%3 == 1 { // with their records in them
			f.mem.store32(c.wordOf(i), 0)
		} else {
			first += int(c.all[i].used)
		}
	}
	if err := allocate(c.f, c.off(last+5), chunkSize); err != nil {
		t.Fatal(err)
	}
	was, err := allocated(f.f)
	if err != nil {
		t.Fatal(err)
	}
	next := open(t, f)
	now, err := allocated(f.f)
	if err != nil || now > was-int64(last/3+1)*chunkSize || next.Names.Len() != first {
		t.Errorf("%d bytes are taken of %d, and there are %d names of %d: %v", now, was, next.Names.Len(), first, err)
	}
	for i := range uint64(20000) {
		if _, err := next.Names.Add(Name{Number: 1<<40 + i, Name: "another one"}); err != nil {
			t.Fatal(err)
		}
	}
	if again := open(t, next); again.Names.Len() != first+20000 {
		t.Errorf("%d names, and not %d", again.Names.Len(), first+20000)
	}
}
