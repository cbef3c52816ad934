package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"
)

// How a content's origin is asked, and what of its answers is believed.

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
	if ct.life.state == dead && ct.life.err == nil {
		return os.ErrClosed // nobody waits any more
	}
	return ct.life.err
}

// expected is the validator that an answer must have; empty while none is
// known.
func (ct *content) expected() string {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	return ct.validator
}

func (ct *content) origin() string { return originOf(ct.src) }

// originOf is what the requests of a source go to.
func originOf(src Source) string {
	if o, ok := src.(interface{ Origin() string }); ok {
		return o.Origin()
	}
	return ""
}

// ask asks the origin for a fetch, and counts it.
func (ct *content) ask(fetch, off, n int64, validator string) (*Body, error) {
	begin := time.Now()
	body, err := ct.src.ReadRange(ct.life.ctx, off, n, validator)
	ct.c.opt.Log.Debug("an origin was asked", "fetch", fetch, "offset", off, "bytes", n, "took", time.Since(begin), "err", err)
	ct.c.did.requests.Add(1)
	if err != nil {
		ct.c.did.failures.Add(1)
	}
	return body, err
}

// wholeBody is the number, in the log, of each fetch that is a stream.
const wholeBody = 0

// maxTries is how often in a row an origin is asked that brings nothing.
const maxTries = 4

// retry is how often in a row an origin has broken off its answers and brought
// nothing.
type retry struct{ tries int }

// again waits until it is time to ask again, after err; false says that it is no
// use: the source has retried what is worth it before it answered, and a body that
// broke off is the only thing left to the cache, but for one that fell silent until
// nobody would wait any more.
func (r *retry) again(ctx context.Context, err error, progress bool) bool {
	if progress {
		r.tries = 0
	}
	var broken *brokenBody
	if r.tries++; !errors.As(err, &broken) || silent(err) || r.tries >= maxTries {
		return false
	}
	select {
	case <-time.After(100 * time.Millisecond << r.tries):
		return true
	case <-ctx.Done():
		return false
	}
}

// silent tells whether err says that its source was waited for long enough, as
// a net.Error does.
func silent(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// brokenBody is a body that ended before its promised length.
type brokenBody struct{ err error }

var _ error = (*brokenBody)(nil)

func (b *brokenBody) Error() string { return fmt.Sprintf("the answer broke off: %v", b.err) }
func (b *brokenBody) Unwrap() error { return b.err }

type requestKey struct{}

// WithRequest gives the reads with ctx a number, by which the log, at its level
// debug, joins them with the fetches that they wait for.
func WithRequest(ctx context.Context, number uint64) context.Context {
	return context.WithValue(ctx, requestKey{}, number)
}

// waits says in the log what a read waits for.
func (ct *content) waits(ctx context.Context, p *pendingBlock) {
	number, ok := ctx.Value(requestKey{}).(uint64)
	if !ok || !ct.c.opt.Log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	fetch := int64(wholeBody)
	ct.c.mu.Lock()
	if p.fetch != nil {
		fetch = p.fetch.id
	}
	ct.c.mu.Unlock()
	ct.c.opt.Log.Debug("a read waits", "request", number, "block", p.index, "fetch", fetch)
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
