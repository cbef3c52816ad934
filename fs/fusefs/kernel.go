package fusefs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/fs"
)

// kernel is what the mount has the kernel do beyond answering it: read whole
// files by itself, and take pages before it asks for them. What it can't do
// here is switched off by itself, and said once in the log.
type kernel struct {
	log *slog.Logger

	passing    sync.Once // the first backing file tells whether the kernel takes any
	passes     bool
	server     atomic.Pointer[fuse.Server]
	noPassing  bool // not wanted
	noPushing  bool // not wanted
	wakeup     chan struct{}
	stopped    chan struct{}
	workerGone chan struct{}

	mu    sync.Mutex  // guards what follows; no other lock is taken under it
	queue []*inode    // with bytes to push; each once
	ended bool        // nobody takes them from the queue any more
	short func() bool // whether memory is
}

func newKernel(log *slog.Logger, noPassing, noPushing bool) *kernel {
	return &kernel{
		log: log, noPassing: noPassing, noPushing: noPushing,
		wakeup: make(chan struct{}, 1), stopped: make(chan struct{}), workerGone: make(chan struct{}), short: memoryShort,
	}
}

// start begins to push, to the kernel that server talks to.
func (k *kernel) start(server *fuse.Server) {
	k.server.Store(server)
	go k.work()
}

// stop ends the pushing: none may be on its way while the kernel unmounts. One
// that waits for a page which the kernel holds is not waited for long.
func (k *kernel) stop() {
	close(k.stopped)
	select {
	case <-k.workerGone:
	case <-time.After(time.Second):
	}
}

// backing is the file that the kernel may read in the place of h, or nil.
func (k *kernel) backing(h fs.Handle) *os.File {
	b, ok := h.(fs.Backed)
	if !ok || k.noPassing {
		return nil
	}
	f, server := b.Backing(), k.server.Load()
	if f == nil || server == nil {
		return nil
	}
	k.passing.Do(func() {
		if err := canPass(server, f); err != nil {
			k.log.Info("the kernel can't read files of the cache by itself (passthrough): it needs Linux 6.9, root, and a cache on a disk of its own", "err", err)
			return
		}
		k.passes = true
	})
	if !k.passes {
		return nil
	}
	return f
}

// push has the worker look for bytes of i to push. It does not wait.
func (k *kernel) push(i *inode) {
	if k.noPushing {
		return
	}
	k.mu.Lock()
	if !i.queued && !k.ended {
		i.queued = true
		k.queue = append(k.queue, i)
	}
	k.mu.Unlock()
	select {
	case k.wakeup <- struct{}{}:
	default:
	}
}

// pushSize is how much is pushed at a time, in bytes.
const pushSize = 8 * cache.BlockSize

// work pushes, file by file. No READ ever waits for it: it may wait for a page
// that a READ holds (fuse_notify_store in the kernel takes the folio's lock).
func (k *kernel) work() {
	defer close(k.workerGone)
	defer k.end()
	buf := make([]byte, pushSize)
	var looked time.Time
	short := false
	for {
		i := k.next()
		if i == nil {
			return
		}
		if now := time.Now(); now.Sub(looked) > time.Second {
			k.mu.Lock()
			isShort := k.short
			k.mu.Unlock()
			looked, short = now, isShort()
		}
		if short {
			continue // what is not pushed is asked for
		}
		var more bool
		var err error
		fs.Contain(k.log, "a push", func() { more, err = i.pushSome(buf) })
		switch {
		case errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EINVAL):
			k.log.Info("the kernel takes no pages that it has not asked for", "err", err)
			return
		case err == nil && more:
			k.push(i)
		}
	}
}

// end lets go of what is queued, and of all that would be.
func (k *kernel) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended, k.queue = true, nil
}

// next waits for an inode with bytes to push; nil says that it is over.
func (k *kernel) next() *inode {
	for {
		select {
		case <-k.stopped:
			return nil
		default:
		}
		k.mu.Lock()
		if len(k.queue) > 0 {
			defer k.mu.Unlock()
			i := k.queue[0]
			k.queue = k.queue[1:]
			i.queued = false
			return i
		}
		k.mu.Unlock()
		select {
		case <-k.wakeup:
		case <-k.stopped:
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
	n, off := f.h.(fs.Ahead).Fresh(buf)
	for at, end := off, off+int64(n); at < end; {
		var to int64
		if at, to = i.unread(at, end); at >= to {
			break
		}
		if errno := i.WriteCache(at, buf[at-off:to-off]); errno != 0 {
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

// readAheadKiB is what the kernel reads ahead as root. More makes a large read
// at random bring several times itself, and no load faster that was measured:
// what a reader in order wants next is in the cache by then.
const readAheadKiB = 256

// readAhead raises how much the kernel reads ahead in the mount at point, in
// KiB. It starts at 128 whatever the daemon asks for, and only root may.
func readAhead(point string, kib int, log *slog.Logger) {
	if os.Geteuid() != 0 {
		log.Info("the kernel's read-ahead stays at 128 KiB: only root may raise it")
		return
	}
	var st syscall.Stat_t
	if err := syscall.Stat(point, &st); err != nil {
		return
	}
	name := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)))
	if err := os.WriteFile(name, []byte(strconv.Itoa(kib)), 0); err != nil {
		log.Info("the kernel's read-ahead can't be raised", "err", err)
	}
}
