package test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// TestManySmallContentsSlowNothing fails when a cache that is full of small contents
// makes a mount begin, answer for its status, read what is cached, or read and
// keep what is new later than an empty one would. (Twenty thousand here, a million
// in a soak.)
func TestManySmallContentsSlowNothing(t *testing.T) {
	needsRoot(t, "it drops the page cache")
	n := 20_000
	if soak > 0 {
		n = 1_000_000
	}
	files := map[string]int{}
	for i := range 200 {
		files[fmt.Sprintf("small/%03d", i)] = 1000 + i
	}
	const news = 8
	for i := range 2 * news {
		files[fmt.Sprintf("new/%03d", i)] = 1000 + i
	}
	e := newEngineFiles(t, files)
	dir, err := os.MkdirTemp(work, "million-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	begin := time.Now()
	if err := crowd(filepath.Join(dir, "mlflowfs-v2"), n); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d contents were made in %v", n, time.Since(begin))
	env := []string{"MLFLOWFS_CACHE_DIR=" + dir}
	flags := []string{"--no-passthrough", "--fill-limit", "0", "--memory-limit", "64MiB"}
	most := func(what string, took, bar time.Duration) {
		t.Helper()
		figure(t, "%d contents: %s: %v", n, what, took)
		if took > bar {
			t.Errorf("with %d contents, %s takes %v, more than %v", n, what, took, bar)
		}
	}

	// The first mount has no count, and none has an index: it makes them behind.
	m, began := mountTimed(t, e.URL, env, append(flags, "--cache-size", "1TiB")...)
	most("a mount without a count begins", began, time.Second)
	var small []string
	for i := range 200 {
		small = append(small, fmt.Sprintf("small/%03d", i))
	}
	begin = time.Now()
	for _, name := range small {
		e.same(t, m, name)
	}
	var used int64
	waitFor(t, "nothing counts what is there", 5*time.Minute, func() bool {
		used = usedBy(t, m)
		return used >= int64(n)*8192
	})
	figure(t, "%d contents: counted behind, in %v", n, time.Since(begin))
	m.stop()

	// The next one has the bound that this is.
	m, began = mountTimed(t, e.URL, env, append(flags, "--cache-size", fmt.Sprint(used))...)
	most("a full mount begins", began, time.Second)
	if _, err := output("ls", "-lR", m.path("runs", e.run)); err != nil {
		t.Fatal(err)
	}
	dropCaches(t)
	status := []string{m.path(".mlflowfs", "status.json")}
	most("its status", readTimed(t, status, false, 0, func() {}).worst(), 50*time.Millisecond)
	kept, err := watchRecords(filepath.Join(dir, "mlflowfs-v2"))
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	var reads, keeps []time.Duration
	for i := range news {
		name := fmt.Sprintf("new/%03d", i)
		begin := time.Now()
		x := readTimed(t, []string{m.path("runs", e.run, name)}, false, 0, func() { begin = time.Now() })
		at, err := kept.next(5 * time.Second)
		if err != nil {
			t.Errorf("what is new is not kept: %v", err)
			continue
		}
		reads, keeps = append(reads, x.worst()), append(keeps, at.Sub(begin))
		time.Sleep(300 * time.Millisecond)
	}
	t.Logf("new files: read in %v, kept in %v", reads, keeps)
	var paths []string
	for _, name := range small {
		paths = append(paths, m.path("runs", e.run, name))
	}
	before := m.cache()
	x := readTimed(t, paths, false, 2*time.Second, func() {})
	most("the longest wait of a cached read", x.worst(), longestWait)
	if did := m.cache().Since(before); did.OriginBytes > 0 || did.Misses > 0 || did.Hits() < len(small) {
		t.Errorf("what is cached was not read from the cache: %+v", did)
	}
	most("its status, later", readTimed(t, status, false, 0, func() {}).worst(), 50*time.Millisecond)
	if len(keeps) > 0 {
		most("a new file is read", median(reads), 50*time.Millisecond)
		most("a new file is kept", median(keeps), 50*time.Millisecond)
	}
	figure(t, "%d contents: %+v", n, m.vitals())
}

func median(of []time.Duration) time.Duration {
	of = append([]time.Duration{}, of...)
	for i := range of {
		for j := i; j > 0 && of[j] < of[j-1]; j-- {
			of[j], of[j-1] = of[j-1], of[j]
		}
	}
	return of[len(of)/2]
}

// mountTimed is mountAt, and how long it takes.
func mountTimed(t *testing.T, uri string, env []string, flags ...string) (*mount, time.Duration) {
	t.Helper()
	if _, err := shipped(); err != nil { // it is built
		t.Fatal(err)
	}
	begin := time.Now()
	m := mountAt(t, uri, env, flags...)
	return m, time.Since(begin)
}

// usedBy is the disk that a mount says the cache takes, in bytes.
func usedBy(t *testing.T, m *mount) int64 {
	t.Helper()
	var s struct {
		Cache struct {
			Disk int64 `json:"disk_bytes"`
		}
	}
	if err := count.Status(m.dir, &s); err != nil {
		t.Fatal(err)
	}
	return s.Cache.Disk
}

// crowd fills a cache directory with n contents of 100 bytes, whole and valid, that
// no file has; they were used longer ago than any that follows. See cache/disk for
// what is where.
func crowd(dir string, n int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	errs := make(chan error, 256)
	var wg sync.WaitGroup
	shards := make(chan int)
	for range 4 {
		wg.Go(func() {
			for s := range shards {
				if err := crowdShard(dir, s, n/256+min(1, max(0, n%256-s))); err != nil {
					errs <- err
				}
			}
		})
	}
	for s := range 256 {
		shards <- s
	}
	close(shards)
	wg.Wait()
	close(errs)
	var all error
	for err := range errs {
		all = errors.Join(all, err)
	}
	return all
}

func crowdShard(dir string, shard, n int) error {
	sub := filepath.Join(dir, fmt.Sprintf("%02x", shard))
	if err := os.Mkdir(sub, 0o700); err != nil {
		return err
	}
	sum := func(b []byte) uint32 { return uint32(xxh3.Hash(b)) }
	data := bytes.Repeat([]byte("crowd"), 20)
	for i := range n {
		name := sha256.Sum256(fmt.Appendf(nil, "%d %d", shard, i))
		name[0] = byte(shard)
		nonce := uint64(i)<<8 | uint64(shard) | 1<<63
		head := make([]byte, 0, 512+8)
		head = append(head, "mlflowfs 3\n"...)
		head = append(head, name[:]...)
		head = binary.BigEndian.AppendUint64(head, nonce)
		head = binary.BigEndian.AppendUint64(head, uint64(len(data)))
		head = binary.BigEndian.AppendUint32(head, 128<<10)
		head = binary.BigEndian.AppendUint16(head, 1)
		head = append(head, 'v')
		head = head[:512]
		binary.BigEndian.PutUint32(head[508:], sum(head[:508]))
		mark := binary.BigEndian.AppendUint32(nil, sum(data))
		mark = binary.BigEndian.AppendUint64(mark, 0)
		mark = binary.BigEndian.AppendUint64(mark, nonce)
		mark = append(mark, name[:]...)
		head = binary.BigEndian.AppendUint32(head, sum(data))
		head = binary.BigEndian.AppendUint32(head, sum(mark)|1)
		base := filepath.Join(sub, hex.EncodeToString(name[1:]))
		if err := errors.Join(os.WriteFile(fmt.Sprintf("%s.%016x", base, nonce), data, 0o600), os.WriteFile(base+".rec", head, 0o600)); err != nil {
			return err
		}
	}
	return nil
}

// records watches the records of a cache directory (inotify(7)).
type records struct{ *os.File }

func watchRecords(dir string) (*records, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	r := &records{os.NewFile(uintptr(fd), "inotify")}
	for s := range 256 {
		if _, err := unix.InotifyAddWatch(fd, filepath.Join(dir, fmt.Sprintf("%02x", s)), unix.IN_MODIFY); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	return r, nil
}

// next waits until a content's mark is written, and gives when that was. A record
// is written to by the name that it had before its own: its head, and then, behind
// the bytes, the mark.
func (r *records) next(wait time.Duration) (time.Time, error) {
	r.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 64<<10)
	for heads := map[string]bool{}; ; {
		n, err := r.Read(buf)
		at := time.Now()
		if err != nil {
			return at, err
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			size := int(binary.NativeEndian.Uint32(b[12:]))
			name := string(bytes.TrimRight(b[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size], "\x00"))
			b = b[unix.SizeofInotifyEvent+size:]
			switch {
			case !strings.HasSuffix(name, ".new"): // the bytes
			case heads[name]:
				return at, nil
			default:
				heads[name] = true
			}
		}
	}
}
