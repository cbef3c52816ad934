package fusefs

import (
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/mlflowfs/mlflowfs/fs"
)

// names is what the kernel knows: one inode for each ident, which every look-up that
// finds it gives. And it bounds how many these are: each costs the daemon half a
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

	mu      sync.RWMutex // guards what follows; no other lock is taken under it
	known   *simplelru.LRU[ident, *inode]
	numbers map[uint64]*inode // those of known, and the root
	most    int               // of these since known was made
	weight  int               // of all known
}

const (
	namesAtOnce = 4096                  // names that the kernel is asked to forget at a time
	namesPause  = 20 * time.Millisecond // in which it does
	namesRest   = time.Second           // after a round in which it forgot too few
	nameBytes   = 10 << 10              // of text count as one more name
)

func newNames(log *slog.Logger, max int) *names {
	return &names{log: log, max: max, wakeup: make(chan struct{}, 1), stopped: make(chan struct{}), known: newKnown(), numbers: map[uint64]*inode{}}
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
	n.mu.RLock()
	defer n.mu.RUnlock()
	i, _ := n.known.Peek(id)
	return i
}

// at gives the inode that the kernel knows by a number; nil where it knows none.
func (n *names) at(number uint64) *inode {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.numbers[number]
}

// tell notes that the kernel is told once more of the child of dir by that name and that
// ident, which is node now, and gives its inode.
func (n *names) tell(dir *inode, name string, id ident, node *fs.Node) *inode {
	w := 1 + int(node.Held()/nameBytes)
	n.mu.Lock()
	i, known := n.known.Peek(id)
	if !known {
		i = &inode{a: dir.a, id: id, number: id.number(), name: name, node: node}
		i.parent.Store(dir)
		for n.numbers[i.number] != nil {
			i.number++
		}
		n.numbers[i.number] = i
	}
	i.lookups++
	n.weight += w - i.weight
	i.weight = w
	n.known.Add(id, i)
	n.most = max(n.most, n.known.Len())
	over := n.max > 0 && n.weight > n.max
	n.mu.Unlock()
	i.mu.Lock()
	i.node = node
	i.mu.Unlock()
	dir.adopt(i)
	if over {
		select {
		case n.wakeup <- struct{}{}:
		default:
		}
	}
	return i
}

// again notes that the kernel is told once more of i, or that i is to be known until a
// forget; false where it is known no more.
func (n *names) again(i *inode) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	known := n.numbers[i.number] == i
	if known {
		i.lookups++
	}
	return known
}

// forget notes that the kernel has forgotten as many look-ups of what it knows by a
// number. With the last it knows that no more.
func (n *names) forget(number, lookups uint64) {
	n.mu.Lock()
	i := n.numbers[number]
	if i == nil || i == i.a.root {
		n.mu.Unlock()
		return
	}
	i.lookups -= min(i.lookups, lookups)
	gone := i.lookups == 0
	if gone {
		n.remove(i)
	}
	n.mu.Unlock()
	if gone {
		i.parent.Load().lost(i)
		i.a.links.forgotten(i)
	}
}

// remove takes i out. n.mu is held.
func (n *names) remove(i *inode) {
	delete(n.numbers, i.number)
	n.weight -= i.weight
	n.known.Remove(i.id)
	if few := n.known.Len(); n.most > namesAtOnce && few < n.most/4 { // a map keeps the room of the most that it held
		old := n.known
		n.known, n.most = newKnown(), few
		for _, i := range old.Values() {
			n.known.Add(i.id, i)
		}
		numbers := make(map[uint64]*inode, len(n.numbers))
		maps.Copy(numbers, n.numbers)
		n.numbers = numbers
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
func (n *names) work(s *session) {
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
			fs.Contain(n.log, "the bound of names", func() { n.ask(s, batch) })
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
func (n *names) ask(s *session, batch []*inode) {
	batch = slices.DeleteFunc(batch, func(i *inode) bool { return i.inUse() || i.stands() == nil })
	if !n.old.Load() {
		err := s.prune(batch)
		if err != syscall.ENOSYS && err != syscall.EINVAL {
			return
		}
		n.old.Store(true)
		n.log.Debug("the kernel can't be asked to forget directories", "err", err)
	}
	for _, i := range batch {
		if i.get().Dir == nil {
			s.forgetEntry(i.parent.Load(), i.name)
		}
	}
}
