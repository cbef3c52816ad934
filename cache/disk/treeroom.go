package disk

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// own is the bytes of disk that a tree takes beside the contents of the cache.
func (d *Dir) own(l *treeLabel) (n int64) {
	add := func(p string) {
		if st, err := d.root.Lstat(p); err == nil {
			n += onDisk(st)
		}
	}
	add(l.name.tree())
	shared := map[Name]bool{} // whose bytes count with the content
	for _, c := range l.contents() {
		held, err := d.root.Lstat(l.held(c))
		if err != nil {
			continue
		}
		record, err := d.root.Lstat(c.record())
		if shared[c] = err == nil && os.SameFile(held, record); !shared[c] {
			n += onDisk(held)
		}
	}
	for i, f := range l.Files {
		if f.Copied || !shared[f.Content] {
			add(l.file(i))
		}
	}
	return n
}

// dropTree takes away a tree's name, so that nobody is given it any more, and what
// it holds of the cache; and its directory, unless somebody uses it or was given it
// lately. It returns the bytes that became free.
func (d *Dir) dropTree(l *treeLabel, stays time.Duration) (freed int64, inUse bool) {
	lock, unused := d.lockTree(l.dir(), stays)
	defer lock.Close()
	return d.drop(l, unused)
}

// drop is dropTree; its lock is held where the tree is unused.
func (d *Dir) drop(l *treeLabel, unused bool) (freed int64, inUse bool) {
	before := d.own(l)
	now, err := d.readTree(l.name)
	if err != nil || now == nil || now.Nonce != l.Nonce || d.root.Remove(l.name.tree()) != nil {
		return 0, false // another process has
	}
	d.root.RemoveAll(l.dir() + "/held")
	if unused {
		d.root.RemoveAll(l.dir())
	}
	left := d.own(l)
	d.wrote(l.name, 0, left-before)
	return before - left, left > 0
}

// clearTree removes the directory of a tree, unless somebody uses it, or was given it
// lately.
func (d *Dir) clearTree(dir string, stays time.Duration) (gone bool) {
	lock, ok := d.lockTree(dir, stays)
	if !ok {
		return false
	}
	defer lock.Close()
	return d.root.RemoveAll(dir) == nil
}

// clearMade removes what processes left that were killed while they made a tree.
func (d *Dir) clearMade(n Name) {
	d.names(treesDir+"/", int(n[0]), func(of Name, files []os.FileInfo) error {
		for _, st := range files {
			if of == n && st.IsDir() && st.Mode().Perm() == madeMode {
				d.clearTree(path.Join(path.Dir(n.tree()), st.Name()), 0)
			}
		}
		return nil
	})
}

// lockTree gives the lock of a tree's directory, if nobody uses it, nor was given it
// lately. A directory without one, of a process that was killed, gives nil.
func (d *Dir) lockTree(dir string, stays time.Duration) (lock *os.File, ok bool) {
	lock, err := d.root.OpenFile(dir+"/lock", os.O_RDWR, 0)
	if err != nil {
		st, serr := d.root.Lstat(dir)
		return nil, errors.Is(err, fs.ErrNotExist) && serr == nil && isOrphan(st)
	}
	err = flock(lock, syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		var st os.FileInfo
		if st, err = lock.Stat(); err == nil && time.Since(st.ModTime()) < stays && !isAhead(st.ModTime()) {
			err = syscall.EWOULDBLOCK
		}
	}
	if err != nil {
		lock.Close()
		return nil, false
	}
	return lock, true
}

// withdraw drops each tree that has one of some contents, which are to go or are not
// what they were. It returns the bytes that became free, and how many of the trees
// somebody uses, who keeps them.
func (d *Dir) withdraw(contents map[Name]bool, stays time.Duration) (freed int64, inUse int, err error) {
	err = d.eachTree(func(l *treeLabel) error {
		for _, n := range l.contents() {
			if contents[n] {
				n, used := d.dropTree(l, stays)
				if freed += n; used {
					inUse++
				}
				break
			}
		}
		return nil
	})
	return freed, inUse, err
}

// EvictTrees removes the trees that have one of some contents. It returns the bytes
// of disk that they took, and how many are in use: these nobody is given any more,
// and their files go when a scan finds them unused.
func (d *Dir) EvictTrees(keys []Key) (freed int64, inUse int, err error) {
	contents := map[Name]bool{}
	for _, k := range keys {
		contents[d.name(k)] = true
	}
	return d.withdraw(contents, 0)
}

// evictTree removes a tree that was used last when c says, and the contents that are
// there for it alone: that were not used since. Who uses it keeps it, and so do pins
// of its contents.
func (d *Dir) evictTree(c candidate) error {
	l, err := d.readTree(c.Name)
	if l == nil || err != nil {
		return err
	}
	st, err := d.root.Lstat(l.lock())
	if err == nil && lastUse(st) != c.Last {
		return nil // it was used since
	}
	for _, n := range l.contents() {
		if d.isPinned(n) {
			return nil
		}
	}
	lock, unused := d.lockTree(l.dir(), treeStays)
	if !unused {
		return nil
	}
	defer lock.Close()
	d.drop(l, unused)
	for _, n := range l.contents() {
		st, err := d.root.Lstat(n.record())
		if err == nil && links(st) == 1 && lastUse(st) <= c.Last && !d.busy(n) && !d.isPinned(n) {
			_, err = d.remove(n)
		}
		if ignoreMissing(err) != nil {
			return err
		}
	}
	return nil
}

// tree counts a tree, and removes what is of none.
func (s *scan) tree(n Name, files []os.FileInfo) error {
	l, err := s.d.readTree(n)
	if err != nil {
		return err
	}
	if l != nil && !s.d.has(l.dir()) {
		s.d.root.Remove(n.tree())
		l = nil
	}
	for _, st := range files {
		p := path.Join(path.Dir(n.tree()), st.Name())
		switch {
		case l != nil && (p == n.tree() || p == l.dir()):
		case st.IsDir():
			stays := treeStays
			if st.Mode().Perm() == madeMode {
				stays = 0 // it was given to nobody
			}
			if !isOrphan(st) || !s.d.clearTree(p, stays) {
				s.used += s.d.alone(p)
			}
		case isOrphan(st) && !strings.HasSuffix(p, makeExt):
			s.d.root.Remove(p)
		case isOrphan(st):
			s.d.removeUnlocked(p)
		}
	}
	if l == nil {
		return nil
	}
	s.used += s.d.own(l)
	if st, err := s.d.root.Lstat(l.lock()); err == nil {
		s.add(candidate{n, lastUse(st)})
	}
	return nil
}

// alone is the bytes of disk that the files below a directory take that are nowhere
// else.
func (d *Dir) alone(dir string) (n int64) {
	fs.WalkDir(d.root.FS(), dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if st, err := e.Info(); err == nil && links(st) == 1 {
				n += onDisk(st)
			}
		}
		return nil
	})
	return n
}

// removeUnlocked removes a lock that nobody has.
func (d *Dir) removeUnlocked(p string) {
	f, err := d.root.OpenFile(p, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if flock(f, syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		d.root.Remove(p)
	}
}
