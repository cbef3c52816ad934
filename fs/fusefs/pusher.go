package fusefs

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/fs"
)

// pagePusher gives the kernel pages before it asks for them. Where the kernel takes none,
// that is switched off, and said once in the log.
type pagePusher struct {
	log        *slog.Logger
	off        bool // not wanted
	wakeup     chan struct{}
	stopped    chan struct{}
	workerGone chan struct{}

	mu    sync.Mutex  // guards what follows; no other lock is taken under it
	queue []*inode    // with bytes to push; each once
	ended bool        // nobody takes them from the queue any more
	short func() bool // whether memory is
}

func newPagePusher(log *slog.Logger, off bool) *pagePusher {
	return &pagePusher{log: log, off: off, wakeup: make(chan struct{}, 1), stopped: make(chan struct{}), workerGone: make(chan struct{}), short: memoryShort}
}

// stop ends the pushing: none may be on its way while the kernel unmounts. One
// that waits for a page which the kernel holds is not waited for long.
func (p *pagePusher) stop() {
	close(p.stopped)
	select {
	case <-p.workerGone:
	case <-time.After(time.Second):
	}
}

// push has the worker look for bytes of i to push. It does not wait.
func (p *pagePusher) push(i *inode) {
	if p.off {
		return
	}
	p.mu.Lock()
	if !i.queued && !p.ended {
		i.queued = true
		p.queue = append(p.queue, i)
	}
	p.mu.Unlock()
	select {
	case p.wakeup <- struct{}{}:
	default:
	}
}

// pushSize is how much is pushed at a time, in bytes.
const pushSize = 8 * cache.BlockSize

// work pushes, file by file. No READ ever waits for it: it may wait for a page
// that a READ holds (fuse_notify_store in the kernel takes the folio's lock).
func (p *pagePusher) work() {
	defer close(p.workerGone)
	defer p.end()
	buf := make([]byte, pushSize)
	var looked time.Time
	short := false
	for {
		i := p.next()
		if i == nil {
			return
		}
		if now := time.Now(); now.Sub(looked) > time.Second {
			p.mu.Lock()
			isShort := p.short
			p.mu.Unlock()
			looked, short = now, isShort()
		}
		if short {
			continue // what is not pushed is asked for
		}
		var more bool
		var err error
		fs.Contain(p.log, "a push", func() { more, err = i.pushSome(buf) })
		switch {
		case errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EINVAL):
			p.log.Info("the kernel takes no pages that it has not asked for", "err", err)
			return
		case err == nil && more:
			p.push(i)
		}
	}
}

// end lets go of what is queued, and of all that would be.
func (p *pagePusher) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended, p.queue = true, nil
}

// next waits for an inode with bytes to push; nil says that it is over.
func (p *pagePusher) next() *inode {
	for {
		select {
		case <-p.stopped:
			return nil
		default:
		}
		p.mu.Lock()
		if len(p.queue) > 0 {
			defer p.mu.Unlock()
			i := p.queue[0]
			p.queue = p.queue[1:]
			i.queued = false
			return i
		}
		p.mu.Unlock()
		select {
		case <-p.wakeup:
		case <-p.stopped:
			return nil
		}
	}
}

// pushSome pushes bytes that have come for a file, if it is open; more says
// that there may be others.
func (i *inode) pushSome(buf []byte) (more bool, err error) {
	i.pushing.Lock()
	defer i.pushing.Unlock()
	f := i.ahead()
	if f == nil {
		return false, nil
	}
	defer f.done()
	// The kernel may forget i meanwhile, and be told of another inode by its number: until the
	// push has ended it is told of this one, whose next open waits for that.
	if !i.a.names.again(i.number) {
		return false, nil
	}
	defer i.a.forget(i.number, 1)
	n, off := f.h.(fs.Ahead).Fresh(buf)
	for at, end := off, off+int64(n); at < end; {
		var to int64
		if at, to = i.unread(at, end); at >= to {
			break
		}
		f.hasPages()
		if errno := i.a.session.store(i.number, at, buf[at-off:to-off]); errno != 0 {
			return false, errno
		}
		i.a.opens.pushed.Add(to - at)
		at = to
	}
	return n > 0, nil
}

// ahead is an open handle, an [fs.Ahead], of the content whose pages the kernel has;
// nil where there is none. The caller is done with it in the end.
func (i *inode) ahead() *openFile {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, f := range i.cached {
		if _, ok := f.h.(fs.Ahead); ok && f.identity == i.read && f.identity != noIdentity {
			f.uses++
			return f
		}
	}
	return nil
}

// unread gives the first part of a span that touches nothing that the kernel
// waits for.
func (i *inode) unread(at, to int64) (int64, int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for again := true; again; {
		again = false
		for _, s := range i.reading {
			if s.off <= at && at < s.end {
				at, again = s.end, true
			}
		}
	}
	for _, s := range i.reading {
		if at < s.off && s.off < to {
			to = s.off
		}
	}
	return at, to
}

// memoryShort tells whether the machine has less than a twentieth of its
// memory to give.
func memoryShort() bool {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return false
	}
	defer f.Close()
	return shortIn(f)
}

// shortIn reads a meminfo (proc_meminfo(5)).
func shortIn(meminfo io.Reader) bool {
	var total, available int64
	for sc := bufio.NewScanner(meminfo); sc.Scan(); {
		key, rest, _ := strings.Cut(sc.Text(), ":")
		digits, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		n, _ := strconv.ParseInt(digits, 10, 64)
		switch key {
		case "MemTotal":
			total = n
		case "MemAvailable":
			available = n
		}
	}
	return available < total/20
}
