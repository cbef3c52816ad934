package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/mlflowfs/mlflowfs/cache/disk"
	"github.com/mlflowfs/mlflowfs/cache/limit"
)

// fetch is one request on its way, or waiting for its permit, for blocks that
// follow each other.
type fetch struct {
	ct     *content
	ahead  bool          // it was started before anybody waited for it
	mine   []*flight     // those that have not landed
	urgent bool          // a program waits for it; guarded by Cache.mu
	permit *limit.Permit // while it waits for one; guarded by Cache.mu
	id     int64
}

const (
	wholeFetch = 1 << 20  // bytes: a file up to this size is fetched in one request
	inMemory   = 16 << 20 // bytes: a whole body up to this size needs no file
	maxTries   = 4        // attempts in a row that bring nothing
	aroundMiss = 16       // blocks that are fetched for a missing one, of a file that is to come whole
)

// demand starts fetches for what is missing of blocks first to last. c.mu is
// held.
func (ct *content) demand(first, last int64, urgent bool) {
	switch {
	case ct.key.Size <= wholeFetch:
		first, last = 0, ct.lastBlock()
	case urgent && ct.plan.filling: // all of it is to come: this part now
		for last < ct.lastBlock() && last-first+1 < aroundMiss && ct.missing(last+1) {
			last++
		}
		for first > 0 && last-first+1 < aroundMiss && ct.missing(first-1) {
			first--
		}
	}
	for i := first; i <= last; {
		i = ct.start(i, last, urgent)
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
		fl := &flight{index: i, fetch: f, done: make(chan struct{})}
		ct.flights[i] = fl
		f.mine = append(f.mine, fl)
	}
	if len(f.mine) == 0 {
		return i
	}
	ct.fetches++
	if !urgent {
		ct.aheads++
	}
	ct.c.running.Add(1)
	go f.run()
	return i
}

func (f *fetch) run() {
	ct := f.ct
	defer ct.c.running.Done()
	begin := time.Now()
	err := guard(f.bring)
	if errors.Is(err, ErrChanged) {
		ct.changed(err)
	}
	ct.c.mu.Lock()
	ct.fetches--
	if f.ahead {
		ct.aheads--
	}
	for _, fl := range f.mine {
		if ct.flights[fl.index] == fl { // the block may have left and be on its way anew
			if err == nil {
				err = errors.New("it did not come") // can't be: bring leaves nothing behind
			}
			ct.land(fl.index, nil, err)
		}
	}
	if err != nil {
		if ct.plan.filling = false; silent(err) {
			ct.silent.err, ct.silent.until = err, time.Now().Add(silentFor)
		}
	} else {
		ct.adapt(f, time.Since(begin))
		ct.pump()
	}
	last := ct.refs == 0 && ct.fetches == 0
	ct.c.mu.Unlock()
	if last {
		ct.settle()
	}
}

// bring brings the blocks of the fetch, resuming where an answer breaks off.
func (f *fetch) bring() error {
	for try := 0; ; {
		before := f.pending()
		if before == 0 {
			return nil
		}
		err := f.attempt()
		if err == nil {
			continue
		}
		if f.pending() < before {
			try = 0
		}
		if try++; permanent(err) || try >= maxTries {
			return err
		}
		time.Sleep(backoff(try))
	}
}

// pending drops what has landed, and returns how many blocks have not.
func (f *fetch) pending() int {
	f.ct.c.mu.Lock()
	defer f.ct.c.mu.Unlock()
	for len(f.mine) > 0 && f.ct.flights[f.mine[0].index] != f.mine[0] {
		f.mine = f.mine[1:]
	}
	return len(f.mine)
}

// permanent tells whether asking again can't help: the source has retried
// what is worth retrying before it answered, and a body that broke off is the
// only thing left to the cache. One that fell silent until nobody would wait
// any more is permanent, too.
func permanent(err error) bool {
	var broken *brokenBody
	return !errors.As(err, &broken) || silent(err)
}

// silent tells whether err says that its source was waited for long enough, as
// a net.Error does.
func silent(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// silentFor is how long an origin's silence is remembered.
const silentFor = time.Second

// brokenBody is a body that ended before its promised length.
type brokenBody struct{ err error }

var _ error = (*brokenBody)(nil)

func (b *brokenBody) Error() string { return fmt.Sprintf("the answer broke off: %v", b.err) }
func (b *brokenBody) Unwrap() error { return b.err }

func backoff(try int) time.Duration { return 100 * time.Millisecond << try }

// attempt asks the origin once.
func (f *fetch) attempt() (err error) {
	ct := f.ct
	release, streamed := ct.enter()
	defer release()
	if streamed {
		f.streamed()
		return nil
	}
	if f.others(); f.pending() == 0 {
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
	n := last*BlockSize + ct.blockLen(last) - off
	body, err := ct.ask(context.Background(), f.id, off, n, ct.expected())
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
	ct.ranged = true
	ct.c.mu.Unlock()
	release()
	defer body.Close()
	var come landed
	defer func() { ct.write(&come, false) }()
	for i := first; i <= last; i++ {
		if err := ct.take(body, i, &come); err != nil {
			return err
		}
	}
	return nil
}

// permitted waits until the origin may be asked.
func (f *fetch) permitted() (*limit.Permit, error) {
	ct := f.ct
	ct.c.mu.Lock()
	f.permit = ct.c.limit.Ask(ct.origin(), priority(f.urgent))
	p := f.permit
	ct.c.mu.Unlock()
	return p, p.Wait(context.Background())
}

func priority(urgent bool) limit.Priority {
	if urgent {
		return limit.Waited
	}
	return limit.Ahead
}

func (ct *content) origin() string { return originOf(ct.src) }

// originOf is what the requests of a source go to.
func originOf(src Source) string {
	if o, ok := src.(interface{ Origin() string }); ok {
		return o.Origin()
	}
	return ""
}

// others lands what another process has brought to the disk meanwhile.
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
	for _, fl := range f.mine { // landed blocks are at the front, as if they had come
		if there, _ := ct.onDisk(fl.index); !there || ct.flights[fl.index] != fl {
			return
		}
		ct.land(fl.index, nil, errElsewhere)
	}
}

// errElsewhere ends a flight whose block is to be looked for anew.
var errElsewhere = errors.New("it is there by another way")

// enter waits until this fetch may ask the origin. release lets the next one
// in and may be called twice. streamed says that a whole body is coming in.
func (ct *content) enter() (release func(), streamed bool) {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	for !ct.ranged && ct.stream == nil && ct.busy != nil {
		busy := ct.busy
		ct.c.mu.Unlock()
		<-busy
		ct.c.mu.Lock()
	}
	if ct.ranged || ct.stream != nil {
		return func() {}, ct.stream != nil
	}
	busy := make(chan struct{})
	ct.busy = busy
	return func() {
		ct.c.mu.Lock()
		defer ct.c.mu.Unlock()
		if ct.busy == busy {
			ct.busy = nil
			close(busy)
		}
	}, false
}

// expected is the validator that an answer must have; empty while none is
// known.
func (ct *content) expected() string {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	return ct.validator
}

// take reads block i from body, lands it, and has it written with those that
// have come before it.
func (ct *content) take(body io.Reader, i int64, come *landed) error {
	b, sum, err := ct.receive(body, i)
	if err != nil {
		return err
	}
	defer ct.c.releaseUnlocked(b)
	ct.c.mu.Lock()
	ct.land(i, b, nil) // first: no reader waits for the disk
	come.add(ct, i, b, sum)
	ct.c.mu.Unlock()
	if len(come.blocks) >= disk.RunBlocks {
		ct.write(come, false)
	}
	return nil
}

// receive reads block i from body.
func (ct *content) receive(body io.Reader, i int64) (*block, uint32, error) {
	b := ct.c.buffer(ct.blockLen(i))
	if _, err := io.ReadFull(body, b.data); err != nil {
		ct.c.releaseUnlocked(b)
		return nil, 0, &brokenBody{err}
	}
	return b, disk.Sum(b.data), nil
}
