package fusefs

import (
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/mlflowfs/mlflowfs/fs"
)

// names is what the kernel knows: one inode for each ident, which every look-up that
// finds it gives. And it bounds how many these are: each costs the daemon about a
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
	known  *simplelru.LRU[ident, *inode]
	most   int // of these since known was made
	weight int // of all known
}

const (
	namesAtOnce = 4096                  // names that the kernel is asked to forget at a time
	namesPause  = 20 * time.Millisecond // in which it does
	namesRest   = time.Second           // after a round in which it forgot too few
	nameBytes   = 10 << 10              // of text count as one more name
)

func newNames(log *slog.Logger, max int) *names {
	return &names{log: log, max: max, wakeup: make(chan struct{}, 1), stopped: make(chan struct{}), known: newKnown()}
}

func newKnown() *simplelru.LRU[ident, *inode] {
	known, err := simplelru.NewLRU[ident, *inode](math.MaxInt, nil)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return known
}

// of gives the inode that the kernel knows by an ident; nil where it knows none.
func (n *names) of(id ident) *inode {
	n.mu.Lock()
	defer n.mu.Unlock()
	i, _ := n.known.Peek(id)
	return i
}

// touch notes that the kernel is told of i, which is node now; unless it knows another
// by the ident, which it gives.
func (n *names) touch(i *inode, node *fs.Node) *inode {
	w := 1 + int(node.Held()/nameBytes)
	n.mu.Lock()
	if known, ok := n.known.Peek(i.id); ok {
		i = known
	}
	n.weight += w - i.weight
	i.weight = w
	n.known.Add(i.id, i)
	n.most = max(n.most, n.known.Len())
	over := n.max > 0 && n.weight > n.max
	n.mu.Unlock()
	if over {
		select {
		case n.wakeup <- struct{}{}:
		default:
		}
	}
	return i
}

func (n *names) forgotten(i *inode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if known, _ := n.known.Peek(i.id); known != i {
		return
	}
	n.weight -= i.weight
	i.weight = 0
	n.known.Remove(i.id)
	if few := n.known.Len(); n.most > namesAtOnce && few < n.most/4 { // a map keeps the room of the most that it held
		old := n.known
		n.known, n.most = newKnown(), few
		for _, i := range old.Values() {
			n.known.Add(i.id, i)
		}
	}
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
			fs.Contain(n.log, "the bound of names", func() { n.ask(root, batch) })
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
	for n.weight-weight > n.max && len(batch) < namesAtOnce {
		_, i, ok := n.known.RemoveOldest()
		if !ok {
			break
		}
		batch, weight = append(batch, i), weight+i.weight
	}
	for _, i := range batch {
		n.known.Add(i.id, i)
	}
	return batch, weight
}

// ask has the kernel forget inodes, if nobody uses them. One that stands nowhere is
// forgotten with its last user.
func (n *names) ask(root *inode, batch []*inode) {
	inodes := make([]*gofs.Inode, 0, len(batch))
	for _, i := range batch {
		_, parent := i.Parent()
		i.mu.Lock()
		used := i.isOpen()
		i.mu.Unlock()
		if parent != nil && !used {
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
