package fusefs

import (
	"context"
	"errors"
	iofs "io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mlflowfs/mlflowfs/fs"
)

// anew has the kernel ask again for what lies where a link in i leads, and below that:
// it was just found anew. Of the way to it, what a server names is looked up from here.
func (i *inode) anew(ctx context.Context, link string) {
	i.a.anews.Add(1)
	defer i.a.anews.Add(1)
	to := i.a.root
	for part := range strings.SplitSeq(path.Join(i.path(), link), "/") {
		in := to
		if to = in.child(part); to == nil {
			i.a.session.forgetEntry(in, part) // it may be known not to be there
			return
		}
		switch d := in.get().Dir.(type) {
		case nil, fs.Lasting: // a directory stays what it is
		default:
			if !to.isDir() || !to.again(ctx, d, part) {
				i.a.session.forgetEntry(in, part)
				return
			}
		}
	}
	looks := maxLooks
	to.doubt(ctx, &looks)
}

// doubtful has the kernel believe nothing of an answer that was begun when there had been
// since anews, and more by now: it may be of before, and was not known to doubt.
func (a *adapter) doubtful(since uint64, out *fuse.EntryOut) {
	if a.anews.Load() != since {
		out.SetEntryTimeout(0)
		out.SetAttrTimeout(0)
	}
}

// maxLooks is how many directories are looked up anew at most, each by one request; what
// a name leads to beyond that is believed until its TTL is over.
const maxLooks = 64

// doubt has the kernel ask again for each entry that it knows of the directory i and of
// those below it, and for i where that is a file. A directory that is still one stays as
// the kernel has it, for a program may stand in it: it is looked up from here.
func (i *inode) doubt(ctx context.Context, looks *int) {
	d := i.get().Dir
	if d == nil {
		if parent := i.stands(); parent != nil {
			i.a.session.forgetEntry(parent, i.name)
		}
		return
	}
	i.forgetEntries(0)
	missed, children := i.takeMissed()
	for _, name := range missed {
		i.a.session.forgetEntry(i, name)
	}
	for name, child := range children {
		if child.isDir() {
			*looks--
		}
		if !child.isDir() || (*looks >= 0 && !child.again(ctx, d, name)) {
			i.a.session.forgetEntry(i, name)
		} else {
			child.doubt(ctx, looks)
		}
	}
}

// again looks i up anew as an entry of d; false where it is no directory any more. What
// can't be asked is left as it is.
func (i *inode) again(ctx context.Context, d fs.Dir, name string) bool {
	n, err := d.Lookup(ctx, name)
	if err != nil {
		return !errors.Is(err, iofs.ErrNotExist)
	}
	if n.Dir == nil {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.node = n
	return true
}

// maxMissed is how many names a directory remembers that were not there: as many as a
// program tries before it finds one.
const maxMissed = 64

// miss notes that the kernel was told that name is not there.
func (i *inode) miss(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	k, now := i.known(), time.Now()
	maps.DeleteFunc(k.missed, func(_ string, at time.Time) bool { return now.Sub(at) > negativeTTL })
	if len(k.missed) < maxMissed {
		k.missed[name] = now
	}
}

// takeMissed gives the names that the kernel may believe not to be there, and the children
// that it knows.
func (i *inode) takeMissed() (names []string, children map[string]*inode) {
	i.mu.Lock()
	defer i.mu.Unlock()
	k := i.known()
	names = slices.Collect(maps.Keys(k.missed))
	clear(k.missed)
	return names, maps.Clone(k.children)
}
