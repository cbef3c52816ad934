package disk

import (
	"errors"
	"fmt"
	"io"
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
	opt    Options
	path   string
	opened time.Time
	root   *os.Root // the directory, held open
	lock   *os.File
	rests  [allOps]rest
	said   atomic.Bool // that the disk is not well

	mu    sync.Mutex   // guards inUse; no other lock is taken under it
	inUse map[Name]int // contents that this process has open

	room   room
	keeper keeper
}

const (
	// Layout is the directory's name below the one that the user names.
	Layout = "mlflowfs-v2"

	recordExt = ".rec"
	newExt    = ".new" // of a file that has not its own name yet
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
	isNew := true
	if err := os.Mkdir(path, 0o700); errors.Is(err, fs.ErrExist) {
		isNew = false
	} else if err != nil {
		return nil, err
	}
	root, err := openOwn(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{opt: opt, path: path, opened: time.Now(), root: root, inUse: map[Name]int{}}
	if d.lock, err = root.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		root.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	d.start(isNew)
	return d, nil
}

// openOwn opens a directory that is this user's alone.
func openOwn(path string) (*os.Root, error) {
	named, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !named.IsDir() {
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
		case !os.SameFile(st, named):
			err = fmt.Errorf("%s was replaced while it was opened: choose a directory that nobody else may write to", path)
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
func (d *Dir) Close() (err error) {
	d.keeper.end.Do(func() {
		d.stop()
		err = errors.Join(d.lock.Close(), d.root.Close())
	})
	return err
}

// Path returns where the directory was when it was opened.
func (d *Dir) Path() string { return d.path }

// Bound returns the bytes that contents may take.
func (d *Dir) Bound() int64 { return d.opt.Bound }

// Takes tells whether the directory takes more now, as far as its disk goes.
func (d *Dir) Takes() bool { return d.may(opWrite) && d.may(opMake) }

// name is what the content of key is called.
func (d *Dir) name(key Key) Name { return nameOfKey(d.opt.Scope, key) }

func nameOfKey(scope string, key Key) Name {
	return hash(scope, key.Location, fmt.Sprint(key.Size), key.Version)
}

// use notes that this process opens (1) or closes (-1) a content.
func (d *Dir) use(n Name, by int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inUse[n] += by; d.inUse[n] == 0 {
		delete(d.inUse, n)
	}
}

func (d *Dir) busy(n Name) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inUse[n] > 0
}

// Has returns how many bytes of a content are there. That is no use of it.
func (d *Dir) Has(key Key) int64 {
	f, err := d.find(key, false)
	if f == nil || err != nil {
		return 0
	}
	defer f.Close()
	return f.Bytes()
}

// Evict removes a content, pinned or not, and returns the bytes of disk that
// it took. Who has it open reads on.
func (d *Dir) Evict(key Key) (freed int64, err error) {
	return do(d, opMake, func() (int64, error) { return d.remove(d.name(key)) }, nil)
}

func (n Name) pin() string { return pinsDir + "/" + n.String() }

// Pin keeps a content, now or when it comes, from eviction; off takes that
// back.
func (d *Dir) Pin(key Key, off bool) error {
	p := d.name(key).pin()
	return d.try(opMake, func() error {
		if off {
			return ignoreMissing(d.root.Remove(p))
		}
		if err := d.root.MkdirAll(pinsDir, 0o700); err != nil {
			return err
		}
		return d.root.WriteFile(p, nil, 0o600)
	})
}

// isPinned tells whether a content is pinned, or may be.
func (d *Dir) isPinned(n Name) bool {
	_, err := d.root.Lstat(n.pin())
	return !errors.Is(err, fs.ErrNotExist)
}

// fewPins is how many pinned contents are looked at one by one for a status.
const fewPins = 1000

// Pinned returns the bytes of disk that pinned contents take; of many, as the
// last scan found them.
func (d *Dir) Pinned() (total int64) {
	pins, err := do(d, opOpen, func() ([]fs.DirEntry, error) { return d.readDir(pinsDir, fewPins+1) }, nil)
	if len(pins) > fewPins || err != nil {
		return d.room.lastPinned()
	}
	for _, e := range pins {
		name, ok := parseName(e.Name())
		if !ok {
			continue
		}
		n, err := do(d, opOpen, func() (int64, error) { return d.sizeOf(name) }, nil)
		if err != nil {
			return d.room.lastPinned()
		}
		total += n
	}
	return total
}

// sizeOf is the bytes of disk that a content takes; 0 where it is not there.
func (d *Dir) sizeOf(n Name) (int64, error) {
	l, st, err := d.labelOf(n)
	if l == nil {
		return 0, ignoreMissing(err)
	}
	data, err := d.root.Lstat(l.data())
	if err != nil {
		return 0, ignoreMissing(err)
	}
	return onDisk(st) + onDisk(data), nil
}

// readDir reads the first n entries of a directory, or all for n of 0. What is
// not there, or no directory, has none.
func (d *Dir) readDir(name string, n int) ([]fs.DirEntry, error) {
	if st, err := d.root.Lstat(name); err != nil || !st.IsDir() {
		return nil, ignoreMissing(err)
	}
	f, err := d.root.Open(name)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	defer f.Close()
	entries, err := f.ReadDir(n)
	if err == io.EOF {
		err = nil
	}
	return entries, ignoreMissing(err)
}

// labelOf reads who a record is of; nil where it is damaged.
func (d *Dir) labelOf(n Name) (*label, os.FileInfo, error) {
	f, err := d.root.Open(n.record())
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	l, ok, err := readLabel(f, n)
	if !ok || err != nil {
		return nil, st, err
	}
	return &l, st, nil
}

// remove unlinks a content, and returns the bytes of disk that it took. The
// record goes first: what is left of a removal that was interrupted is an
// orphan, and no content. Of two that remove it at once, the one that unlinked a
// file counts it.
func (d *Dir) remove(n Name) (freed int64, err error) {
	l, st, err := d.labelOf(n)
	if err != nil {
		return 0, ignoreMissing(err)
	}
	if err := d.root.Remove(n.record()); err != nil {
		return 0, ignoreMissing(err)
	}
	freed = onDisk(st)
	if l != nil {
		if st, err = d.root.Lstat(l.data()); err == nil {
			if err = d.root.Remove(l.data()); err == nil {
				freed += onDisk(st)
			}
		}
	}
	d.count(n, -freed)
	return freed, ignoreMissing(err)
}
