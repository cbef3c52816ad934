package fusefs

import (
	"slices"
	"sync"
	"time"

	"github.com/mlflowfs/mlflowfs/fs/fusefs/sessionfile"
)

// slot waits for a slot that no loop has; false says that the loops are to end. As many
// requests as there are slots may be on their way.
func (c *connection) slot() (slot int, ok bool) {
	for !c.stopping.Load() {
		if slot, ok := c.slots.take(); ok {
			return slot, true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0, false
}

// slots are those of the session that no request has. What was free last is taken first: a
// slot takes a page of memory once it was used.
type slots struct {
	mu   sync.Mutex // guards left
	left []int
}

// slotsBut are all slots but some, the first one last.
func slotsBut(used []int) (left []int) {
	for k := sessionfile.Slots - 1; k >= 0; k-- {
		if !slices.Contains(used, k) {
			left = append(left, k)
		}
	}
	return left
}

func (s *slots) take() (slot int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.left)
	if n == 0 {
		return 0, false
	}
	slot, s.left = s.left[n-1], s.left[:n-1]
	return slot, true
}

func (s *slots) free(slot int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = append(s.left, slot)
}
