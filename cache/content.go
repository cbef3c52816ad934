package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// content is what one key holds, shared by its handles. All its fields are
// guarded by c.mu, but for the first three, which never change.
type content struct {
	c   *Cache
	key Key
	src Source

	keep     bool
	refs     int // open handles
	resident int // blocks in the LRU
	flights  map[int64]*flight
	fetches  int // running now

	// Until one answer has shown that the origin honours ranges, and for ever
	// where it does not, one fetch at a time may ask: busy is closed when it
	// has what it asked for.
	ranged bool
	busy   chan struct{}

	spool     *spool
	linger    *time.Timer
	validator string
	err       error // the content changed: nothing more is served
	gone      bool  // out of the cache: what still comes is not kept
}

// flight is one block on its way. data and err are set before done is closed.
type flight struct {
	index int64
	done  chan struct{}
	data  []byte
	err   error
}

// errSpooled ends a flight whose bytes come through the spool instead.
var errSpooled = errors.New("spooled")

const (
	wholeFetch   = 4 * BlockSize  // a file up to this size is fetched in one request
	wholeInBlock = 16 * BlockSize // an unasked-for whole body up to this size goes into blocks
	fetchBlocks  = 16             // blocks in one request ahead of the reader
	maxTries     = 4              // attempts in a row that bring nothing
)

func (ct *content) lastBlock() int64 { return (ct.key.Size - 1) / BlockSize }

func (ct *content) blockLen(i int64) int64 { return min(BlockSize, ct.key.Size-i*BlockSize) }

// block waits for block i. Blocks up to last are wanted too and asked for
// together with it. It returns the spool instead where there is one.
func (ct *content) block(ctx context.Context, i, last int64) ([]byte, *spool, error) {
	for {
		data, sp, fl, err := ct.look(i, last)
		if fl == nil {
			return data, sp, err
		}
		select {
		case <-fl.done:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
		if !errors.Is(fl.err, errSpooled) {
			return fl.data, nil, fl.err
		}
	}
}

func (ct *content) look(i, last int64) ([]byte, *spool, *flight, error) {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	if ct.err != nil {
		return nil, nil, nil, ct.err
	}
	if ct.spool != nil {
		ct.c.spools.Get(ct) // used now
		return nil, ct.spool, nil, nil
	}
	if data, ok := ct.c.blocks.Get(blockKey{ct, i}); ok {
		return data, nil, nil, nil
	}
	if ct.flights[i] == nil {
		if ct.key.Size <= wholeFetch {
			ct.fetch(0, ct.lastBlock())
		} else {
			ct.fetch(i, last)
		}
	}
	return nil, nil, ct.flights[i], nil
}

// ahead starts fetches of what is missing in the window of blocks that begins
// at first, as far as the content's share of parallel fetches allows.
func (ct *content) ahead(first, window int64) {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	if ct.err != nil || ct.spool != nil || !ct.ranged {
		return
	}
	window = min(window, ct.c.opt.Bytes/BlockSize/4)
	end := min(first+window-1, ct.lastBlock())
	unit := min(max(window/2, 1), fetchBlocks)
	for i := first; i <= end && ct.fetches < ct.c.opt.Parallel; i++ {
		if !ct.missing(i) {
			continue
		}
		if i != first && end-i+1 < unit && end != ct.lastBlock() {
			return // wait until a whole request's worth is missing
		}
		ct.fetch(i, min(i+unit-1, end))
	}
}

// missing tells whether block i is neither here nor on its way. c.mu is held.
func (ct *content) missing(i int64) bool {
	return ct.flights[i] == nil && !ct.c.blocks.Contains(blockKey{ct, i})
}

// fetch starts one fetch for the missing blocks that begin at first and end,
// at the latest, at last. c.mu is held.
func (ct *content) fetch(first, last int64) {
	var mine []*flight
	for i := first; i <= last; i++ {
		if !ct.missing(i) {
			if len(mine) > 0 {
				break
			}
			continue
		}
		fl := &flight{index: i, done: make(chan struct{})}
		ct.flights[i] = fl
		mine = append(mine, fl)
	}
	if len(mine) == 0 {
		return
	}
	ct.fetches++
	go func() {
		err := guard(func() error { return ct.run(mine) })
		ct.c.mu.Lock()
		defer ct.c.mu.Unlock()
		ct.fetches--
		if errors.Is(err, ErrChanged) {
			ct.changed(err)
		}
		for _, fl := range mine {
			if ct.flights[fl.index] == fl { // the block may have left and be on its way anew
				ct.land(fl.index, nil, err)
			}
		}
		ct.forgetIfIdle()
	}()
}

// land ends the flight of block i, if there is one, and keeps its data. c.mu
// is held.
func (ct *content) land(i int64, data []byte, err error) {
	if data != nil && !ct.gone {
		ct.c.add(ct, i, data)
	}
	if fl := ct.flights[i]; fl != nil {
		delete(ct.flights, i)
		fl.data, fl.err = data, err
		close(fl.done)
	}
}

// run brings the blocks of one fetch, resuming where an answer breaks off.
func (ct *content) run(mine []*flight) error {
	for try := 0; ; {
		mine = ct.pending(mine)
		if len(mine) == 0 {
			return nil
		}
		before := len(mine)
		err := ct.attempt(mine)
		if err == nil {
			continue
		}
		if len(ct.pending(mine)) < before {
			try = 0
		}
		if try++; permanent(err) || try >= maxTries {
			return err
		}
		time.Sleep(backoff(try))
	}
}

// pending is the part of mine that has not landed.
func (ct *content) pending(mine []*flight) []*flight {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	for len(mine) > 0 && ct.flights[mine[0].index] != mine[0] {
		mine = mine[1:]
	}
	return mine
}

// permanent tells whether asking again can't help: the source has retried
// what is worth retrying before it answered, and a body that broke off is the
// only thing left to the cache.
func permanent(err error) bool {
	var broken *brokenBody
	return !errors.As(err, &broken)
}

// brokenBody is a body that ended before its promised length.
type brokenBody struct{ err error }

func (b *brokenBody) Error() string { return fmt.Sprintf("the answer broke off: %v", b.err) }
func (b *brokenBody) Unwrap() error { return b.err }

func backoff(try int) time.Duration { return 100 * time.Millisecond << try }

// attempt asks the origin once for the blocks of mine, which are consecutive.
func (ct *content) attempt(mine []*flight) error {
	release, sp := ct.enter()
	defer release()
	if sp != nil {
		ct.landSpooled()
		return nil
	}
	if mine = ct.pending(mine); len(mine) == 0 {
		return nil
	}
	first, last := mine[0].index, mine[len(mine)-1].index
	off := first * BlockSize
	n := last*BlockSize + ct.blockLen(last) - off
	body, err := ct.src.ReadRange(context.Background(), off, n, ct.expected())
	if err != nil {
		return err
	}
	if err := ct.check(body); err != nil {
		body.Close()
		return err
	}
	switch {
	case !body.Whole:
		ct.c.mu.Lock()
		ct.ranged = true
		ct.c.mu.Unlock()
		release()
		defer body.Close()
		return ct.readBlocks(body, first, last)
	case ct.key.Size <= wholeInBlock:
		defer body.Close()
		return ct.readBlocks(body, 0, ct.lastBlock())
	default:
		return ct.startSpool(body)
	}
}

// enter waits until this fetch may ask the origin. release lets the next one
// in and may be called twice.
func (ct *content) enter() (release func(), sp *spool) {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	for !ct.ranged && ct.spool == nil && ct.busy != nil {
		busy := ct.busy
		ct.c.mu.Unlock()
		<-busy
		ct.c.mu.Lock()
	}
	if ct.ranged || ct.spool != nil {
		return func() {}, ct.spool
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
	}, nil
}

// expected is the validator that an answer must have; empty while none is
// known.
func (ct *content) expected() string {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	return ct.validator
}

// check holds an answer against the size of the key and against the validator
// of the answers before it.
func (ct *content) check(b *Body) error {
	if b.Total >= 0 && b.Total != ct.key.Size {
		return fmt.Errorf("%w: it has %d bytes now and was listed with %d", ErrChanged, b.Total, ct.key.Size)
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	if b.Validator != "" {
		if ct.validator == "" {
			ct.validator = b.Validator
		} else if ct.validator != b.Validator {
			return fmt.Errorf("%w: its validator was %s and is %s", ErrChanged, ct.validator, b.Validator)
		}
	}
	if ct.gone && ct.err == nil {
		return os.ErrClosed // nobody waits any more
	}
	return ct.err
}

// readBlocks reads blocks first to last from body, in order. The last block
// of a whole body is given out when the body has ended where it should.
func (ct *content) readBlocks(body *Body, first, last int64) error {
	for i := first; i <= last; i++ {
		data := make([]byte, ct.blockLen(i))
		if _, err := io.ReadFull(body, data); err != nil {
			return &brokenBody{err}
		}
		if i == last && body.Whole {
			if err := atEnd(body); err != nil {
				return err
			}
		}
		ct.c.mu.Lock()
		ct.land(i, data, nil)
		ct.c.mu.Unlock()
	}
	return nil
}

// atEnd holds a whole body against the promise that it ends here.
func atEnd(body io.Reader) error {
	var one [1]byte
	switch n, err := io.ReadFull(body, one[:]); {
	case n > 0:
		return fmt.Errorf("%w: it is longer than it was listed", ErrChanged)
	case err != io.EOF:
		return &brokenBody{err}
	}
	return nil
}

// changed ends the content: its handles get err from now on, and the next Open
// of its key begins anew. c.mu is held.
func (ct *content) changed(err error) {
	ct.err = err
	ct.drop()
}

// drop takes the content and all it holds out of the cache. c.mu is held.
func (ct *content) drop() {
	ct.gone = true
	if ct.c.contents[ct.key] == ct {
		delete(ct.c.contents, ct.key)
	}
	ct.dropSpool()
	if ct.resident > 0 {
		for i := int64(0); i <= ct.lastBlock(); i++ {
			ct.c.blocks.Remove(blockKey{ct, i})
		}
	}
}

// forgetIfIdle takes a content that holds nothing out of the cache. c.mu is
// held.
func (ct *content) forgetIfIdle() {
	if ct.refs == 0 && ct.resident == 0 && len(ct.flights) == 0 && ct.spool == nil && ct.c.contents[ct.key] == ct {
		delete(ct.c.contents, ct.key)
	}
}

// closed is called by a handle that goes.
func (ct *content) closed() {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	ct.refs--
	if ct.refs > 0 {
		return
	}
	if !ct.keep || ct.err != nil {
		ct.drop()
		return
	}
	if ct.spool != nil && !ct.spool.complete() {
		ct.linger = time.AfterFunc(ct.c.opt.Linger, func() {
			ct.c.mu.Lock()
			defer ct.c.mu.Unlock()
			if ct.refs == 0 && ct.spool != nil && !ct.spool.complete() {
				ct.drop()
			}
		})
	}
	ct.c.trimSpools()
	ct.forgetIfIdle()
}

var _ error = (*brokenBody)(nil)
