// Package limit bounds the requests to origins that run at once.
//
// A request has a [Permit] from before its question until its answer's body is
// closed, and not while it waits for something else: a retry, or another
// request. Each origin has as many permits as any other, so that one that is
// silent takes nothing from one that answers. Of those that wait, the ones that
// a program waits for go first.
package limit

import (
	"context"
	"slices"
	"sync"
)

// Priority is who waits for a request.
type Priority int

const (
	Waited Priority = iota // a program
	Ahead                  // nobody yet
	priorities
)

// Requests is a limiter. Its methods may be called by many at once.
type Requests struct {
	each, all int

	mu      sync.Mutex // guards what follows, and the Permits; no other lock is taken under it
	running int
	origins map[string]*origin // those that have permits, or wait for some
}

type origin struct {
	running int
	queue   [priorities][]*Permit // in the order of their coming
}

// New makes a limiter that lets so many requests run at once to each origin, and
// to all of them.
func New(each, all int) *Requests {
	return &Requests{each: each, all: max(each, all), origins: map[string]*origin{}}
}

// Permit is a place among the running requests, or in the queue.
type Permit struct {
	r      *Requests
	origin string
	ready  chan struct{} // closed when it is granted, or refused
	state  state
	p      Priority
	err    error // it is refused
}

type state int

const (
	queued state = iota
	granted
	over
)

// Ask queues for a request to an origin.
func (r *Requests) Ask(name string, p Priority) *Permit {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := &Permit{r: r, origin: name, ready: make(chan struct{}), p: p}
	o := r.origins[name]
	if o == nil {
		o = &origin{}
		r.origins[name] = o
	}
	o.queue[p] = append(o.queue[p], x)
	r.grant()
	return x
}

// grant lets in whoever may. r.mu is held.
func (r *Requests) grant() {
	for p := range priorities {
		for _, o := range r.origins {
			for len(o.queue[p]) > 0 && o.running < r.each && r.running < r.all {
				x := o.queue[p][0]
				o.queue[p] = o.queue[p][1:]
				o.running++
				r.running++
				x.state = granted
				close(x.ready)
			}
		}
	}
}

// Wait waits until x is granted. Its error is ctx's cause, or why the origin
// was given up (see [Requests.GiveUp]); x needs no Release then.
func (x *Permit) Wait(ctx context.Context) error {
	select {
	case <-x.ready:
		return x.err
	case <-ctx.Done():
		x.Release()
		return context.Cause(ctx)
	}
}

// Promote says that a program waits for the request now.
func (x *Permit) Promote() {
	x.r.mu.Lock()
	defer x.r.mu.Unlock()
	if x.state != queued || x.p == Waited {
		return
	}
	o := x.r.origins[x.origin]
	o.remove(x)
	x.p = Waited
	o.queue[Waited] = append(o.queue[Waited], x)
	x.r.grant()
}

func (o *origin) remove(x *Permit) {
	if i := slices.Index(o.queue[x.p], x); i >= 0 {
		o.queue[x.p] = slices.Delete(o.queue[x.p], i, i+1)
	}
}

// Release gives the permit back, or leaves the queue. A second one does nothing.
func (x *Permit) Release() {
	r := x.r
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.origins[x.origin]
	switch x.state {
	case over:
		return
	case queued:
		o.remove(x)
	case granted:
		o.running--
		r.running--
	}
	x.state = over
	if o.running == 0 && len(o.queue[Waited])+len(o.queue[Ahead]) == 0 {
		delete(r.origins, x.origin)
	}
	r.grant()
}

// GiveUp refuses all that wait for an origin, with err: it was silent for as
// long as anybody would wait, and would be so for each of them, one after the
// other.
func (r *Requests) GiveUp(name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.origins[name]
	if o == nil {
		return
	}
	for p := range o.queue {
		for _, x := range o.queue[p] {
			x.state, x.err = over, err
			close(x.ready)
		}
		o.queue[p] = nil
	}
	if o.running == 0 {
		delete(r.origins, name)
	}
}
