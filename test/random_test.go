package test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// TestRandomReadsAreRight fails when several processes that read at random, by
// pread and through a map, with a cache that holds a part of the file, get a
// wrong byte.
func TestRandomReadsAreRight(t *testing.T) {
	t.Parallel()
	const size = 48<<20 + 4321
	for _, kind := range byteKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := newBytesOf(t, kind)
			file, onDisk := b.plant("random.bin", size), b.onDisk("random.bin")
			m := mountRaced(t, b.uri, nil, "--cache-dir", "none", "--memory-limit", "64MiB")
			var wg sync.WaitGroup
			for seed := range 4 {
				wg.Go(func() {
					out, err := output("python3", "-c", `
import mmap, os, random, sys
path, truth, seed = sys.argv[1:]
truth, r = open(truth, "rb").read(), random.Random(int(seed))
fd = os.open(path, os.O_RDONLY)
with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as m:
    assert len(m) == len(truth)
    for i in range(250):
        at, n = r.randrange(len(truth)), r.choice([1, 100, 4096, 70_000, 1_500_000])
        got = os.pread(fd, n, at) if i % 2 else m[at:at + n]
        want = truth[at:at + n]
        # pread gives less than was asked for only at the end of the file
        assert got == want, f"{len(got)} of {len(want)} bytes from {at}, or other ones"
assert os.pread(fd, 10, len(truth)) == b""
print("ok")
`, m.path(file), onDisk, fmt.Sprint(seed))
					if err != nil || strings.TrimSpace(string(out)) != "ok" {
						t.Errorf("seed %d: %s, %v", seed, out, err)
					}
				})
			}
			wg.Wait()
		})
	}
}
