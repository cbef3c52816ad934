package fs

import (
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// names bounds how many names the kernel knows: each costs the daemon about a
// kilobyte for as long as the kernel has not forgotten it, and the kernel
// forgets when it is short of memory itself. Beyond max it is asked to, of those
// that were looked up longest ago. What is in use it keeps.
type names struct {
	log     *slog.Logger
	max     int
	wakeup  chan struct{}
	stopped chan struct{}

	old atomic.Bool // the kernel can't be asked to forget an inode (before Linux 6.18)

	mu    sync.Mutex // guards known; no other lock is taken under it
	known *simplelru.LRU[*inode, struct{}]
}

const (
	namesAtOnce = 4096                  // names that the kernel is asked to forget at a time
	namesPause  = 20 * time.Millisecond // in which it does
	namesRest   = time.Second           // after a round in which it forgot too few
)

func newNames(log *slog.Logger, max int) *names {
	known, err := simplelru.NewLRU[*inode, struct{}](math.MaxInt, nil)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &names{log: log, max: max, wakeup: make(chan struct{}, 1), stopped: make(chan struct{}), known: known}
}

// touch notes that the kernel is told of i.
func (n *names) touch(i *inode) {
	n.mu.Lock()
	n.known.Add(i, struct{}{})
	over := n.max > 0 && n.known.Len() > n.max
	n.mu.Unlock()
	if over {
		select {
		case n.wakeup <- struct{}{}:
		default:
		}
	}
}

func (n *names) forgotten(i *inode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known.Remove(i)
}

func (n *names) len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.known.Len()
}

// over is how many names too many the kernel knows.
func (n *names) over() int { return n.len() - n.max }

// work asks the kernel to forget until stopped is closed. No request waits for
// it: the kernel may wait for a directory's lock, which a look-up holds.
func (n *names) work(root *inode) {
	for {
		select {
		case <-n.wakeup:
		case <-n.stopped:
			return
		}
		pause := namesPause
		tried := 0 // since it forgot one
		for over := n.over(); over > 0; {
			batch := n.oldest()
			tried += len(batch)
			contain(n.log, "the bound of names", func() { n.ask(root, batch) })
			time.Sleep(namesPause) // its FORGETs come
			was := over
			if over = n.over(); over < was {
				tried = 0
			} else if tried >= over+n.max { // all are in use
				pause = namesRest
				break
			}
		}
		time.Sleep(pause)
	}
}

// oldest gives names that were touched longest ago, and takes them for touched.
func (n *names) oldest() []*inode {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*inode
	for range min(n.known.Len()-n.max, namesAtOnce) {
		i, _, ok := n.known.RemoveOldest()
		if !ok {
			break
		}
		out = append(out, i)
	}
	for _, i := range out {
		n.known.Add(i, struct{}{})
	}
	return out
}

// ask has the kernel forget inodes, if nobody uses them. One that stands nowhere
// is none that it was told of: a look-up at the same time made another.
func (n *names) ask(root *inode, batch []*inode) {
	inodes := make([]*gofs.Inode, 0, len(batch))
	for _, i := range batch {
		if _, parent := i.Parent(); parent == nil {
			n.forgotten(i)
			continue
		}
		i.mu.Lock()
		used := i.isOpen()
		i.mu.Unlock()
		if !used {
			inodes = append(inodes, &i.Inode)
		}
	}
	if !n.old.Load() {
		errno := root.NotifyPrune(inodes)
		if errno != syscall.ENOSYS && errno != syscall.EINVAL {
			return
		}
		n.old.Store(true)
		n.log.Debug("the kernel can't be asked to forget directories", "err", errno)
	}
	for _, in := range inodes {
		if name, parent := in.Parent(); parent != nil && !in.IsDir() {
			parent.NotifyEntry(name)
		}
	}
}
