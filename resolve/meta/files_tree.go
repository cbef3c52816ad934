package meta

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	yaml "go.yaml.in/yaml/v4"
)

// fileTree is a directory whose links are followed, those that lead out of it,
// too: an experiment may have been moved to another disk and linked. Such a link
// is followed where whoever made it could as well have put the content there:
// it is of root's or of this process's user, or what it leads to is of the user
// who made the link. Else a user could have a daemon of root's read another
// user's files.
type fileTree struct {
	root *os.Root
	dir  string
}

func openTree(dir string) (*fileTree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &fileTree{root, dir}, nil
}

func (t *fileTree) Close() { t.root.Close() }

// errForeign is why a link is not followed.
var errForeign = errors.New("a link leads to files of another user than the one who made it")

// open opens a file or a directory. It does not wait for who would write to a
// pipe.
func (t *fileTree) open(name string) (*os.File, error) {
	f, err := t.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return f, err
	}
	link, rest := t.leadsOut(name)
	switch {
	case link == "":
		return nil, err
	case rest != "":
		below, err := t.below(link)
		if err != nil {
			return nil, err
		}
		defer below.Close()
		return below.open(rest)
	}
	target, st, err := t.readLink(link)
	if err != nil {
		return nil, err
	}
	if f, err = os.OpenFile(target, os.O_RDONLY|syscall.O_NONBLOCK, 0); err != nil {
		return nil, err
	}
	if to, err := f.Stat(); err != nil || !follows(st, to) {
		f.Close()
		return nil, errors.Join(err, errForeign)
	}
	return f, nil
}

// lstat is of the entry itself, be it a link.
func (t *fileTree) lstat(name string) (fs.FileInfo, error) {
	st, err := t.root.Lstat(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return st, err
	}
	link, rest := t.leadsOut(name)
	if rest == "" {
		return nil, err
	}
	below, err := t.below(link)
	if err != nil {
		return nil, err
	}
	defer below.Close()
	return below.lstat(rest)
}

// below is the tree that a link leads out to.
func (t *fileTree) below(link string) (*fileTree, error) {
	target, st, err := t.readLink(link)
	if err != nil {
		return nil, err
	}
	below, err := openTree(target)
	if err != nil {
		return nil, err
	}
	if to, err := below.root.Stat("."); err != nil || !follows(st, to) {
		below.Close()
		return nil, errors.Join(err, errForeign)
	}
	return below, nil
}

// readLink gives the path that a link leads to.
func (t *fileTree) readLink(link string) (target string, st fs.FileInfo, err error) {
	if st, err = t.root.Lstat(link); err != nil {
		return "", nil, err
	}
	target, err = t.root.Readlink(link)
	if !strings.HasPrefix(target, "/") {
		target = t.dir + "/" + path.Dir(link) + "/" + target // not cleaned: what stands before a .. may be a link
	}
	return target, st, err
}

// leadsOut gives the first part of name that is a link out of the tree, and what
// comes behind it; empty where there is none.
func (t *fileTree) leadsOut(name string) (link, rest string) {
	parts := strings.Split(path.Clean(name), "/")
	for i := range parts {
		link = path.Join(parts[:i+1]...)
		st, err := t.root.Lstat(link)
		if err != nil {
			return "", ""
		}
		if st.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		if _, err := t.root.Stat(link); err != nil {
			return link, path.Join(parts[i+1:]...)
		}
	}
	return "", ""
}

// follows tells whether a link may be followed to what it leads to.
func follows(link, to fs.FileInfo) bool {
	maker, ok := link.Sys().(*syscall.Stat_t)
	owner, ok2 := to.Sys().(*syscall.Stat_t)
	return ok && ok2 && mayFollow(maker.Uid, owner.Uid, uint32(os.Geteuid()))
}

func mayFollow(maker, owner, self uint32) bool {
	return maker == 0 || maker == self || maker == owner
}

func (t *fileTree) readFile(name string) ([]byte, error) {
	f, err := t.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is no regular file", name))
	}
	return io.ReadAll(f)
}

func (t *fileTree) readYAML(name string, out any) error {
	b, err := t.readFile(name)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s is no YAML of MLflow's", name) // not the YAML's words: they may quote what a link leads to
	}
	return nil
}

// entries are what is in a directory, by name; a directory that is missing has
// none.
func (t *fileTree) entries(dir string) ([]fs.DirEntry, error) {
	f, err := t.open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}

// children names the entries of a directory that are wanted.
func (t *fileTree) children(dir string, want func(fs.DirEntry) bool) ([]string, error) {
	entries, err := t.entries(dir)
	var names []string
	for _, e := range entries {
		if want(e) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// isDir tells whether name is a directory that can be opened.
func (t *fileTree) isDir(name string) bool {
	f, err := t.open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	st, err := f.Stat()
	return err == nil && st.IsDir()
}
