package cache

import (
	"context"
	"os"
	"time"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// state is where a content is in its life.
type state int

const (
	idle      state = iota // nobody has it open and nothing goes on for it; memory bounds how many there are
	open                   // somebody has it open
	lingering              // nobody has, and something goes on for it, or may be of use before long
	dead                   // it is out of the cache: what still comes of it is not kept
)

// lifecycle is who uses a content, and the state that follows from that.
// Guarded by Cache.mu, but for ctx.
type lifecycle struct {
	state  state
	keep   bool        // it outlives its last handle
	killed bool        // it is to die, whoever uses it
	refs   int         // handles
	work   int         // requests, streams and writes that go on for it; its file stays open
	timer  *time.Timer // is set while it is worth going on for nobody,
	until  time.Time   // which ends then
	err    error       // what its handles get: it is not what it was

	ctx    context.Context // ends with the content: of its requests
	cancel context.CancelCauseFunc
}

// next is the state that follows, where worth says that there is something to
// remember of the content.
func (l *lifecycle) next(worth bool) state {
	switch {
	case l.killed:
		return dead
	case l.refs > 0:
		return open
	case l.work > 0 || l.timer != nil:
		return lingering
	case worth:
		return idle
	}
	return dead
}

// unused tells whether nothing needs the content's file.
func (l *lifecycle) unused() bool { return l.refs == 0 && l.work == 0 && l.timer == nil }

// move brings the content into the state that follows from who uses it; it is
// called whenever that has changed, and nothing else changes the state. c.mu is
// held.
func (ct *content) move() {
	l, c := &ct.life, ct.c
	was := l.state
	if l.state = l.next(ct.worth()); l.state == was {
		return
	}
	switch was {
	case open:
		c.open--
		ct.ahead.readers, ct.ahead.wake, ct.ahead.fresh, ct.ahead.wanted = nil, nil, nil, nil
		ct.store.attached = false
	case idle:
		c.idle.Remove(ct)
	}
	switch l.state {
	case open:
		c.open++
	case idle:
		c.idle.Add(ct, struct{}{}, ct.cost())
	case dead:
		l.killed = true
		l.cancel(os.ErrClosed)
		if c.contents[ct.key] == ct {
			delete(c.contents, ct.key)
		}
		ct.dropBlocks()
	}
}

// worth tells whether there is something to remember of the content when nobody
// uses it. c.mu is held.
func (ct *content) worth() bool {
	s := &ct.store
	return ct.life.keep && (s.file == nil || s.file.Kept()) && s.known && (s.blocks > 0 || s.file != nil || ct.validator != "")
}

// kill takes the content out of the cache; err, where there is one, is what its
// handles get from now on. c.mu is held.
func (ct *content) kill(err error) {
	ct.life.killed = true
	if ct.life.err == nil {
		ct.life.err = err
	}
	ct.move()
}

// opened notes a handle more. c.mu is held.
func (ct *content) opened() {
	l := &ct.life
	l.refs++
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	ct.move()
}

// closed notes a handle less.
func (ct *content) closed() {
	ct.c.mu.Lock()
	l := &ct.life
	if l.refs--; l.refs == 0 {
		switch {
		case !l.keep || l.err != nil || ct.unsure():
			l.killed = true
		case ct.fetch.stream || ct.ahead.whole.filling || (ct.store.file != nil && !ct.store.file.Kept()):
			l.until = time.Now().Add(ct.c.opt.Linger)
			l.timer = time.AfterFunc(ct.c.opt.Linger, ct.abandon)
		}
		ct.move()
	}
	ct.c.mu.Unlock()
	ct.settle()
}

// abandon ends what goes on for a content that nobody has opened again before
// its timer ended.
func (ct *content) abandon() {
	ct.c.mu.Lock()
	l := &ct.life
	if l.timer != nil && !time.Now().Before(l.until) { // else it is a later one
		l.timer = nil
		ct.ahead.whole.filling = false
		l.killed = l.killed || ct.fetch.stream
		ct.move()
	}
	ct.c.mu.Unlock()
	ct.settle()
}

// begin notes that something begins for the content, until end. c.mu is held.
func (ct *content) begin() {
	ct.life.work++
	ct.c.working++
}

func (ct *content) end() {
	c := ct.c
	c.mu.Lock()
	ct.life.work--
	c.mu.Unlock()
	ct.settle()
	c.mu.Lock()
	c.working--
	c.ended.Broadcast()
	c.mu.Unlock()
}

// settle closes the content's file when nothing needs it, and is called when
// something may have needed it last. It may wait for the disk then.
func (ct *content) settle() {
	s := &ct.store
	ct.c.mu.Lock()
	unused := ct.life.unused()
	ct.c.mu.Unlock()
	if !unused {
		return
	}
	s.opening.Lock()
	defer s.opening.Unlock()
	ct.c.mu.Lock()
	var file *disk.File
	if ct.life.unused() {
		if s.open {
			file, s.open = s.file, false
		}
		ct.move()
	}
	ct.c.mu.Unlock()
	if file != nil {
		file.Close()
	}
}

// changed ends the content, which is no more at its origin: its handles get err
// from now on, and the next Open of its key begins anew. What is on disk of it
// goes first, so that no new handle finds it.
func (ct *content) changed(err error) {
	ct.store.opening.Lock()
	defer ct.store.opening.Unlock()
	ct.c.mu.Lock()
	file := ct.store.file
	ct.c.mu.Unlock()
	if file != nil {
		file.Remove() // what can't be removed has a validator that is no more
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	ct.kill(err)
}
