package cache

import "sync"

// gate bounds the requests to origins that run at once. Those that a program
// waits for enter before those that fetch ahead.
type gate struct {
	mu     sync.Mutex // guards what follows; no other lock is taken under it
	free   int
	urgent []*ticket // in the order of their coming
	later  []*ticket
}

// ticket is a place in the queue. It is let in when ready is closed.
type ticket struct {
	ready chan struct{}
}

// queue asks for entry.
func (g *gate) queue(urgent bool) *ticket {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := &ticket{ready: make(chan struct{})}
	switch {
	case g.free > 0:
		g.free--
		close(t.ready)
	case urgent:
		g.urgent = append(g.urgent, t)
	default:
		g.later = append(g.later, t)
	}
	return t
}

// hurry puts a ticket that still waits among the urgent ones.
func (g *gate) hurry(t *ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, x := range g.later {
		if x == t {
			g.later = append(g.later[:i:i], g.later[i+1:]...)
			g.urgent = append(g.urgent, t)
			return
		}
	}
}

// leave lets the next one in.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, q := range []*[]*ticket{&g.urgent, &g.later} {
		if len(*q) > 0 {
			t := (*q)[0]
			*q = (*q)[1:]
			close(t.ready)
			return
		}
	}
	g.free++
}
