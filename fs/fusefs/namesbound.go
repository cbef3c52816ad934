package fusefs

import (
	"syscall"
	"time"

	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/fs/fusefs/sessionfile"
)

const (
	namesAtOnce = 4096                  // names that the kernel is asked to forget at a time
	namesPause  = 20 * time.Millisecond // in which it does
	namesRest   = time.Second           // after a round in which it forgot too few
)

// over is how many names too many the kernel knows.
func (n *names) over() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.excess()
}

// excess is over. n.mu is held.
func (n *names) excess() int { return n.rows.TotalWeight() - n.free - n.max }

// work bounds how many names there are, until stopped is closed. The kernel forgets when it is
// short of memory itself; beyond max it is asked to, of those that were looked up longest ago.
// What is in use it keeps. A name whose node holds a text counts as several. No request waits
// for it: the kernel may wait for a directory's lock, which a look-up holds.
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
			select {
			case <-time.After(namesPause): // its FORGETs come
			case <-n.stopped:
				return
			}
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

// oldest gives the numbers of names that were touched longest ago, and what they weigh, and
// takes them for touched.
func (n *names) oldest() (batch []uint64, weight int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for tries := n.rows.Len(); tries > 0 && n.excess() > weight && len(batch) < namesAtOnce; tries-- {
		r := n.rows.Oldest()
		if r == 0 {
			break
		}
		if n.rows.Lookups(r) == 0 {
			continue
		}
		batch, weight = append(batch, n.rows.Number(r)), weight+n.rows.Weight(r)
	}
	return batch, weight
}

// ask has the kernel forget inodes, if nobody uses them. One that stands nowhere is
// forgotten with its last user.
func (n *names) ask(s *session, batch []uint64) {
	var numbers []uint64
	var files []sessionfile.Name
	n.mu.RLock()
	for _, number := range batch {
		r, i := n.rows.At(number), n.live[number]
		if r == 0 || n.rows.Lookups(r) == 0 || !n.rows.Leading(r) || i != nil && i.pins.Load() > 0 {
			continue
		}
		numbers = append(numbers, number)
		if name := n.rows.Get(r); n.old.Load() && !name.Dir {
			files = append(files, name)
		}
	}
	n.mu.RUnlock()
	if !n.old.Load() {
		err := s.prune(numbers)
		if err != syscall.ENOSYS && err != syscall.EINVAL {
			return
		}
		n.old.Store(true)
		n.log.Debug("the kernel can't be asked to forget directories", "err", err)
		n.ask(s, batch)
		return
	}
	for _, f := range files {
		s.forgetEntry(f.Parent, f.Name)
	}
}
