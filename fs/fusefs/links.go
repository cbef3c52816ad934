package fusefs

import (
	"context"
	"errors"
	iofs "io/fs"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mlflowfs/mlflowfs/fs"
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

	mu    sync.Mutex // guards links; no other lock is taken under it
	links map[ident]*linkAt
}

// linkAt is a link that the kernel knows.
type linkAt struct {
	i    *inode
	path string // below the mount; its directory's inode may come and go
	in   ident  // of that
	dir  fs.Dir
	ttl  time.Duration

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
	return &linkWatcher{point: point, wakeup: make(chan struct{}, 1), stopped: make(chan struct{}), links: map[ident]*linkAt{}}
}

// touch notes that the kernel is told of the link i, by that name in dir.
func (w *linkWatcher) touch(i, dir *inode, name string, ttl time.Duration) {
	ttl = max(ttl, linksPause)
	l := &linkAt{i: i, path: path.Join(dir.path(), name), in: dir.id, dir: dir.get().Dir, ttl: ttl, due: time.Now().Add(ttl)}
	w.mu.Lock()
	w.links[i.id] = l
	w.mu.Unlock()
	select {
	case w.wakeup <- struct{}{}:
	default:
	}
}

func (w *linkWatcher) forgotten(i *inode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.links[i.id]; l != nil && l.i == i {
		delete(w.links, i.id)
	}
}

// told notes that the kernel was told of l's end. By now l.i may be found again.
func (w *linkWatcher) told(l *linkAt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.links[l.i.id] == l {
		delete(w.links, l.i.id)
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
			batch := make([]*inode, len(idle))
			for k, l := range idle {
				batch[k] = l.i
			}
			fs.Contain(a.log, "the look for watched links", func() { a.names.ask(a.session, batch) })
			for _, l := range watched {
				fs.Contain(a.log, "the look at a watched link", func() {
					if l.moved(ctx) {
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
func (l *linkAt) moved(ctx context.Context) bool {
	n, err := l.dir.Lookup(ctx, path.Base(l.path))
	if err != nil {
		return errors.Is(err, iofs.ErrNotExist)
	}
	return n.Link != l.i.get().Link
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
	name := path.Base(l.path)
	for range 3 {
		var st syscall.Stat_t
		if syscall.Lstat(filepath.Join(w.point, l.path), &st) != nil {
			return
		}
		dir, found := (*inode)(nil), a.root
		for part := range strings.SplitSeq(l.path, "/") {
			dir, found = found, found.child(part)
			if found == nil {
				return
			}
		}
		if found == l.i && a.session.deleteEntry(found, dir) == 0 {
			w.told(l)
			return
		}
		a.session.forgetEntry(dir, name)
	}
}

// left answers the thread which tells of a link's end, by its name: with the link as it
// was, until the kernel has deleted it. Whoever hears of the end finds what is new.
func (w *linkWatcher) left(r request, dir *inode, name string, out *fuse.EntryOut) bool {
	l := w.leaving.Load()
	if l == nil || l.in != dir.id || path.Base(l.path) != name || r.thread != l.thread || !dir.a.names.again(l.i) {
		return false
	}
	dir.adopt(l.i)
	out.SetEntryTimeout(linksPause) // what is outdated at once the kernel does not keep until it can be deleted
	l.i.fill(l.i.get(), out)
	return true
}
