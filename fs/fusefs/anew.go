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
	to := i.Root().Operations().(*inode)
	for _, part := range strings.Split(path.Join(i.Path(nil), link), "/") {
		in, next := to, to.GetChild(part)
		if next == nil {
			in.NotifyEntry(part) // it may be known not to be there
			return
		}
		to = next.Operations().(*inode)
		d := in.get().Dir
		if _, lasts := d.(fs.Lasting); d == nil || lasts {
			continue
		}
		if !next.IsDir() || !to.again(ctx, d, part) {
			in.NotifyEntry(part)
			return
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
		if name, parent := i.Parent(); parent != nil {
			parent.NotifyEntry(name)
		}
		return
	}
	i.forgetEntries(0)
	for _, name := range i.takeMissed() {
		i.NotifyEntry(name)
	}
	for name, in := range i.Children() {
		if in.IsDir() {
			*looks--
		}
		if !in.IsDir() || (*looks >= 0 && !in.Operations().(*inode).again(ctx, d, name)) {
			i.NotifyEntry(name)
		} else {
			in.Operations().(*inode).doubt(ctx, looks)
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

// takeMissed gives the names that the kernel may believe not to be there.
func (i *inode) takeMissed() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	names := slices.Collect(maps.Keys(i.known().missed))
	clear(i.entries.missed)
	return names
}
