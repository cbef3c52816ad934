package fusefs

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// killableContext is the context of one request from the kernel. The kernel sends an
// INTERRUPT for every signal that a waiting program gets, be it a timer's
// tick or the Go runtime's SIGURG, and what answers it with EINTR makes read
// fail in programs that never saw that from a disk, and a page fault end in
// SIGBUS. So this context ends only when the signal is one that the
// program will die of, which /proc tells.
//
// A request that is answered from memory never calls Done, and pays nothing.
type killableContext struct {
	context.Context // of nothing
	request
	a     *adapter
	op    string
	began time.Time

	mu       sync.Mutex // guards what follows
	done     chan struct{}
	ended    bool
	finished chan struct{}
}

// killable makes the context of a request, which op names in the metrics.
func (a *adapter) killable(r request, op string) *killableContext {
	p := &killableContext{Context: context.Background(), request: r, a: a, op: op, began: time.Now(), finished: make(chan struct{})}
	a.watchdog.begins(p)
	return p
}

var _ context.Context = (*killableContext)(nil)

// Done is closed when the program is dying.
func (p *killableContext) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		p.done = make(chan struct{})
		go p.watch()
	}
	return p.done
}

// Err is errInterrupted once Done is closed.
func (p *killableContext) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return errInterrupted
	}
	return nil
}

// finish ends the watch when the request is answered.
func (p *killableContext) finish() {
	p.a.watchdog.ends(p)
	p.a.answered(p.op, time.Since(p.began))
	close(p.finished)
}

// dyingEvery is how often /proc is asked after an INTERRUPT. The kernel sends
// one only, though a worse signal may follow.
const dyingEvery = 50 * time.Millisecond

func (p *killableContext) watch() {
	select {
	case <-p.interrupted:
	case <-p.finished:
		return
	}
	tick := time.NewTicker(dyingEvery)
	defer tick.Stop()
	for !dying(p.thread) {
		select {
		case <-tick.C:
		case <-p.finished:
			return
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	close(p.done)
}

// Signals that are ignored, or only stop or continue, where a program has not
// said otherwise (signal(7)).
var harmless = mask(17, 18, 19, 20, 21, 22, 23, 28)

func mask(signals ...uint) (m uint64) {
	for _, s := range signals {
		m |= 1 << (s - 1)
	}
	return m
}

// dying tells whether thread pid has a signal waiting that will end it, or is
// gone. A request without a program (the kernel's own read-ahead) has no pid
// and is not dying.
func dying(pid uint32) bool {
	if pid == 0 {
		return false
	}
	status, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/status")
	if err != nil {
		return os.IsNotExist(err)
	}
	return fatal(status)
}

// fatal reads the signal masks of a /proc/<pid>/status (proc(5)).
func fatal(status []byte) bool {
	var pending, blocked, ignored, caught uint64
	for sc := bufio.NewScanner(bytes.NewReader(status)); sc.Scan(); {
		key, value, _ := strings.Cut(sc.Text(), ":")
		value = strings.TrimSpace(value)
		set, _ := strconv.ParseUint(value, 16, 64)
		switch key {
		case "State":
			if strings.HasPrefix(value, "Z") || strings.HasPrefix(value, "X") {
				return true
			}
		case "SigPnd", "ShdPnd":
			pending |= set
		case "SigBlk":
			blocked = set
		case "SigIgn":
			ignored = set
		case "SigCgt":
			caught = set
		}
	}
	const sigkill = 9
	return pending&^(blocked|ignored|caught|harmless) != 0 || pending&mask(sigkill) != 0
}
