package main

import (
	"errors"
	"fmt"
	"time"
)

// upgrade is the change from one daemon to another that the program file has now:
//
//	proving     the next one opens all that it needs, and looks at the session
//	lettingGo   the one before stops to answer
//	takingUp    the next one begins to answer; the one before leaves when it does
//	restoring   it did not: the one before goes on
//
// Whatever fails before that ends the next daemon, and the one before goes on.
type upgrade struct {
	phase phase
	next  *child
	over  bool      // it has failed, and next is about to end
	until time.Time // the phase's end
	last  *upgraded
}

type phase int

const (
	noUpgrade phase = iota
	proving
	lettingGo
	takingUp
	restoring
)

// How long phases may take.
const (
	proveWithin = 60 * time.Second
	serveWithin = 10 * time.Second
)

// beginUpgrade starts a daemon of the program as its file is now.
func (h *holder) beginUpgrade() {
	u := &h.upgrade
	switch {
	case u.phase != noUpgrade:
		return // it goes on
	case !h.now.serving || h.ends > 0:
		u.told(h, errors.New("the mount is just beginning, or ending: try again later"))
		return
	}
	next, err := h.start(h.program, toProve)
	if err != nil {
		u.told(h, fmt.Errorf("%s can't be started: %w", h.program, err))
		return
	}
	h.log().Info("an upgrade: another daemon starts beside this one", "program", h.program, "mountpoint", h.point)
	u.next, u.over = next, false
	u.begin(proving, proveWithin)
}

func (u *upgrade) begin(p phase, within time.Duration) { u.phase, u.until = p, time.Now().Add(within) }

// heard takes what either daemon says in an upgrade.
func (u *upgrade) heard(h *holder, c *child, m message) {
	switch {
	case m.Kind == hasFailed && c == u.next:
		u.fail(h, errors.New(m.Error))
	case m.Kind == hasFailed && u.phase == lettingGo:
		u.fail(h, fmt.Errorf("the daemon does not let go of the mount: %s", m.Error))
	case m.Kind == hasProven && c == u.next && u.phase == proving:
		h.now.send(message{Kind: doLetGo})
		u.begin(lettingGo, serveWithin)
	case m.Kind == hasLetGo && c == h.now && u.phase == lettingGo:
		u.next.send(message{Kind: doTakeUp, session: h.session})
		u.begin(takingUp, serveWithin)
	case m.Kind == hasLetGo && c == h.now: // too late
		u.restore(h)
	case m.Kind == hasServing && c == u.next && u.phase == takingUp && !u.over:
		h.now.send(message{Kind: doLeave})
		h.now, u.next = u.next, nil
		u.told(h, nil)
		u.settle(h)
	case m.Kind == hasServing && c == h.now && u.phase == restoring:
		u.settle(h)
	}
}

// fail ends an upgrade. The daemon before goes on: where it had let go, when the next one is
// dead, since only one may answer.
func (u *upgrade) fail(h *holder, err error) {
	if u.next == nil || u.over {
		return
	}
	u.over = true
	u.told(h, err)
	u.next.process.Kill()
	if u.phase != takingUp {
		u.next = nil
		u.settle(h)
	}
	u.until = time.Now().Add(serveWithin)
}

// restore has the daemon that has let go take the mount up again.
func (u *upgrade) restore(h *holder) {
	h.now.serving = false
	h.now.send(message{Kind: doTakeUp, session: h.session})
	u.begin(restoring, serveWithin)
}

// settle ends an upgrade in which one daemon answers.
func (u *upgrade) settle(h *holder) {
	u.phase = noUpgrade
	for ; h.later > 0; h.later-- {
		h.end()
	}
}

// interrupt ends an upgrade that has changed nothing so far.
func (u *upgrade) interrupt(h *holder) {
	if u.phase == proving {
		u.fail(h, errors.New("the mount was ended meanwhile"))
	}
}

// late ends a phase that takes too long.
func (u *upgrade) late(h *holder) {
	if u.phase == noUpgrade || time.Now().Before(u.until) {
		return
	}
	switch u.phase {
	case proving:
		u.fail(h, fmt.Errorf("the next daemon was not ready within %v", proveWithin))
	case lettingGo:
		u.fail(h, fmt.Errorf("the daemon did not let go of the mount within %v", serveWithin))
	case takingUp:
		u.fail(h, fmt.Errorf("the next daemon did not answer within %v", serveWithin))
	case restoring:
		h.now.process.Kill() // and another one takes it up
		u.phase = noUpgrade
	}
}

// died is told of the end of another daemon than the mount's.
func (u *upgrade) died(h *holder, c *child) (code int, done bool) {
	if c != u.next {
		return 0, false
	}
	taken := u.phase == takingUp
	if !u.over {
		u.told(h, fmt.Errorf("the next daemon has ended: %s", c.why()))
	}
	u.next = nil
	switch {
	case taken && h.now.dead:
		u.phase = noUpgrade
		return h.again(h.now)
	case taken:
		u.restore(h)
	default:
		u.settle(h)
	}
	return 0, false
}

// goesOn tells whether the mount's daemon may have died: the next one is about to answer.
// Else that is the end of the upgrade.
func (u *upgrade) goesOn(h *holder) bool {
	if u.phase == takingUp {
		return true
	}
	if u.next != nil {
		u.told(h, errors.New("the daemon has died meanwhile"))
		u.next.process.Kill()
		u.next = nil
	}
	u.phase = noUpgrade
	return false
}

// told tells how an upgrade went.
func (u *upgrade) told(h *holder, err error) {
	u.last = &upgraded{Time: time.Now()}
	if err != nil {
		u.last.Error = err.Error()
		h.log().Warn("the mount was not upgraded", "mountpoint", h.point, "why", err)
	} else {
		h.log().Info("the mount was upgraded", "mountpoint", h.point)
	}
	h.now.send(message{Kind: doTell, Upgrade: u.last})
}
