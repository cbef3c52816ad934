package cache

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/mlflowfs/mlflowfs/cache/disk"
	"github.com/mlflowfs/mlflowfs/cache/limit"
)

// fetcher is what of a content is on its way. Guarded by Cache.mu.
type fetcher struct {
	pending map[int64]*pendingBlock
	running int // fetches, or waiting for a permit
	ahead   int // of these, those that nobody waited for when they began

	// Until one answer has shown that the origin honours ranges, and for ever
	// where it does not, one fetch at a time may ask: busy is closed when it
	// has what it asked for.
	ranged bool
	busy   chan struct{}
	stream bool     // a whole body comes in: it brings every block
	sums   []uint32 // of the blocks that came in whole bodies, to hold the next body against

	wait time.Duration // for the first byte of an answer: the least of late
	each time.Duration // for a block of it: the least of late

	// The origin fell silent: who asks again at once is told so at once. The
	// kernel does, of a page that its read-ahead did not get.
	silence      error
	silenceUntil time.Time
}

// pendingBlock is one block on its way. b and err are set before done is closed.
type pendingBlock struct {
	index   int64
	fetch   *fetch // nil: a stream brings it
	waiting int
	done    chan struct{}
	b       *block // held once for each who waits
	err     error
}

// fetch is one request on its way, or waiting for its permit, for blocks that
// follow each other.
type fetch struct {
	ct     *content
	ahead  bool            // it was started before anybody waited for it
	mine   []*pendingBlock // those that are not complete
	urgent bool            // a program waits for it; guarded by Cache.mu
	permit *limit.Permit   // while it waits for one; guarded by Cache.mu
	id     int64
}

const (
	inMemory = 16 << 20 // bytes: a whole body up to this size needs no file

	silentFor = time.Second // how long an origin's silence is remembered
)

// missing tells whether block i is neither resident nor on its way. c.mu is held.
func (ct *content) missing(i int64) bool { return ct.fetch.pending[i] == nil && !ct.resident(i) }

// pend gives block i, which is not resident, as one on its way; nil where it is
// resident by now. c.mu is held.
func (ct *content) pend(i, last int64, urgent bool) (*pendingBlock, error) {
	fe := &ct.fetch
	if fe.pending[i] == nil {
		if time.Now().Before(fe.silenceUntil) {
			return nil, fe.silence
		}
		if fe.stream {
			fe.pending[i] = &pendingBlock{index: i, done: make(chan struct{})}
		} else {
			ct.demand(i, last, urgent)
		}
	}
	p := fe.pending[i]
	if p == nil {
		return nil, nil
	}
	p.waiting++
	if f := p.fetch; urgent && f != nil && !f.urgent {
		f.urgent = true
		if f.permit != nil {
			f.permit.Promote()
		}
	}
	return p, nil
}

// wait waits for a block, which the caller then holds.
func (ct *content) wait(ctx context.Context, p *pendingBlock) (*block, error) {
	ct.waits(ctx, p)
	select {
	case <-p.done:
		return p.b, p.err
	case <-ctx.Done():
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	select {
	case <-p.done: // it came all the same
		if p.b != nil {
			ct.c.release(p.b)
		}
	default:
		p.waiting--
	}
	return nil, context.Cause(ctx)
}

// complete ends the wait for block i, if anybody waits, and keeps the block.
// c.mu is held.
func (ct *content) complete(i int64, b *block, err error) {
	if err != nil && ct.life.err != nil {
		err = ct.life.err // which ended what was to bring it
	}
	p := ct.fetch.pending[i]
	if p != nil {
		delete(ct.fetch.pending, i)
		p.err = err
		if b != nil {
			p.b = b
			b.refs += p.waiting
		}
		close(p.done)
	}
	if b == nil {
		return
	}
	ct.store.known = true
	ct.c.did.origin.Add(int64(len(b.data)))
	if ct.life.state == dead {
		return
	}
	ct.c.add(ct, i, b)
	if p == nil || p.waiting == 0 {
		ct.ahead.news(i)
	}
}

// start starts one fetch for the missing blocks that begin at or behind first
// and end, at the latest, at last. It returns the block to go on with. c.mu is
// held.
func (ct *content) start(first, last int64, urgent bool) (next int64) {
	f := &fetch{ct: ct, ahead: !urgent, urgent: urgent, id: ct.c.did.fetches.Add(1)}
	i := first
	for ; i <= last; i++ {
		if !ct.missing(i) {
			if len(f.mine) > 0 {
				break
			}
			continue
		}
		p := &pendingBlock{index: i, fetch: f, done: make(chan struct{})}
		ct.fetch.pending[i] = p
		f.mine = append(f.mine, p)
	}
	if len(f.mine) == 0 {
		return i
	}
	ct.fetch.running++
	if f.ahead {
		ct.fetch.ahead++
	}
	ct.begin()
	go f.run()
	return i
}

func (f *fetch) run() {
	ct := f.ct
	defer ct.end()
	begin := time.Now()
	err := Guard(f.bring)
	if errors.Is(err, ErrChanged) {
		ct.changed(err)
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	fe := &ct.fetch
	fe.running--
	if f.ahead {
		fe.ahead--
	}
	for _, p := range f.mine {
		if fe.pending[p.index] == p { // the block may have left and be on its way anew
			if err == nil {
				err = errors.New("it did not come") // can't be: bring leaves nothing behind
			}
			ct.complete(p.index, nil, err)
		}
	}
	if err != nil {
		if ct.ahead.whole.filling = false; silent(err) {
			fe.silence, fe.silenceUntil = err, time.Now().Add(silentFor)
		}
		return
	}
	ct.adapt(f, time.Since(begin))
	ct.pump()
}

// bring brings the blocks of the fetch, resuming where an answer breaks off.
func (f *fetch) bring() error {
	for r := (retry{}); ; {
		before := f.left()
		if before == 0 {
			return nil
		}
		err := f.attempt()
		if err != nil && !r.again(f.ct.life.ctx, err, f.left() < before) {
			return err
		}
	}
}

// left drops what is complete, and returns how many blocks are not.
func (f *fetch) left() int {
	f.ct.c.mu.Lock()
	defer f.ct.c.mu.Unlock()
	for len(f.mine) > 0 && f.ct.fetch.pending[f.mine[0].index] != f.mine[0] {
		f.mine = f.mine[1:]
	}
	return len(f.mine)
}

// attempt asks the origin once.
func (f *fetch) attempt() (err error) {
	ct := f.ct
	release, streamed := ct.enter()
	defer release()
	if streamed {
		f.streamed()
		return nil
	}
	if f.others(); f.left() == 0 {
		return nil
	}
	permit, err := f.permitted()
	if err != nil {
		return err
	}
	handed := false
	defer func() {
		if silent(err) { // before another one is let in
			ct.c.limit.GiveUp(ct.origin(), err)
		}
		if !handed {
			permit.Release()
		}
	}()
	first, last := f.mine[0].index, f.mine[len(f.mine)-1].index
	off := first * BlockSize
	begin := time.Now()
	body, err := ct.ask(f.id, off, last*BlockSize+ct.blockLen(last)-off, ct.expected())
	waited := time.Since(begin)
	if err != nil {
		return err
	}
	if err := ct.check(body); err != nil {
		body.Close()
		return err
	}
	if body.Whole {
		handed = true
		return f.whole(body, permit)
	}
	ct.c.mu.Lock()
	ct.fetch.ranged = true
	ct.fetch.wait = leastOfLate(ct.fetch.wait, waited)
	ct.c.mu.Unlock()
	release()
	defer body.Close()
	return f.take(body, first, last)
}

// take takes the blocks of a body that has those asked for.
func (f *fetch) take(body io.Reader, first, last int64) error {
	ct := f.ct
	var come landed
	defer func() { ct.write(&come, false) }()
	begin := time.Now()
	for i := first; i <= last; i++ {
		b, sum, err := ct.receive(body, i)
		if err != nil {
			return err
		}
		ct.c.mu.Lock()
		if i == last {
			ct.fetch.each = leastOfLate(ct.fetch.each, time.Since(begin)/time.Duration(last-first+1))
		}
		ct.complete(i, b, nil) // first: no reader waits for the disk
		come.add(ct, i, b, sum)
		ct.c.release(b)
		ct.c.mu.Unlock()
		if come.full() {
			ct.write(&come, false)
		}
	}
	return nil
}

// leastOfLate is the least of some times, the last of which is now: those before it count
// for less and less.
func leastOfLate(before, now time.Duration) time.Duration { return min(now, before+before/4) }

// receive reads block i from body.
func (ct *content) receive(body io.Reader, i int64) (*block, uint32, error) {
	b := ct.c.buffer(ct.blockLen(i))
	if _, err := io.ReadFull(body, b.data); err != nil {
		ct.c.releaseUnlocked(b)
		return nil, 0, &brokenBody{err}
	}
	return b, disk.Sum(b.data), nil
}

// permitted waits until the origin may be asked.
func (f *fetch) permitted() (*limit.Permit, error) {
	ct := f.ct
	ct.c.mu.Lock()
	priority := limit.Ahead
	if f.urgent {
		priority = limit.Waited
	}
	p := ct.c.limit.Ask(ct.origin(), priority)
	f.permit = p
	ct.c.mu.Unlock()
	return p, p.Wait(ct.life.ctx)
}

// others completes what another process has brought to the disk meanwhile.
func (f *fetch) others() {
	ct := f.ct
	ct.c.mu.Lock()
	file := ct.store.file
	if !ct.store.open {
		file = nil
	}
	ct.c.mu.Unlock()
	if file == nil || len(f.mine) == 0 {
		return
	}
	file.Refresh(f.mine[0].index, f.mine[len(f.mine)-1].index-f.mine[0].index+1)
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	for _, p := range f.mine { // complete blocks are at the front, as if they had come
		if there, _ := ct.onDisk(p.index); !there || ct.fetch.pending[p.index] != p {
			return
		}
		ct.complete(p.index, nil, errElsewhere)
	}
}

// errElsewhere ends the wait for a block that is to be looked for anew.
var errElsewhere = errors.New("it is there by another way")

// enter waits until this fetch may ask the origin. release lets the next one
// in and may be called twice. streamed says that a whole body is coming in.
func (ct *content) enter() (release func(), streamed bool) {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	fe := &ct.fetch
	for !fe.ranged && !fe.stream && fe.busy != nil {
		busy := fe.busy
		ct.c.mu.Unlock()
		<-busy
		ct.c.mu.Lock()
	}
	if fe.ranged || fe.stream {
		return func() {}, fe.stream
	}
	busy := make(chan struct{})
	fe.busy = busy
	return func() {
		ct.c.mu.Lock()
		defer ct.c.mu.Unlock()
		if fe.busy == busy {
			fe.busy = nil
			close(busy)
		}
	}, false
}
