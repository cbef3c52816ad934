package fusefs

import (
	"log/slog"
	"maps"
	"path"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/fs/fusefs/sessionfile"
)

// names is what the kernel knows: a row of the session for each inode that it was told of and
// has not forgotten, and for the directories on the way there. The inodes themselves are made
// of rows when they are asked for; those that were lately, and those that are in use, are at
// hand.
//
// What the kernel has forgotten is remembered for a while: a program may have a handle of it
// (name_to_handle_at), which names it by its number alone.
//
// How many rows there are is bounded: see [names.work].
type names struct {
	log     *slog.Logger
	max     int
	wakeup  chan struct{}
	stopped chan struct{}

	old atomic.Bool // the kernel can't be asked to forget an inode (before Linux 6.18)

	mu    sync.RWMutex // guards what follows, and the rows; no other lock is taken under it
	rows  *sessionfile.Names
	live  map[uint64]*inode // by their numbers, and the root
	most  int               // of these since live was made
	idle  []uint64          // numbers of what the kernel has forgotten, the first longest ago; some it knows again
	free  int               // rows of what it has forgotten
	keeps int               // rows of what it has forgotten that are remembered
	left  bool              // another process has the rows
	room  int               // beyond which those of live that nobody uses are let go of
}

const (
	nameBytes  = 10 << 10 // of text count as one more name
	liveInodes = 16 << 10 // at hand, beside those in use
	remembered = 64 << 10 // of those that the kernel has forgotten
)

func newNames(log *slog.Logger, max int, rows *sessionfile.Names) *names {
	return &names{
		log: log, max: max, wakeup: make(chan struct{}, 1), stopped: make(chan struct{}),
		rows: rows, live: map[uint64]*inode{}, room: liveInodes, keeps: remembered,
	}
}

// use gives the inode that the kernel knows by a number, which may not be resolved; nil where
// it knows none. It is kept at hand until it is done with.
func (n *names) use(a *adapter, number uint64) *inode {
	n.mu.RLock()
	i := n.live[number]
	if i != nil {
		i.pins.Add(1)
	}
	n.mu.RUnlock()
	if i != nil {
		return i
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if i = n.live[number]; i == nil {
		r := n.rows.At(number)
		if r == 0 {
			return nil
		}
		i = n.revive(a, r)
	}
	i.pins.Add(1)
	return i
}

// revive makes the inode of a row. n.mu is held.
func (n *names) revive(a *adapter, r sessionfile.Row) *inode {
	was := n.rows.Get(r)
	i := &inode{
		a: a, id: ident{was.Number, was.Check}, number: was.Number, name: was.Name, parent: was.Parent, turn: was.Turn, dir: was.Dir,
		stale: n.rows.Stale(r), listed: longAgo,
	}
	if pages := n.rows.Pages(r); pages != 0 {
		i.read = provenBy(pages)
	}
	n.keep(i)
	return i
}

// longAgo is when the kernel began to remember what nobody knows.
var longAgo = time.Unix(1, 0)

// keep keeps an inode at hand, and lets go of others where these are too many. n.mu is held.
func (n *names) keep(i *inode) {
	if len(n.live) >= n.room {
		now := time.Now()
		for number, other := range n.live {
			if other.pins.Load() == 0 && now.Sub(time.Unix(0, other.missedAt.Load())) > negativeTTL {
				delete(n.live, number)
			}
			if len(n.live) < n.room*7/8 {
				break
			}
		}
		n.room = max(liveInodes, len(n.live)*9/8)
	}
	n.live[i.number] = i
	n.most = max(n.most, len(n.live))
}

// letGo lets go of the inode of a number. n.mu is held.
func (n *names) letGo(number uint64) {
	delete(n.live, number)
	if few := len(n.live); n.most > namesAtOnce && few < n.most/4 { // a map keeps the room of the most that it held
		live := make(map[uint64]*inode, few)
		maps.Copy(live, n.live)
		n.live, n.most = live, few
	}
}

// rowOf is the row of an ident, and the number that it has or would have. n.mu is held.
func (n *names) rowOf(id ident) (r sessionfile.Row, number uint64) {
	for number = id.number(); ; number++ {
		r = n.rows.At(number)
		if r == 0 || n.rows.Check(r) == id[1] {
			return r, number
		}
	}
}

// turn is how often what a name leads to was found to have changed. n.mu is held.
func (n *names) turn(dir uint64, name string) uint32 {
	r := n.rows.Leads(dir, name)
	if r == 0 {
		return 0
	}
	turn := n.rows.Turn(r)
	if n.rows.Stale(r) {
		turn++
	}
	return turn
}

// identify gives the ident of what is node by a name in dir.
func (n *names) identify(dir *inode, name string, node *fs.Node) ident {
	n.mu.RLock()
	turn := n.turn(dir.number, name)
	n.mu.RUnlock()
	return dir.ident(name, node, turn)
}

// tell notes that the kernel is told once more of the child of dir by that name, which is node
// now, and gives its inode, to be done with: the one that it knows already by the ident, or
// another. An error says that there is no room for one more.
func (n *names) tell(dir *inode, name string, node *fs.Node) (*inode, syscall.Errno) {
	n.mu.Lock()
	turn := n.turn(dir.number, name)
	id := dir.ident(name, node, turn)
	r, number := n.rowOf(id)
	for r != 0 && n.rows.Stale(r) { // what led to it had been forgotten
		turn++
		id = dir.ident(name, node, turn)
		r, number = n.rowOf(id)
	}
	fresh := r == 0
	if fresh {
		if r = n.add(sessionfile.Name{
			Number: number, Check: id[1], Parent: dir.number, Turn: turn, Dir: node.Dir != nil, Moves: node.Moves, Name: name,
		}); r == 0 {
			n.mu.Unlock()
			return nil, syscall.ENOMEM
		}
	} else if !n.rows.Leading(r) {
		n.rows.Lead(r)
	}
	n.tellMore(r)
	n.rows.SetWeight(r, min(1+int(node.Held()/nameBytes), 1<<16-1))
	n.rows.Touch(r)
	over := n.max > 0 && n.excess() > 0
	i := n.live[number]
	if i == nil {
		i = n.revive(dir.a, r)
		if fresh {
			i.listed = time.Time{}
		}
	}
	i.pins.Add(1)
	n.mu.Unlock()
	i.mu.Lock()
	i.node = node
	i.mu.Unlock()
	if over {
		select {
		case n.wakeup <- struct{}{}:
		default:
		}
	}
	return i, 0
}

// tellMore notes that the kernel is told once more of a row. With the first time, the row of its
// directory is to stay, too, as if the kernel had been told once more of that. n.mu is held.
func (n *names) tellMore(r sessionfile.Row) {
	was := n.rows.Lookups(r)
	if was == 0 {
		n.free--
		if parent := n.rows.At(n.rows.Parent(r)); parent != 0 {
			n.tellMore(parent)
		}
	}
	n.rows.SetLookups(r, was+1)
}

// tellLess notes that the kernel has forgotten as many look-ups of a row; gone says that these
// were all: it is remembered for a while. n.mu is held.
func (n *names) tellLess(r sessionfile.Row, lookups uint64) (gone bool) {
	was := n.rows.Lookups(r)
	n.rows.SetLookups(r, was-min(was, lookups))
	if was == 0 || was > lookups {
		return false
	}
	n.rows.SetPages(r, 0)
	n.rows.SetWeight(r, 1)
	number, parent := n.rows.Number(r), n.rows.At(n.rows.Parent(r))
	n.letGo(number)
	n.free++
	n.idle = append(n.idle, number)
	if parent != 0 {
		n.tellLess(parent, 1)
	}
	return true
}

// trim drops rows that the kernel has forgotten longest ago, where they are too many. n.mu is
// held.
func (n *names) trim() {
	for len(n.idle) > n.keeps {
		r := n.rows.At(n.idle[0])
		n.idle = n.idle[1:]
		if r != 0 && n.rows.Lookups(r) == 0 {
			n.rows.Remove(r)
			n.free--
		}
	}
}

// add adds a row, of which the kernel was not told yet; 0 says that there is no room. n.mu is
// held.
func (n *names) add(name sessionfile.Name) sessionfile.Row {
	r, err := n.rows.Add(name)
	if err == nil {
		n.free++
	} else if !n.left {
		n.log.Error("no more names can be told", "names", n.rows.Len(), "err", err)
	}
	return r
}

// again notes that the kernel is told once more of what it knows by a number, or that this is
// to be known until a forget; false where it is known no more.
func (n *names) again(number uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.rows.At(number)
	if r != 0 {
		n.tellMore(r)
	}
	return r != 0
}

// lead has what is known by a number be where its name leads to.
func (n *names) lead(number uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.rows.At(number); r != 0 {
		n.rows.Lead(r)
	}
}

// leads is the number of what the kernel was told last that a name in a directory leads to;
// false where it has forgotten that, or was told of nothing.
func (n *names) leads(dir uint64, name string) (number uint64, known bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	r := n.rows.Leads(dir, name)
	if r == 0 {
		return 0, false
	}
	return n.rows.Number(r), true
}

// stands tells whether i is what its name leads to.
func (n *names) stands(i *inode) bool {
	number, known := n.leads(i.parent, i.name)
	return known && number == i.number
}

// children are the numbers of what the names in a directory lead to.
func (n *names) children(dir uint64) (numbers []uint64) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	n.rows.Children(dir, func(r sessionfile.Row) bool {
		numbers = append(numbers, n.rows.Number(r))
		return true
	})
	return numbers
}

// path is where a number's name is, below the mount.
func (n *names) path(number uint64) (at string) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for r := n.rows.At(number); r != 0; r = n.rows.At(n.rows.Parent(r)) {
		at = path.Join(n.rows.Get(r).Name, at)
	}
	return at
}

// setStale notes that what i's name leads to is another content by now.
func (n *names) setStale(i *inode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.rows.At(i.number); r != 0 {
		n.rows.SetStale(r)
	}
}

// setPages notes the proof of what the kernel has pages of; 0: it has none.
func (n *names) setPages(i *inode, proof uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.rows.At(i.number); r != 0 && n.rows.Pages(r) != proof {
		n.rows.SetPages(r, proof)
	}
}

// forget notes that the kernel has forgotten as many look-ups of what it knows by a number;
// gone says that these were all.
func (n *names) forget(number, lookups uint64) (gone bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.rows.At(number); r != 0 && lookups > 0 {
		gone = n.tellLess(r, lookups)
		n.trim()
	}
	return gone
}

// len is how many names the kernel knows, or has something in that it knows.
func (n *names) len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rows.Len() - n.free
}

// rememberAgain takes over what the kernel has forgotten, from a daemon before this one.
func (n *names) rememberAgain() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rows.All(func(r sessionfile.Row) bool {
		if n.rows.Lookups(r) == 0 {
			n.free++
			n.idle = append(n.idle, n.rows.Number(r))
		}
		return true
	})
}
