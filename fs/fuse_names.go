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
// that were looked up longest ago. What is in use it keeps. A name whose node holds
// a text counts as several.
type names struct {
	log     *slog.Logger
	max     int
	wakeup  chan struct{}
	stopped chan struct{}

	old atomic.Bool // the kernel can't be asked to forget an inode (before Linux 6.18)

	mu     sync.Mutex // guards what follows; no other lock is taken under it
	known  *simplelru.LRU[*inode, int]
	weight int // of all known
}

const (
	namesAtOnce = 4096                  // names that the kernel is asked to forget at a time
	namesPause  = 20 * time.Millisecond // in which it does
	namesRest   = time.Second           // after a round in which it forgot too few
	nameBytes   = 10 << 10              // of text count as one more name
)

func newNames(log *slog.Logger, max int) *names {
	known, err := simplelru.NewLRU[*inode, int](math.MaxInt, nil)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &names{log: log, max: max, wakeup: make(chan struct{}, 1), stopped: make(chan struct{}), known: known}
}

// touch notes that the kernel is told of i, which is node now.
func (n *names) touch(i *inode, node *Node) {
	w := 1 + int(held(node)/nameBytes)
	n.mu.Lock()
	was, _ := n.known.Peek(i)
	n.weight += w - was
	n.known.Add(i, w)
	over := n.max > 0 && n.weight > n.max
	n.mu.Unlock()
	if over {
		select {
		case n.wakeup <- struct{}{}:
		default:
		}
	}
}

// held is how many bytes of text a node keeps in memory.
func held(n *Node) int64 {
	if t, ok := n.File.(text); ok {
		return int64(len(t))
	}
	sum := int64(0)
	if d, ok := n.Dir.(fixed); ok {
		for _, e := range d {
			sum += int64(len(e.Name)) + held(e.Node)
		}
	}
	return sum
}

func (n *names) forgotten(i *inode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	was, _ := n.known.Peek(i)
	n.weight -= was
	n.known.Remove(i)
}

func (n *names) len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.known.Len()
}

// over is how many names too many the kernel knows.
func (n *names) over() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.weight - n.max
}

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
			batch, weight := n.oldest()
			tried += weight
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

// oldest gives names that were touched longest ago, and what they weigh, and takes
// them for touched.
func (n *names) oldest() (batch []*inode, weight int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var weights []int
	for n.weight-weight > n.max && len(batch) < namesAtOnce {
		i, w, ok := n.known.RemoveOldest()
		if !ok {
			break
		}
		batch, weights, weight = append(batch, i), append(weights, w), weight+w
	}
	for k, i := range batch {
		n.known.Add(i, weights[k])
	}
	return batch, weight
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
