package fusefs

import (
	"context"
	"errors"
	iofs "io/fs"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/fs/fusefs/sessionfile"
)

// linkWatcher has programs that watch a link by inotify see that it leads elsewhere.
//
// The kernel raises no event for what changes on a server. But where it is told
// that a name is deleted (FUSE_NOTIFY_DELETE) it raises IN_DELETE_SELF for the
// watches of what the name led to, and so for a watch of the link itself
// (IN_DONT_FOLLOW). A watch of the directory, or of what the link leads to, sees
// nothing.
//
// Only a link that is watched costs requests. A watch keeps the kernel from
// forgetting the link's inode: so it is asked to forget each link when the TTL
// of its look-up is over, whereby nobody loses anything, and what it keeps is
// looked up here whenever a TTL is over again.
type linkWatcher struct {
	point   string
	wakeup  chan struct{}
	stopped chan struct{}

	leaving atomic.Pointer[leaving]

	mu    sync.Mutex         // guards links; no other lock is taken under it
	links map[uint64]*linkAt // by their numbers
}

// linkAt is a link that the kernel knows.
type linkAt struct {
	number uint64
	in     uint64 // its directory's number
	name   string // in that
	id     ident
	ttl    time.Duration

	due  time.Time // when it is looked at next; guarded by linkWatcher.mu
	kept bool      // the kernel was asked to forget it, and has not; guarded by linkWatcher.mu
}

// leaving is a link that the look-ups of one thread still find, until the kernel has
// deleted it.
type leaving struct {
	*linkAt
	thread uint32
}

// linksPause is how long it takes, at most, until a TTL is seen to be over.
const linksPause = time.Second

func newLinkWatcher(point string) *linkWatcher {
	return &linkWatcher{point: point, wakeup: make(chan struct{}, 1), stopped: make(chan struct{}), links: map[uint64]*linkAt{}}
}

// touch notes that the kernel is told of the link i.
func (w *linkWatcher) touch(i *inode, ttl time.Duration) {
	ttl = max(ttl, linksPause)
	l := &linkAt{number: i.number, in: i.parent, name: i.name, id: i.id, ttl: ttl, due: time.Now().Add(ttl)}
	w.mu.Lock()
	w.links[i.number] = l
	w.mu.Unlock()
	select {
	case w.wakeup <- struct{}{}:
	default:
	}
}

// keep has it watch the links that the kernel knows by a daemon before this one.
func (w *linkWatcher) keep(a *adapter) {
	var all []*linkAt
	a.names.mu.RLock()
	a.names.rows.All(func(r sessionfile.Row) bool {
		if l := a.names.rows.Get(r); l.Moves && a.names.rows.Lookups(r) > 0 {
			all = append(all, &linkAt{number: l.Number, in: l.Parent, name: l.Name, id: ident{l.Number, l.Check}, ttl: linksPause, due: time.Now()})
		}
		return true
	})
	a.names.mu.RUnlock()
	w.mu.Lock()
	for _, l := range all {
		w.links[l.number] = l
	}
	w.mu.Unlock()
	if len(all) > 0 {
		w.wakeup <- struct{}{}
	}
}

// forgotten notes that the kernel knows nothing by a number any more.
func (w *linkWatcher) forgotten(number uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.links, number)
}

// told notes that the kernel was told of l's end. By now l may be found again.
func (w *linkWatcher) told(l *linkAt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.links[l.number] == l {
		delete(w.links, l.number)
	}
}

// work looks after the links until stopped is closed. No request waits for it.
func (w *linkWatcher) work(a *adapter) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-w.stopped:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		select {
		case <-w.wakeup:
		case <-w.stopped:
			return
		}
		for known := true; known; {
			select {
			case <-time.After(linksPause):
			case <-w.stopped:
				return
			}
			var idle, watched []*linkAt
			idle, watched, known = w.due(time.Now())
			batch := make([]uint64, len(idle))
			for k, l := range idle {
				batch[k] = l.number
			}
			fs.Contain(a.log, "the look for watched links", func() { a.names.ask(a.session, batch) })
			for _, l := range watched {
				fs.Contain(a.log, "the look at a watched link", func() {
					if a.moved(ctx, l) {
						w.tell(a, l)
					}
				})
			}
		}
	}
}

// due gives the links whose time has come: those that the kernel is to forget,
// and those that it would not; known tells whether there are any at all.
func (w *linkWatcher) due(now time.Time) (idle, watched []*linkAt, known bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.links {
		switch {
		case now.Before(l.due):
		case l.kept:
			l.due = now.Add(l.ttl)
			watched = append(watched, l)
		default:
			l.kept = true // if it is still there in the next round
			idle = append(idle, l)
		}
	}
	return idle, watched, len(w.links) > 0
}

// moved tells whether the link's name leads elsewhere now, as far as the server
// can be asked.
func (a *adapter) moved(ctx context.Context, l *linkAt) bool {
	dir := a.names.use(a, l.in)
	if dir == nil {
		return false
	}
	defer dir.done()
	if dir.resolved(ctx) != 0 {
		return false
	}
	n, err := dir.get().Dir.Lookup(ctx, l.name)
	if err != nil {
		return errors.Is(err, iofs.ErrNotExist)
	}
	return a.names.identify(dir, l.name, n) != l.id
}

// tell has the kernel delete the link. It deletes only what it has by that name:
// so it looks the name up once more, and is given the old link; where it has the
// new one already, which another look-up found, it is to forget that first. What
// can't be told now is told when the link is looked at next.
func (w *linkWatcher) tell(a *adapter, l *linkAt) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	w.leaving.Store(&leaving{l, thread()})
	defer w.leaving.Store(nil)
	at := filepath.Join(w.point, a.names.path(l.in), l.name)
	for range 3 {
		var st syscall.Stat_t
		if syscall.Lstat(at, &st) != nil {
			return
		}
		number, known := a.names.leads(l.in, l.name)
		if !known {
			return
		}
		if number == l.number && a.session.deleteEntry(l.number, l.in, l.name) == 0 {
			w.told(l)
			return
		}
		a.session.forgetEntry(l.in, l.name)
	}
}

// left answers the thread which tells of a link's end, by its name: with the link as it
// was, until the kernel has deleted it. Whoever hears of the end finds what is new.
func (w *linkWatcher) left(r request, dir *inode, name string, out *fuse.EntryOut) bool {
	l := w.leaving.Load()
	if l == nil || l.in != dir.number || l.name != name || r.thread != l.thread || !dir.a.names.again(l.number) {
		return false
	}
	i := dir.a.names.use(dir.a, l.number)
	if i == nil {
		return false
	}
	defer i.done()
	dir.a.names.lead(l.number)
	n := i.get()
	if n == nil {
		n = &fs.Node{Link: "?"} // which nobody asks for any more
	}
	i.fill(n, out)
	out.SetEntryTimeout(linksPause) // what is outdated at once the kernel does not keep until it can be deleted
	return true
}
