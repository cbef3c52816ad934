package disk

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Options bound a Dir.
type Options struct {
	Bound  int64  // bytes of disk that contents may take, of all processes
	Scope  string // tells apart what one location may mean in two processes, such as the endpoint of an object store
	Memory int64  // bytes that the index of what to evict may take (4 MiB)

	Patience time.Duration // with one operation (2 s)
	Log      *slog.Logger  // of a disk that fails, once, and of its being well again (none)
}

// Key identifies one content: where it lies, how long it is, and, where the
// listing tells, what version of it.
type Key struct {
	Location string // unique in the process, and with a Dir's scope beyond it
	Size     int64  // bytes; every answer is held against it
	Version  string // a validator from the listing, of the kind that an origin's answers have, or empty
}

// Dir is a directory of contents. Its methods may be called by many at once.
type Dir struct {
	opt   Options
	path  string
	root  *os.Root // the directory, held open
	dir   *os.File // the directory, too
	lock  *os.File
	rests [allOps]rest

	used    atomic.Int64 // bytes of contents, by all processes, as far as this one knows
	answers atomic.Int64 // bytes of answers that came since they were last tidied up
	writing atomic.Int64 // bytes that are counted, and not on the disk yet
	toLook  atomic.Int64 // bytes to write until the disk's free space is looked at again
	pinned  atomic.Int64 // bytes of pinned contents, as the last look found them

	evicting sync.Mutex // held by who counts or evicts, beside the flock on lock; before mu

	mu      sync.Mutex // guards what follows; no other lock is taken under it
	said    bool       // that the disk is not well
	closed  bool
	inUse   map[Name]int // contents that this process has open
	touched time.Time    // when that was noted last

	keeper keeper
}

const (
	// Layout is the directory's name below the one that the user names.
	Layout = "mlflowfs-v2"

	recordExt = ".rec"
	pinsDir   = "pins"
	lockFile  = "lock"
	usageFile = "usage"
	indexFile = "index"
)

// Open opens the cache in the directory dir, which is made, with mode 0700,
// where it is missing. The directory itself must belong to this user and be open
// to nobody else. It is held open: others who may write to a directory above can
// take it away, and can't put another in its place.
func Open(dir string, opt Options) (*Dir, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Memory <= 0 {
		opt.Memory = 4 << 20
	}
	if opt.Patience <= 0 {
		opt.Patience = patience
	}
	path, err := filepath.Abs(filepath.Join(dir, Layout))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	root, err := openOwn(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{opt: opt, path: path, root: root, inUse: map[Name]int{}, touched: time.Now()}
	if d.lock, err = root.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		root.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if d.dir, err = root.Open("."); err != nil {
		return nil, errors.Join(err, d.lock.Close(), root.Close())
	}
	d.keeper.init()
	d.answers.Store(tidyEvery + 1) // nobody knows what there is
	d.readUsage()
	return d, nil
}

// openOwn opens a directory that is this user's alone.
func openOwn(path string) (*os.Root, error) {
	if st, err := os.Lstat(path); err != nil {
		return nil, err
	} else if !st.IsDir() {
		return nil, fmt.Errorf("%s is no directory: choose another cache directory", path)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	st, err := root.Stat(".") // of what is held, and not of what has the name now
	if err == nil {
		s, ok := st.Sys().(*syscall.Stat_t)
		switch {
		case st.Mode().Perm() != 0o700:
			err = fmt.Errorf("%s is open to other users (mode %o): `chmod 700` it, or choose another directory", path, st.Mode().Perm())
		case ok && int(s.Uid) != os.Geteuid():
			err = fmt.Errorf("%s belongs to another user, who could put any bytes there: choose another directory", path)
		}
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// Close lets go of the directory, once what runs behind has ended: nothing is
// made or removed there any more. Files that are open stay usable.
func (d *Dir) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	d.mu.Unlock()
	d.keeper.end(d)
	return errors.Join(d.lock.Close(), d.dir.Close(), d.root.Close())
}

// Path returns where the directory was when it was opened.
func (d *Dir) Path() string { return d.path }

// Bound returns the bytes that contents may take.
func (d *Dir) Bound() int64 { return d.opt.Bound }

// Used returns the bytes that contents take, of all processes. It waits for
// nothing.
func (d *Dir) Used() int64 { return max(d.used.Load(), 0) }

// name is what the content of key is called.
func (d *Dir) name(key Key) Name { return nameOfKey(d.opt.Scope, key) }

func nameOfKey(scope string, key Key) Name {
	h := sha256.New()
	for _, s := range []string{scope, key.Location, fmt.Sprint(key.Size), key.Version} {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return Name(h.Sum(nil))
}

// use notes that this process opens (1) or closes (-1) a content.
func (d *Dir) use(n Name, by int) {
	d.mu.Lock()
	if d.inUse[n] += by; d.inUse[n] == 0 {
		delete(d.inUse, n)
	}
	d.mu.Unlock()
	d.keeper.mu.Lock()
	defer d.keeper.mu.Unlock()
	d.keeper.later(d, openEvery)
}

func (d *Dir) busy(n Name) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inUse[n] > 0
}

// Has returns how many bytes of a content are there.
func (d *Dir) Has(key Key) int64 {
	f, err := d.Find(key)
	if f == nil || err != nil {
		return 0
	}
	defer f.Close()
	return f.Bytes()
}

// Evict removes a content, pinned or not, and returns the bytes of disk that
// it took. Who has it open reads on.
func (d *Dir) Evict(key Key) (freed int64, err error) {
	err = d.try(opMake, func() (err error) {
		freed, err = d.remove(d.name(key))
		return err
	})
	return freed, err
}

// Pin keeps a content, now or when it comes, from eviction; off takes that
// back.
func (d *Dir) Pin(key Key, off bool) error {
	p := pinsDir + "/" + d.name(key).String()
	return d.try(opMake, func() error {
		if off {
			return ignoreMissing(d.root.Remove(p))
		}
		if err := d.root.MkdirAll(pinsDir, 0o700); err != nil {
			return err
		}
		f, err := d.root.OpenFile(p, os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		return f.Close()
	})
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
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

// Takes tells whether the directory takes more now, as far as its disk goes.
func (d *Dir) Takes() bool { return d.may(opWrite) && d.may(opMake) }
