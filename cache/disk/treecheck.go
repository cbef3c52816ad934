package disk

import (
	"cmp"
	"io/fs"
	"os"
)

// isAsMade tells whether the files of a tree are those that were made in this boot,
// and nobody has written to one, or put another beside them.
func (d *Dir) isAsMade(l *treeLabel) bool {
	if b := boot(); b == "" || b != l.Boot {
		return false
	}
	for first := 0; first < len(l.Files); first += filesAtOnce {
		same, err := do(d, opStat, func() (bool, error) {
			for i := first; i < min(first+filesAtOnce, len(l.Files)); i++ {
				if st, err := d.root.Lstat(l.file(i)); err != nil || !l.Files[i].as(st) {
					return false, ignoreMissing(err)
				}
			}
			return true, nil
		}, nil)
		if err != nil || !same {
			return false
		}
	}
	return d.filesBelow(l.dir()+"/files") <= len(l.Files)
}

// filesAtOnce is how many files are looked at with the patience for one operation.
const filesAtOnce = 1000

// filesBelow counts what lies below a tree's directory, but for what Python compiles of
// the code there.
func (d *Dir) filesBelow(dir string) (n int) {
	fs.WalkDir(d.root.FS(), dir, func(_ string, e fs.DirEntry, err error) error {
		switch {
		case err == nil && e.IsDir() && e.Name() == "__pycache__":
			return fs.SkipDir
		case err == nil && !e.IsDir():
			n++
		}
		return nil
	})
	return n
}

// verifyTree holds each file of a tree against its checksums, and says so for the
// next time.
func (d *Dir) verifyTree(l *treeLabel) bool {
	began := boot()
	if d.filesBelow(l.dir()+"/files") > len(l.Files) {
		d.opt.Log.Warn("a program has put files into a directory of the cache's, which others are not given", "directory", l.dir())
		return false
	}
	for i := range l.Files {
		st, err := d.verifyFile(l, i)
		if err != nil {
			d.opt.Log.Warn("a directory of files of the cache is damaged, and is made anew", "err", err)
			return false
		}
		l.Files[i].Modified = st.ModTime().UnixNano()
	}
	l.Boot = began
	d.writeTree(l, l.name.tree()) // else they are verified again
	return true
}

func (d *Dir) verifyFile(l *treeLabel, i int) (os.FileInfo, error) {
	t := &l.Files[i]
	data, err := d.root.Open(l.file(i))
	if err != nil {
		return nil, err
	}
	defer data.Close()
	st, err := data.Stat()
	if err != nil || st.Size() != t.Size {
		return nil, cmp.Or(err, ErrDamaged)
	}
	if !t.hasContent() {
		b := make([]byte, t.Size)
		if err := readFull(data, b, 0); err != nil || string(b) != string(t.Text) {
			return nil, cmp.Or(err, ErrDamaged)
		}
		return st, nil
	}
	record, err := d.root.Open(l.held(t.Content))
	if err != nil {
		return nil, err
	}
	defer record.Close()
	c, err := readLabel(record, t.Content)
	if err != nil || c == nil || c.size != t.Size {
		return nil, cmp.Or(err, ErrDamaged)
	}
	marks, err := c.readMarks(record, 0, BlocksOf(c.size))
	if err != nil {
		return nil, err
	}
	b := make([]byte, BlockSize)
	for k := range BlocksOf(c.size) {
		b := b[:BlockLen(c.size, k)]
		if err := readFull(data, b, k*BlockSize); err != nil {
			return nil, err
		}
		if s, sum := marks.get(k); !s.readable() || sum != Sum(b) {
			return nil, ErrDamaged
		}
	}
	return st, nil
}
