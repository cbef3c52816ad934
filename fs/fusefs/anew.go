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
	a := i.a
	a.anews.Add(1)
	defer a.anews.Add(1)
	to := a.names.use(a, a.root.number)
	for part := range strings.SplitSeq(path.Join(i.path(), link), "/") {
		in := to
		number, known := a.names.leads(in.number, part)
		if known {
			to = a.names.use(a, number)
		}
		if in.done(); !known || to == nil {
			a.session.forgetEntry(in.number, part) // it may be known not to be there
			return
		}
		switch d := in.looksIn().(type) {
		case nil, fs.Lasting: // a directory stays what it is
		default:
			if !to.dir || !to.again(ctx, d) {
				to.done()
				a.session.forgetEntry(in.number, part)
				return
			}
		}
	}
	defer to.done()
	looks := maxLooks
	to.doubt(ctx, &looks)
}

// looksIn is the directory that was found last; nil where i is none, or is not resolved, and
// so will be looked up.
func (i *inode) looksIn() fs.Dir {
	if n := i.get(); n != nil {
		return n.Dir
	}
	return nil
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
	a := i.a
	if !i.dir {
		if a.names.stands(i) {
			a.session.forgetEntry(i.parent, i.name)
		}
		return
	}
	i.forgetEntries(0)
	for _, name := range i.takeMissed() {
		a.session.forgetEntry(i.number, name)
	}
	d := i.looksIn()
	for _, number := range a.names.children(i.number) {
		child := a.names.use(a, number)
		if child == nil {
			continue // it was forgotten just now
		}
		if child.dir {
			*looks--
		}
		if !child.dir || (*looks >= 0 && d != nil && !child.again(ctx, d)) {
			a.session.forgetEntry(i.number, child.name)
		} else {
			child.doubt(ctx, looks)
		}
		child.done()
	}
}

// again looks i up anew as an entry of d; false where it is no directory any more. What
// can't be asked is left as it is.
func (i *inode) again(ctx context.Context, d fs.Dir) bool {
	n, err := d.Lookup(ctx, i.name)
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
	now := time.Now()
	maps.DeleteFunc(i.missed, func(_ string, at time.Time) bool { return now.Sub(at) > negativeTTL })
	if i.missed == nil {
		i.missed = map[string]time.Time{}
	}
	if len(i.missed) < maxMissed {
		i.missed[name] = now
	}
	i.missedAt.Store(now.UnixNano())
}

// takeMissed gives the names that the kernel may believe not to be there.
func (i *inode) takeMissed() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	names := slices.Collect(maps.Keys(i.missed))
	clear(i.missed)
	return names
}
