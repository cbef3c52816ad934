package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// whole takes a body that is the whole file, of an origin that does not
// honour ranges: it goes on filling the content when the fetch has returned,
// and whoever waits for a block waits until the stream has passed it.
func (f *fetch) whole(body *Body) error {
	ct := f.ct
	ctx, cancel := context.WithCancel(context.Background())
	ct.c.mu.Lock()
	if ct.stream != nil || ct.gone { // an origin that honoured ranges so far may send two bodies at once
		ct.c.mu.Unlock()
		cancel()
		body.Close()
		f.streamed()
		return nil
	}
	ct.stream = cancel
	ct.c.mu.Unlock()
	if ct.key.Size > inMemory {
		if err := ct.ensureFile(); err != nil {
			body.Close()
			ct.streamEnds(cancel, err)
			return fmt.Errorf("an artifact that comes as one stream needs a temporary file: %w", err)
		}
	}
	f.streamed()
	ct.c.running.Add(1)
	go func() {
		defer ct.c.running.Done()
		err := guard(func() error { return ct.pour(ctx, body) })
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

// ensureFile sees to it that the content has a file: one of the disk tier, or
// a temporary one.
func (ct *content) ensureFile() error {
	if ct.entry() != nil {
		return nil
	}
	e, err := anonymous(ct.c.opt.TempDir, ct.key.Size)
	if err != nil {
		return err
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	ct.replaced, ct.disk = ct.disk, e
	return nil
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
func (ct *content) pour(ctx context.Context, body *Body) error {
	var sums []uint32 // of the blocks that came
	validator := body.Validator
	for try := 0; ; {
		before := len(sums)
		err := ct.pourOne(ctx, body, &sums)
		body.Close()
		if err == nil {
			return nil
		}
		if len(sums) > before {
			try = 0
		}
		if try++; ctx.Err() != nil || permanent(err) || try >= maxTries {
			return err
		}
		time.Sleep(backoff(try))
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
func (ct *content) pourOne(ctx context.Context, body *Body, sums *[]uint32) error {
	stop := context.AfterFunc(ctx, func() { body.Close() })
	defer stop()
	for i := int64(0); i <= ct.lastBlock(); i++ {
		b, sum, err := ct.receive(body, i)
		if err != nil {
			return err
		}
		err = ct.pourBlock(body, i, b, sum, sums)
		ct.c.releaseUnlocked(b)
		if err != nil {
			return err
		}
	}
	return nil
}

func (ct *content) pourBlock(body io.Reader, i int64, b *block, sum uint32, sums *[]uint32) error {
	if i < int64(len(*sums)) {
		if (*sums)[i] != sum {
			return fmt.Errorf("%w: a second answer differs from the first", ErrChanged)
		}
		return nil
	}
	if i == ct.lastBlock() {
		if err := atEnd(body); err != nil {
			return err
		}
	}
	// First the file: once it has passed, the stream brings the block no more.
	if err := ct.store(i, b, sum, true); err != nil {
		return err
	}
	*sums = append(*sums, sum)
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	ct.land(i, b, nil)
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
