package test

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// TestStreamCostsOneGet fails when what comes as one stream only costs more than
// one GET of the server, or the server more than one of its store, whatever order
// several programs read in.
func TestStreamCostsOneGet(t *testing.T) {
	t.Parallel()
	const size = 24<<20 + 3
	o := theObjects(t)
	file := fileOf(t, size)
	sum := sumOf(t, file)
	for _, c := range []struct {
		origin, door string
		key          func(*origin) string
		flags        []string
	}{
		{"served 2.22", artifactsAPI + "/", served("mlflow2"), nil},
		{"served", artifactsAPI + "/", served("mlflow3"), []string{"--artifact-access", "server"}},
		{"s3", "/get-artifact?", func(or *origin) string { return strings.TrimPrefix(or.URI, "s3://"+bucket+"/") }, []string{"--artifact-access", "server"}},
	} {
		t.Run(c.origin, func(t *testing.T) {
			t.Parallel()
			or := originAt(t, c.origin)
			o.put(t, "s3", c.key(or)+"/stream/f.bin", file)
			p := proxyTo(t, or.server.url())
			m := mountRaced(t, p.URL, nil, c.flags...)
			path := m.path("runs", or.Run, "stream", "f.bin")
			var wg sync.WaitGroup
			for seed := range 3 {
				wg.Go(func() {
					out, err := output("python3", "-c", `
import hashlib, mmap, os, random, sys
path, truth, seed = sys.argv[1], open(sys.argv[2], "rb").read(), int(sys.argv[3])
r, fd = random.Random(seed), os.open(path, os.O_RDONLY)
at = len(truth) - 100 if seed == 0 else r.randrange(len(truth))  # one begins at the end
assert os.pread(fd, 100, at) == truth[at:at + 100]
with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as m:
    for _ in range(100):
        at, n = r.randrange(len(truth)), r.choice([1, 4096, 300_000])
        assert (os.pread(fd, n, at) if n > 1 else m[at:at + n]) == truth[at:at + n]
print(hashlib.sha256(open(path, "rb").read()).hexdigest())
`, path, file, fmt.Sprint(seed))
					if err != nil || strings.TrimSpace(string(out)) != sum {
						t.Errorf("%s, %v", out, err)
					}
				})
			}
			wg.Wait()
			if requests, _ := p.Reset(); count.Of(requests, c.door) != 1 || count.Of(requests, "f.bin") != 1 {
				t.Errorf("it cost:\n%s", strings.Join(requests, "\n"))
			}
		})
	}
}

// served is the key of a served run's artifacts, whose URI has only the path
// below the server's destination.
func served(destination string) func(*origin) string {
	return func(or *origin) string {
		return filepath.Join(destination, strings.TrimPrefix(or.URI, "mlflow-artifacts:/"))
	}
}
