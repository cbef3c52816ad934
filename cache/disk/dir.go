package disk

import (
	"cmp"
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

	takesPlace bool // see takePlace

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
	opt.Log = cmp.Or(opt.Log, slog.New(slog.DiscardHandler))
	opt.Memory = cmp.Or(opt.Memory, 4<<20)
	opt.Patience = cmp.Or(opt.Patience, patience)
	path, err := filepath.Abs(filepath.Join(dir, Layout))
	if err != nil {
		return nil, err
	}
	_, err = os.Lstat(path)
	isNew := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(path, 0o700); err != nil {
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
	d.takesPlace = takesPlace(d.lock)
	d.start(isNew)
	return d, nil
}

// openOwn opens a directory that is this user's alone.
func openOwn(path string) (*os.Root, error) {
	named, err := os.Lstat(path)
	if err != nil {
		return nil, err
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
			err = fmt.Errorf("%s is a link, or was just replaced: choose another cache directory", path)
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
	d.keeper.close.Do(func() {
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
	pins, err := do(d, opOpen, func() ([]os.FileInfo, error) { return d.readDir(pinsDir, fewPins+1) }, nil)
	for _, p := range pins[:min(len(pins), fewPins)] {
		n, _ := parseName(p.Name()) // what is no name is none of a content
		size := int64(0)
		if err == nil {
			size, err = do(d, opOpen, func() (int64, error) {
				_, size, err := d.look(n)
				return size, ignoreMissing(err)
			}, nil)
		}
		total += size
	}
	if err != nil || len(pins) > fewPins {
		return d.room.lastPinned()
	}
	return total
}

// readDir looks at n entries of a directory, or at all for -1. What is not there,
// or no directory, has none.
func (d *Dir) readDir(name string, n int) ([]os.FileInfo, error) {
	if st, err := d.root.Lstat(name); err != nil || !st.IsDir() {
		return nil, ignoreMissing(err)
	}
	f, err := d.root.Open(name)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	defer f.Close()
	found, err := f.Readdir(n)
	if err == io.EOF {
		err = nil
	}
	return found, ignoreMissing(err)
}

// look reads who a record is of, which is nil where it is damaged, and the bytes
// of disk that the content takes.
func (d *Dir) look(n Name) (l *label, size int64, err error) {
	f, err := d.root.Open(n.record())
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if l, err = readLabel(f, n); l == nil {
		return nil, onDisk(st), err
	}
	data, err := d.root.Lstat(l.data())
	if err != nil {
		return l, onDisk(st), ignoreMissing(err)
	}
	return l, onDisk(st) + onDisk(data), nil
}

// remove unlinks a content, and returns the bytes of disk that it took. The
// record goes first: what is left of a removal that was interrupted is an
// orphan, and no content. Of two that remove it at once, the one that unlinked
// the record counts it.
func (d *Dir) remove(n Name) (freed int64, err error) {
	l, size, err := d.look(n)
	if err == nil {
		err = d.root.Remove(n.record())
	}
	if err != nil {
		return 0, ignoreMissing(err)
	}
	d.wrote(n, 0, -size)
	if l != nil {
		err = ignoreMissing(d.root.Remove(l.data()))
	}
	return size, err
}
