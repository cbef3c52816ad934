package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Disk is a directory that keeps contents from one process to the next, and
// that any number of processes use at once. It holds, for each content, a
// sparse file with the bytes and a record of the blocks in it (see [entry]),
// under the SHA-256 of the content's location, size and validator.
//
// What is written is never written over, but by the same bytes, and never cut:
// to make room, whole contents go by their names, those used longest ago
// first, and who has one open reads on. The bytes of all processes are counted
// in one shared word.
type Disk struct {
	dir   string
	scope string
	bound int64
	lock  *os.File // flock(2): who makes or removes entries
	used  *int64   // bytes, by all processes: a page of the file "usage"

	health *health

	mu     sync.Mutex     // guards what follows; no other lock is taken under it
	inUse  map[string]int // contents that this process has open
	toFree int64          // bytes until the disk's free space is looked at again
	vain   time.Time      // when a scan found nothing more to remove
}

const (
	diskLayout  = "mlflowfs-v1"
	freePart    = 20       // one in so many bytes of the disk stays free
	freeEvery   = 16 << 20 // bytes between two looks at that, at most
	freeParts   = 200      // and at most so small a part of the disk
	rescanEvery = 20       // one in so many bytes of the bound is freed at once
	orphanAge   = time.Minute
)

// OpenDisk opens the cache in the directory dir, which is made, with mode
// 0700, where it is missing. scope tells apart what one location may mean in
// two processes, such as the endpoint of an object store.
func OpenDisk(dir string, bound int64, scope string) (*Disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d := &Disk{dir: filepath.Join(dir, diskLayout), scope: scope, bound: bound, inUse: map[string]int{}}
	d.health = &health{log: slog.New(slog.DiscardHandler), patience: diskPatience, rest: diskRest}
	if err := os.Mkdir(d.dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if st, err := os.Lstat(d.dir); err != nil {
		return nil, err
	} else if !st.IsDir() {
		return nil, fmt.Errorf("%s is no directory: choose another cache directory", d.dir)
	} else if st.Mode().Perm() != 0o700 {
		return nil, fmt.Errorf("%s is open to other users (mode %o): `chmod 700` it, or choose another directory", d.dir, st.Mode().Perm())
	} else if s, ok := st.Sys().(*syscall.Stat_t); ok && int(s.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s belongs to another user, who could put any bytes there: choose another directory", d.dir)
	}
	var err error
	if d.lock, err = os.OpenFile(filepath.Join(d.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if err := d.share(); err != nil {
		d.lock.Close()
		return nil, fmt.Errorf("%s: %w", d.dir, err)
	}
	return d, nil
}

// share maps the word in which all processes count their bytes, and counts
// what is there if nobody has.
func (d *Disk) share() error {
	f, err := os.OpenFile(filepath.Join(d.dir, "usage"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	n := os.Getpagesize()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() < int64(n) { // written, not a hole: a full disk must not show as a fault of the memory
		if _, err := f.WriteAt(make([]byte, n), 0); err != nil {
			return err
		}
	}
	page, err := syscall.Mmap(int(f.Fd()), 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	d.used = (*int64)(unsafe.Pointer(&page[0]))
	return d.locked(func() error { return d.evict(d.bound) })
}

// Close lets go of the directory: nothing is made or removed there any more.
// Contents that are open stay usable, and so does the count of their bytes.
func (d *Disk) Close() error { return d.lock.Close() }

// Used returns the bytes that the directory holds, of all processes.
func (d *Disk) Used() int64 { return atomic.LoadInt64(d.used) }

// Pinned returns the bytes of disk that pinned contents take.
func (d *Disk) Pinned() (n int64) {
	found, pinned, _ := d.scan()
	for _, k := range found {
		if pinned[k.name] {
			n += k.bytes
		}
	}
	return n
}

// locked runs f while no other process makes or removes entries.
func (d *Disk) locked(f func() error) error {
	if err := d.flock(syscall.LOCK_EX); err != nil {
		return err
	}
	defer d.flock(syscall.LOCK_UN)
	return f()
}

func (d *Disk) flock(how int) error {
	c, err := d.lock.SyscallConn() // which Close waits for
	if err != nil {
		return err
	}
	var ferr error
	err = c.Control(func(fd uintptr) {
		for {
			if ferr = syscall.Flock(int(fd), how); ferr != syscall.EINTR {
				return
			}
		}
	})
	return errors.Join(err, ferr)
}

// name is where a content lies below dir.
func (d *Disk) name(key Key) string {
	h := sha256.New()
	for _, s := range []string{d.scope, key.Location, fmt.Sprint(key.Size), key.Version} {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	s := hex.EncodeToString(h.Sum(nil))
	return s[:2] + "/" + s[2:]
}

const (
	recordExt = ".rec"
	pinExt    = ".pin"
)

func (d *Disk) path(name string) string { return filepath.Join(d.dir, name) }

// reserve asks for room for n bytes. force takes it beyond the bound, though
// not beyond what the disk has.
func (d *Disk) reserve(n int64, force bool) bool {
	now := atomic.AddInt64(d.used, n)
	d.mu.Lock()
	d.toFree -= n
	look := d.toFree < 0
	d.mu.Unlock()
	short := look && d.short()
	if now <= d.bound && !short {
		return true
	}
	target := d.bound - d.bound/rescanEvery
	if short {
		target = min(target, now-freeEvery)
	}
	err := d.makeRoom(target, short)
	if err == nil && (atomic.LoadInt64(d.used) <= d.bound || force) && (!short || !d.short()) {
		return true
	}
	atomic.AddInt64(d.used, -n)
	return false
}

// makeRoom evicts down to target, unless another process has made room
// meanwhile, or there was none to make a moment ago.
func (d *Disk) makeRoom(target int64, short bool) error {
	return d.locked(func() error {
		d.mu.Lock()
		vain := time.Since(d.vain) < time.Second
		d.mu.Unlock()
		if vain || (d.Used() <= d.bound && !short) {
			return nil
		}
		err := d.evict(target)
		if d.Used() > d.bound {
			d.mu.Lock()
			d.vain = time.Now()
			d.mu.Unlock()
		}
		return err
	})
}

// short tells whether the disk has less free than it is to keep.
func (d *Disk) short() bool {
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &st); err != nil {
		return false
	}
	short := uint64(st.Bavail) < uint64(st.Blocks)/freePart
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.toFree = 0; !short { // else the next one looks again
		d.toFree = min(freeEvery, int64(st.Blocks)*int64(st.Bsize)/freeParts)
	}
	return short
}

// kept is a content in the directory, as a scan sees it.
type kept struct {
	name  string // "" where it has no record
	path  string
	bytes int64 // of disk
	last  time.Time
}

// evict counts what is there, and removes what was used longest ago until no
// more than target bytes are left. What is pinned stays, and what this process
// has open. The lock is held.
func (d *Disk) evict(target int64) error {
	found, pinned, err := d.scan()
	if err != nil {
		return err
	}
	var total int64
	for _, k := range found {
		total += k.bytes
	}
	slices.SortFunc(found, func(a, b kept) int { return a.last.Compare(b.last) })
	for _, k := range found {
		orphan := k.name == "" && time.Since(k.last) > orphanAge
		if !orphan && (total <= target || k.name == "" || pinned[k.name] || d.busy(k.name)) {
			continue
		}
		if k.name != "" {
			os.Remove(k.path + recordExt)
		}
		os.Remove(k.path)
		total -= k.bytes
	}
	atomic.StoreInt64(d.used, total)
	return nil
}

// entryFile is what the directory's own files are called (see [Disk.name]).
var entryFile = regexp.MustCompile(`^[0-9a-f]{2}/[0-9a-f]{62}(\.rec|\.pin)?$`)

// scan reads the directory.
func (d *Disk) scan() (found []kept, pinned map[string]bool, err error) {
	pinned = map[string]bool{}
	records := map[string]os.FileInfo{}
	data := map[string]os.FileInfo{}
	err = filepath.WalkDir(d.dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && e.Name() == answersDir {
			return fs.SkipDir
		}
		if err != nil || e.IsDir() {
			return ignoreMissing(err)
		}
		name, _ := strings.CutPrefix(p, d.dir+string(filepath.Separator))
		if !entryFile.MatchString(name) {
			return nil // the lock, the count, and what somebody has put there
		}
		if n, ok := strings.CutSuffix(name, pinExt); ok {
			pinned[n] = true
			return nil
		}
		st, err := e.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		if n, ok := strings.CutSuffix(name, recordExt); ok {
			records[n] = st
		} else {
			data[name] = st
		}
		return nil
	})
	for name, st := range data {
		k := kept{path: d.path(name), bytes: onDisk(st), last: st.ModTime()}
		if rec := records[name]; rec != nil {
			k.name, k.last = name, rec.ModTime()
			k.bytes += onDisk(rec)
		}
		found = append(found, k)
	}
	for name, rec := range records {
		if data[name] == nil {
			found = append(found, kept{path: d.path(name) + recordExt, bytes: onDisk(rec), last: rec.ModTime()})
		}
	}
	return found, pinned, err
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// onDisk is the disk that a file takes, in bytes.
func onDisk(st os.FileInfo) int64 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return s.Blocks * 512
	}
	return st.Size()
}

func (d *Disk) busy(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inUse[name] > 0
}

func (d *Disk) use(name string, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inUse[name] += n; d.inUse[name] == 0 {
		delete(d.inUse, name)
	}
}

// Evict removes a content, pinned or not, and returns the bytes of disk that
// it took. Who has it open reads on.
func (d *Disk) Evict(key Key) (freed int64, err error) {
	p := d.path(d.name(key))
	err = d.locked(func() error {
		for _, f := range []string{p + recordExt, p} {
			st, err := os.Stat(f)
			if err == nil {
				err = os.Remove(f)
			}
			if err := ignoreMissing(err); err != nil {
				return err
			}
			if st != nil {
				freed += onDisk(st)
			}
		}
		return nil
	})
	atomic.AddInt64(d.used, -freed)
	return freed, err
}

// Pin keeps a content, now or when it comes, from eviction; off takes that
// back.
func (d *Disk) Pin(key Key, off bool) error {
	p := d.path(d.name(key)) + pinExt
	if off {
		return ignoreMissing(os.Remove(p))
	}
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		return err
	}
	return os.WriteFile(p, nil, 0o600)
}

// Has returns how many bytes of a content are there.
func (d *Disk) Has(key Key) int64 {
	e, err := d.open(key)
	if e == nil || err != nil {
		return 0
	}
	defer e.close()
	return e.bytes()
}
