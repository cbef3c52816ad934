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

// whole takes a body that is the whole file, of an origin that does not
// honour ranges: it goes on filling the content when the fetch has returned,
// and whoever waits for a block waits until the stream has passed it.
func (f *fetch) whole(body *Body, permit *limit.Permit) error {
	ct := f.ct
	ctx, cancel := context.WithCancel(context.Background())
	ct.c.mu.Lock()
	if ct.stream != nil || ct.gone { // an origin that honoured ranges so far may send two bodies at once
		ct.c.mu.Unlock()
		cancel()
		body.Close()
		permit.Release()
		f.streamed()
		return nil
	}
	ct.stream = cancel
	ct.c.mu.Unlock()
	if ct.key.Size > inMemory {
		if err := ct.ensureFile(); err != nil {
			body.Close()
			permit.Release()
			ct.streamEnds(cancel, err)
			return fmt.Errorf("an artifact that comes as one stream needs a temporary file: %w", err)
		}
	}
	f.streamed()
	ct.c.running.Add(1)
	go func() {
		defer ct.c.running.Done()
		err := guard(func() error { return ct.pour(ctx, body, permit) })
		ct.streamEnds(cancel, err)
		ct.settle()
	}()
	return nil
}

// streamed hands the blocks of the fetch over to the stream.
func (f *fetch) streamed() {
	f.ct.c.mu.Lock()
	defer f.ct.c.mu.Unlock()
	for _, fl := range f.mine {
		if f.ct.flights[fl.index] != fl {
			continue
		}
		if fl.fetch = nil; f.ct.stream == nil || !f.ct.away(fl.index) {
			f.ct.land(fl.index, nil, errElsewhere)
		}
	}
	f.mine = nil
}

// streamEnds says that no stream brings blocks any more.
func (ct *content) streamEnds(cancel context.CancelFunc, err error) {
	cancel()
	if errors.Is(err, ErrChanged) {
		ct.changed(err)
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	ct.stream = nil
	if err == nil {
		err = errElsewhere
	}
	for i, fl := range ct.flights {
		if fl.fetch == nil {
			ct.land(i, nil, err)
		}
	}
}

// pour fills the content from the body, and from what other bodies bring where
// it breaks off: what came already is compared.
func (ct *content) pour(ctx context.Context, body *Body, permit *limit.Permit) error {
	defer func() { permit.Release() }()
	validator := body.Validator
	for try := 0; ; {
		before := ct.streamed()
		err := ct.pourOne(ctx, body)
		body.Close()
		permit.Release()
		if err == nil {
			return nil
		}
		if ct.streamed() > before {
			try = 0
		}
		if try++; ctx.Err() != nil || permanent(err) || try >= maxTries {
			return err
		}
		time.Sleep(backoff(try))
		permit = ct.c.limit.Ask(ct.origin(), limit.Waited)
		if err := permit.Wait(ctx); err != nil {
			return err
		}
		if body, err = ct.ask(ctx, wholeBody, 0, ct.key.Size, validator); err != nil {
			return err
		}
		if err := ct.check(body); err != nil {
			body.Close()
			return err
		}
	}
}

// pourOne takes what one body brings. The last block is given out when the
// body has ended where it should.
func (ct *content) pourOne(ctx context.Context, body *Body) error {
	stop := context.AfterFunc(ctx, func() { body.Close() })
	defer stop()
	var come landed
	written := make(chan error, 1)
	written <- nil
	// What has come is written while more comes, but no more than that: memory
	// may not hold it.
	flush := func() error {
		if err := <-written; err != nil {
			written <- err
			return err
		}
		go func(done <-chan error) { written <- <-done }(ct.write(&come, true))
		return nil
	}
	defer func() { flush(); <-written }()
	for i := int64(0); i <= ct.lastBlock(); i++ {
		b, sum, err := ct.receive(body, i)
		if err != nil {
			return err
		}
		taken, err := ct.pourBlock(body, i, b, sum, &come)
		ct.c.releaseUnlocked(b)
		if err == nil && len(come.blocks) > 0 && (!taken || len(come.blocks) >= disk.RunBlocks) {
			err = flush()
		}
		if err != nil {
			return err
		}
	}
	if err := flush(); err != nil {
		return err
	}
	err := <-written
	written <- err
	return err
}

// pourBlock takes block i of a whole body, unless it is here; one that came in an
// earlier body must be the same.
func (ct *content) pourBlock(body io.Reader, i int64, b *block, sum uint32, come *landed) (taken bool, err error) {
	if i == ct.lastBlock() {
		if err := atEnd(body); err != nil {
			return false, err
		}
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	if i < int64(len(ct.sums)) {
		if ct.sums[i] != sum {
			return false, errDiffers
		}
		if !ct.away(i) {
			return false, nil
		}
	} else {
		ct.sums = append(ct.sums, sum)
	}
	come.add(ct, i, b, sum)
	ct.land(i, b, nil)
	return true, nil
}

// streamed is how many blocks have come in whole bodies.
func (ct *content) streamed() int {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	return len(ct.sums)
}

// errDiffers says that what has come again is not what came before.
var errDiffers = fmt.Errorf("%w: a second answer differs from the first", ErrChanged)

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
