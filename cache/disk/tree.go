package disk

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A tree is a directory of complete contents under the names that programs want,
// for who has no mount. It lies below treesDir:
//
//	ab/REST.tree        what the tree has, and where (sealed)
//	ab/REST.lock        flock(2): who makes it
//	ab/REST.NONCE/files what is given to programs; no file in it can be written to
//	         …/held     a link to the record of each content whose bytes are in files
//	         …/lock     flock(2), shared: who uses it; its time is the last use
//
// REST is the SHA-256 of all names and keys, as the scope has them: another content
// is another tree. Like a content, a tree is in place when the file that tells of it
// appears, by link(2), and who has a tree that was replaced or evicted keeps it: its
// directory is removed when nobody uses it.
//
// Nothing is synced. The file that tells of a tree has the id of the boot in which
// its bytes were right; after another, or where a file is not as it was made, all of
// it is held against the records before it is given again, and made anew where it
// is wrong. A path that was kept over a power loss is not: ask for it again.
//
// The links in held count the trees of a content. One that has any is not evicted
// but with its tree, so that its bytes count once.
const (
	treesDir = "trees"
	treeExt  = ".tree"
	makeExt  = ".lock"
	treeKind = "tree 1 "
	maxTree  = 64 << 20 // bytes of the file that tells of it

	treeStays = 10 * time.Minute // after it was given, whether it is locked or not
	makerGone = time.Minute      // without a word of who makes a tree, others do
)

// Entry is one name in a tree.
type Entry struct {
	Path string // slashes; relative
	Dir  bool
	Key  Key    // of a file whose content is kept
	Text string // what a file holds whose Key is zero
}

func (e *Entry) kept() bool { return e.Key.Size > 0 }

// Tree is a tree that was given. It is not removed before Close, nor within ten
// minutes.
type Tree struct {
	Path string // of the directory that has the entries
	lock *os.File
}

// Close lets go of the tree.
func (t *Tree) Close() error { return t.lock.Close() }

// treeLabel is what the file tells of a tree.
type treeLabel struct {
	name  Name
	Nonce uint64
	Boot  string // in which its files were right
	Files []treeFile
}

// treeFile is a file of a tree, as it was made.
type treeFile struct {
	Path     []byte
	Content  Name // zero: Text is all of it
	Text     []byte
	Copied   bool // it has its bytes for itself
	Size     int64
	Modified int64 // nanoseconds since 1970
}

func (n Name) tree() string { return treesDir + "/" + n.path() + treeExt }

func (l *treeLabel) dir() string {
	return fmt.Sprintf("%s/%s.%016x", treesDir, l.name.path(), l.Nonce)
}

func (l *treeLabel) file(i int) string  { return l.dir() + "/files/" + string(l.Files[i].Path) }
func (l *treeLabel) held(n Name) string { return l.dir() + "/held/" + n.String() }
func (l *treeLabel) lock() string       { return l.dir() + "/lock" }
func (f *treeFile) hasContent() bool    { return f.Content != Name{} }
func (f *treeFile) as(s os.FileInfo) bool {
	return s.Size() == f.Size && s.ModTime().UnixNano() == f.Modified
}

// contents are those that the tree has, each once.
func (l *treeLabel) contents() (names []Name) {
	seen := map[Name]bool{}
	for i := range l.Files {
		if n := l.Files[i].Content; l.Files[i].hasContent() && !seen[n] {
			seen[n] = true
			names = append(names, n)
		}
	}
	return names
}

func inOrder(entries []Entry) []Entry {
	return slices.SortedFunc(slices.Values(entries), func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) })
}

// treeName is what the tree of entries, which are in order, is called.
func (d *Dir) treeName(entries []Entry) Name {
	words := []string{"tree", d.opt.Scope}
	for _, e := range entries {
		kind, what := "text", e.Text
		switch {
		case e.Dir:
			kind = "directory"
		case e.kept():
			kind, what = "content", d.name(e.Key).String()
		}
		words = append(words, kind, e.Path, what)
	}
	return hash(words...)
}

// Tree gives the tree of entries. Where there is none, fill has to put each of its
// contents into one that is made: once, however many processes ask, while who makes
// it goes on.
func (d *Dir) Tree(ctx context.Context, entries []Entry, fill func(*Builder) error) (*Tree, error) {
	entries = inOrder(entries)
	n := d.treeName(entries)
	if t, err := d.findTree(n); t != nil || err != nil {
		return t, err
	}
	release, err := d.makes(ctx, n)
	if err != nil {
		return nil, err
	}
	defer release()
	if t, err := d.findTree(n); t != nil || err != nil {
		return t, err
	}
	d.clearMade(n)
	b, err := d.newBuilder(n, entries)
	if err != nil {
		return nil, err
	}
	if err := fill(b); err != nil {
		return nil, errors.Join(err, b.abandon())
	}
	return b.commit()
}

// makes waits until this process is the one that makes a tree: nobody else does, or
// who does has stopped.
func (d *Dir) makes(ctx context.Context, n Name) (release func(), err error) {
	p := treesDir + "/" + n.path() + makeExt
	if err := d.root.MkdirAll(path.Dir(p), 0o700); err != nil {
		return nil, err
	}
	for {
		f, err := d.root.OpenFile(p, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		err = flock(f, syscall.LOCK_EX|syscall.LOCK_NB)
		own, serr := f.Stat()
		if err == nil && serr == nil {
			if st, err := d.root.Lstat(p); err == nil && os.SameFile(own, st) {
				return d.making(f, p), nil
			}
		}
		f.Close()
		switch {
		case serr != nil:
			return nil, serr
		case err == nil:
			continue // who had it has removed it
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return nil, err
		case time.Since(own.ModTime()) > makerGone:
			return func() {}, nil // it was stopped: of two that are made, one is taken
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

// making tells others, as long as the process runs, that it makes the tree of which
// it has the lock.
func (d *Dir) making(lock *os.File, name string) (release func()) {
	stop, gone := make(chan struct{}), make(chan struct{})
	touch := func() { d.root.Chtimes(name, time.Time{}, time.Now()) }
	touch()
	go func() {
		defer close(gone)
		tick := time.NewTicker(makerGone / 6)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				touch()
			case <-stop:
				return
			}
		}
	}()
	return func() {
		close(stop)
		<-gone
		d.root.Remove(name)
		lock.Close()
	}
}

// readTree reads what is told of a tree; nil where there is none.
func (d *Dir) readTree(n Name) (*treeLabel, error) {
	s, err := d.readSealed(n.tree(), treeKind+n.String(), maxTree)
	if err != nil || s.body == nil {
		return nil, err
	}
	l := &treeLabel{name: n}
	if json.Unmarshal(s.body, l) != nil {
		return nil, nil
	}
	return l, nil
}

func (d *Dir) writeTree(l *treeLabel, to string) error {
	body, err := json.Marshal(l)
	if err == nil && len(body) > maxTree {
		err = fmt.Errorf("%d files are too many for a tree", len(l.Files))
	}
	if err != nil {
		return err
	}
	return d.writeSealed(to, fmt.Sprintf("%s.%016x%s", l.name.tree(), rand.Uint64(), newExt), treeKind+l.name.String(), body)
}

// findTree gives a tree that is there, and right, and notes that it is used; nil
// where there is none.
func (d *Dir) findTree(n Name) (*Tree, error) {
	type found struct {
		l    *treeLabel
		lock *os.File
	}
	f, err := do(d, opOpen, func() (f found, err error) {
		if f.l, err = d.readTree(n); f.l == nil || err != nil {
			return f, err
		}
		if f.lock, err = d.root.Open(f.l.lock()); errors.Is(err, fs.ErrNotExist) { // somebody has removed it
			return f, ignoreMissing(d.root.Remove(n.tree()))
		} else if err != nil {
			return f, err
		}
		if err = flock(f.lock, syscall.LOCK_SH|syscall.LOCK_NB); err == nil {
			// Who evicts it may have had the lock before.
			var now *treeLabel
			if now, err = d.readTree(n); err == nil && now != nil && now.Nonce == f.l.Nonce {
				return f, nil
			}
		}
		f.lock.Close()
		f.lock = nil
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = nil
		}
		return f, err
	}, func(f found) { f.lock.Close() })
	if err != nil || f.lock == nil {
		return nil, err
	}
	if !d.isAsMade(f.l) && !d.verifyTree(f.l) {
		f.lock.Close()
		d.dropTree(f.l, treeStays)
		return nil, nil
	}
	d.root.Chtimes(f.l.lock(), time.Time{}, time.Now())
	return d.given(f.l, f.lock), nil
}

func (d *Dir) given(l *treeLabel, lock *os.File) *Tree {
	return &Tree{filepath.Join(d.path, filepath.FromSlash(l.dir()), "files"), lock}
}

// eachTree calls f with what is told of each tree.
func (d *Dir) eachTree(f func(*treeLabel) error) error {
	if _, err := d.root.Lstat(treesDir); err != nil {
		return ignoreMissing(err)
	}
	for i := range shards {
		err := d.names(treesDir+"/", i, func(n Name, files []os.FileInfo) error {
			if !slices.ContainsFunc(files, func(st os.FileInfo) bool { return strings.HasSuffix(st.Name(), treeExt) }) {
				return nil
			}
			l, err := d.readTree(n)
			if l == nil || err != nil {
				return ignoreMissing(err)
			}
			return f(l)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// has tells whether there is something at a path below the directory.
func (d *Dir) has(p string) bool {
	_, err := d.root.Lstat(p)
	return !errors.Is(err, fs.ErrNotExist)
}
