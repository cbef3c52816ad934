package cache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// TestReplacedContentsDoNotMix fails when what a program reads from one open file
// is of two versions, though the file at the origin was replaced only while nobody
// had it open: whichever of two daemons on one directory meets the change, whatever
// is evicted or brought in between, what the kernel keeps of the file from one open
// to the next, and whether the origin gives validators, and ranges, or neither.
func TestReplacedContentsDoNotMix(t *testing.T) {
	t.Parallel()
	for name, whole := range origins() {
		for _, validators := range []bool{true, false} {
			for _, kept := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, validators %v, on disk %v", name, validators, kept), func(t *testing.T) {
					bubble(t, func(t *testing.T) { mix(t, whole, validators, kept) })
				})
			}
		}
	}
}

// versioned is an origin whose file is replaced: each byte is the version's.
type versioned struct {
	version           byte
	whole, validators bool
}

const mixedBlocks = 12

func (o *versioned) ReadRange(_ context.Context, off, n int64, validator string) (*Body, error) {
	b := &Body{Whole: o.whole, Total: mixedBlocks * BlockSize}
	if o.validators {
		b.Validator = fmt.Sprint("v", o.version)
		if validator != "" && validator != b.Validator {
			return nil, ErrChanged
		}
	}
	if o.whole {
		n = b.Total
	}
	b.ReadCloser = io.NopCloser(bytes.NewReader(bytes.Repeat([]byte{o.version}, int(n))))
	return b, nil
}

// kernel is what the kernel keeps of a file: the version of each block, until the
// file is another by its generation.
type kernel struct {
	c          *Cache
	generation uint64
	pages      map[int64]byte
}

// read reads n blocks from one open file, and gives the versions of what it read.
func (k *kernel) read(t *testing.T, r *rand.Rand, key Key, o *versioned, n int) {
	t.Helper()
	f := k.c.Open(key, o, true)
	defer f.Close()
	if k.pages == nil || f.Generation() != k.generation {
		k.pages, k.generation = map[int64]byte{}, f.Generation()
	}
	seen := map[byte]bool{}
	at := r.Int64N(mixedBlocks)
	for range n {
		if v, ok := k.pages[at]; ok {
			seen[v] = true
		} else {
			p := make([]byte, BlockSize)
			if _, err := f.ReadAt(t.Context(), p, at*BlockSize); err != nil {
				break // the program knows
			}
			if !bytes.Equal(p, bytes.Repeat(p[:1], BlockSize)) {
				t.Fatal("a block is of two versions")
			}
			k.pages[at], seen[p[0]] = p[0], true
		}
		at = (at + 1) % mixedBlocks
	}
	if len(seen) > 1 {
		t.Fatalf("one open file is of the versions %v", seen)
	}
}

func mix(t *testing.T, whole, validators, kept bool) {
	seed := seedOf(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("it ran with seed %d", seed)
		}
	})
	r := rand.New(rand.NewPCG(seed, 11))
	dir := t.TempDir()
	daemon := func() *Cache {
		if kept {
			return nextProcess(t, dir, 1<<30)
		}
		return memoryCache(t, Options{Memory: mib})
	}
	o := &versioned{version: 1, whole: whole, validators: validators}
	key := Key{"x", mixedBlocks * BlockSize, ""}
	kernels := []*kernel{{c: daemon()}, {c: daemon()}}
	for range 500 {
		k := kernels[r.IntN(len(kernels))]
		switch r.IntN(10) {
		case 0, 1:
			for _, k := range kernels {
				k.c.Wait()
			}
			o.version++
		case 2:
			if kept {
				k.c.opt.Disk.Evict(disk.Key(key))
			}
		case 3: // as `warm` does, in a process of its own
			if kept {
				c := daemon()
				(&kernel{c: c}).read(t, r, key, o, mixedBlocks)
				c.Wait()
			}
		case 4: // what is in memory goes
			take(t, k.c, Key{"y", 8 * BlockSize, ""}, &origin{data: noise(8 * BlockSize), validator: etag})
		case 5: // and what the kernel has, in part
			for i := range int64(mixedBlocks) {
				if r.IntN(2) == 0 {
					delete(k.pages, i)
				}
			}
		default:
			k.read(t, r, key, o, 1+r.IntN(mixedBlocks))
		}
	}
}
