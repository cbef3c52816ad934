package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Builder makes a tree. Its methods may be called by many at once.
type Builder struct {
	d     *Dir
	label treeLabel
	lock  *os.File
	at    map[Name][]int // files that want a content

	mu   sync.Mutex // guards what follows, and Copied of the files
	room int64      // bytes that are reserved
	put  int        // files
}

// The modes of a tree's directory, while it is made and from then on, by which a scan
// knows what was given to somebody. The directories in it are not read-only: rm -r
// takes a cache away, and files that programs put there are nobody's.
const (
	madeMode  = 0o700
	givenMode = 0o755
)

// newBuilder begins a tree: its directories, and the files that are no contents.
func (d *Dir) newBuilder(n Name, entries []Entry) (*Builder, error) {
	b := &Builder{d: d, label: treeLabel{name: n, Nonce: rand.Uint64(), Boot: boot()}, at: map[Name][]int{}}
	err := b.begin()
	for i := 0; err == nil && i < len(entries); i++ {
		err = b.entry(entries[i])
	}
	if err != nil {
		return nil, errors.Join(err, b.abandon())
	}
	return b, nil
}

func (b *Builder) begin() (err error) {
	root, dir := b.d.root, b.label.dir()
	if err := root.MkdirAll(dir, madeMode); err != nil {
		return err
	}
	if b.lock, err = root.OpenFile(b.label.lock(), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); err != nil {
		return err
	}
	err = flock(b.lock, syscall.LOCK_SH|syscall.LOCK_NB)
	if err == nil {
		err = root.Mkdir(dir+"/held", 0o700)
	}
	if err == nil {
		err = root.Mkdir(dir+"/files", givenMode)
	}
	return err
}

func (b *Builder) entry(e Entry) error {
	if !filepath.IsLocal(e.Path) || path.Clean(e.Path) != e.Path {
		return fmt.Errorf("%q leads out of the tree: %w", e.Path, fs.ErrInvalid)
	}
	p := b.label.dir() + "/files/" + e.Path
	if e.Dir {
		return b.d.root.MkdirAll(p, givenMode)
	}
	if err := b.d.root.MkdirAll(path.Dir(p), givenMode); err != nil {
		return err
	}
	f := treeFile{Path: []byte(e.Path), Size: e.Key.Size}
	if e.kept() {
		f.Content = b.d.name(e.Key)
		b.at[f.Content] = append(b.at[f.Content], len(b.label.Files))
	} else {
		f.Text, f.Size = []byte(e.Text), int64(len(e.Text))
		b.put++
	}
	b.label.Files = append(b.label.Files, f)
	if e.kept() {
		return nil
	}
	return b.d.root.WriteFile(p, f.Text, 0o444)
}

// Put puts a content, which is complete and verified, where entries want it.
func (b *Builder) Put(f *File) error {
	if !b.d.Takes() {
		return errResting
	}
	var held, copied bool
	err := func() (err error) {
		for _, i := range b.at[f.name] {
			own, err := f.place(b.d.root, b.label.file(i), 0o444, b.reserve)
			if err != nil {
				return err
			}
			b.mu.Lock()
			b.label.Files[i].Copied = own
			b.put++
			b.mu.Unlock()
			copied = copied || own
		}
		held, err = b.hold(f, copied)
		return err
	}()
	b.d.note(opMake, err)
	if err == nil && !held { // nothing keeps the content for the tree
		b.mu.Lock()
		for _, i := range b.at[f.name] {
			b.label.Files[i].Copied = true
		}
		b.mu.Unlock()
	}
	return err
}

// hold keeps a content's record: a link to it, or, for bytes that are the tree's own,
// a copy.
func (b *Builder) hold(f *File, copied bool) (held bool, err error) {
	to := b.label.held(f.name)
	if !copied {
		if err := linkIn(b.d.root, f.record, to); err == nil {
			return true, nil
		}
	}
	record := make([]byte, headSize+markSize*BlocksOf(f.size))
	if err := readFull(f.record, record, 0); err != nil {
		return false, err
	}
	return false, b.d.root.WriteFile(to, record, 0o600)
}

func (b *Builder) reserve(n int64) error {
	if err := b.d.reserve(n, false); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.room += n
	return nil
}

// commit gives the tree its name, unless another is there by now: that is given then.
func (b *Builder) commit() (*Tree, error) {
	d, l := b.d, &b.label
	if err := b.finish(); err != nil {
		return nil, errors.Join(err, b.abandon())
	}
	fresh := fmt.Sprintf("%s.%016x%s", l.name.tree(), l.Nonce, newExt)
	err := d.writeTree(l, fresh)
	defer d.root.Remove(fresh)
	for try := 0; err == nil; try++ {
		err = d.root.Link(fresh, l.name.tree())
		if err == nil || !errors.Is(err, fs.ErrExist) || try > 2 {
			break
		}
		t, ferr := d.findTree(l.name)
		if t != nil {
			b.abandon()
			return t, nil
		}
		if err = ferr; err == nil { // what has the name is no tree
			err = ignoreMissing(d.root.Remove(l.name.tree()))
		}
	}
	if err != nil && d.has(fresh) { // a filesystem without links
		err = d.root.Rename(fresh, l.name.tree())
	}
	if err != nil {
		return nil, errors.Join(err, b.abandon())
	}
	d.wrote(l.name, b.room, d.own(l))
	return d.given(l, b.lock), nil
}

var errUnfinished = errors.New("not all files are in the tree")

// finish notes how all of it is.
func (b *Builder) finish() error {
	d, l := b.d, &b.label
	if b.put != len(l.Files) {
		return errUnfinished
	}
	for i := range l.Files {
		f := &l.Files[i]
		st, err := d.root.Lstat(l.file(i))
		if err != nil || st.Size() != f.Size {
			return errors.Join(errUnfinished, err)
		}
		f.Modified = st.ModTime().UnixNano()
		if f.Copied || !f.hasContent() {
			continue
		}
		if st, err := d.root.Lstat(l.held(f.Content)); err != nil || links(st) < 2 {
			return errors.Join(ErrGone, err)
		}
	}
	err := d.root.Chmod(l.dir(), givenMode)
	if err == nil {
		err = d.root.Chtimes(l.lock(), time.Time{}, time.Now())
	}
	return err
}

// abandon removes what was made.
func (b *Builder) abandon() error {
	err := b.d.root.RemoveAll(b.label.dir())
	b.lock.Close()
	b.d.wrote(b.label.name, b.room, 0)
	return err
}
