package cache

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/mlflowfs/mlflowfs/cache/limit"
)

// whole takes a body that is the whole file, of an origin that does not
// honour ranges: it goes on filling the content when the fetch has returned,
// and whoever waits for a block waits until the stream has passed it.
func (f *fetch) whole(body *Body, permit *limit.Permit) error {
	ct := f.ct
	ct.c.mu.Lock()
	first := !ct.fetch.stream && ct.life.state != dead // an origin that honoured ranges so far may send two bodies at once
	if first {
		ct.fetch.stream = true
		ct.begin()
	}
	ct.c.mu.Unlock()
	s := &stream{ct, body, permit}
	if !first {
		s.close()
		f.streamed()
		return nil
	}
	if ct.key.Size > inMemory {
		if err := ct.ensureFile(); err != nil {
			s.close()
			s.ended(err)
			return fmt.Errorf("an artifact that comes as one stream needs a temporary file: %w", err)
		}
	}
	f.streamed()
	go func() { s.ended(Guard(s.pour)) }()
	return nil
}

// streamed hands the blocks of the fetch over to the stream.
func (f *fetch) streamed() {
	ct := f.ct
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	for _, p := range f.mine {
		if ct.fetch.pending[p.index] != p {
			continue
		}
		if p.fetch = nil; !ct.fetch.stream || ct.resident(p.index) {
			ct.complete(p.index, nil, errElsewhere)
		}
	}
	f.mine = nil
}

// stream is one whole body after the other, until all of the content has come.
type stream struct {
	ct     *content
	body   *Body
	permit *limit.Permit
}

func (s *stream) close() {
	s.body.Close()
	s.permit.Release()
}

// ended says that no stream brings blocks any more.
func (s *stream) ended(err error) {
	ct := s.ct
	defer ct.end()
	if errors.Is(err, ErrChanged) {
		ct.changed(err)
	}
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	ct.fetch.stream = false
	if err == nil {
		err = errElsewhere
	}
	for i, p := range ct.fetch.pending {
		if p.fetch == nil {
			ct.complete(i, nil, err)
		}
	}
}

// pour fills the content from the body, and from what other bodies bring where
// it breaks off: what came already is compared.
func (s *stream) pour() error {
	defer func() { s.permit.Release() }()
	ct := s.ct
	validator := s.body.Validator
	for r := (retry{}); ; {
		before := ct.streamed()
		err := s.pourOne()
		s.close()
		if err == nil {
			return nil
		}
		ctx := ct.life.ctx
		if !r.again(ctx, err, ct.streamed() > before) {
			return err
		}
		s.permit = ct.c.limit.Ask(ct.origin(), limit.Waited)
		if err := s.permit.Wait(ctx); err != nil {
			return err
		}
		if s.body, err = ct.ask(wholeBody, 0, ct.key.Size, validator); err != nil {
			return err
		}
		if err := ct.check(s.body); err != nil {
			s.body.Close()
			return err
		}
	}
}

// pourOne takes what one body brings. The last block is given out when the
// body has ended where it should.
func (s *stream) pourOne() error {
	ct, body := s.ct, s.body
	stop := context.AfterFunc(ct.life.ctx, func() { body.Close() })
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
		if err == nil && len(come.blocks) > 0 && (!taken || come.full()) {
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
	sums := &ct.fetch.sums
	if i < int64(len(*sums)) {
		if (*sums)[i] != sum {
			return false, errDiffers
		}
		if ct.resident(i) {
			return false, nil
		}
	} else {
		*sums = append(*sums, sum)
	}
	come.add(ct, i, b, sum)
	ct.complete(i, b, nil)
	return true, nil
}

// streamed is how many blocks have come in whole bodies.
func (ct *content) streamed() int {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	return len(ct.fetch.sums)
}
