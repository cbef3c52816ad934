package rest

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// Watch ends a request whose peer has fallen silent: no answer for the whole
// of Settings.Silence, or no piece of a body for that long.
type Watch struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	silence time.Duration
}

// Watch begins to watch a request, which is named by what in the error of its
// end. One of Body and End must be called.
func (s Settings) Watch(ctx context.Context, what string) *Watch {
	ctx, cancel := context.WithCancelCause(ctx)
	silent := &silence{what, s.Silence}
	return &Watch{ctx, cancel, time.AfterFunc(s.Silence, func() { cancel(silent) }), s.Silence}
}

// silence is the end of a request whose peer has fallen silent.
type silence struct {
	what string
	long time.Duration
}

var _ error = (*silence)(nil)

func (s *silence) Error() string { return fmt.Sprintf("%s: no answer for %v", s.what, s.long) }

// Timeout is true: who waited has waited long enough, and does not ask again
// (net.Error has the like).
func (s *silence) Timeout() bool { return true }

// Context is the context of the request.
func (w *Watch) Context() context.Context { return w.ctx }

// End is the end of a request without a body. It gives the cause of err.
func (w *Watch) End(err error) error {
	w.timer.Stop()
	if cause := context.Cause(w.ctx); cause != nil && err != nil {
		err = cause
	}
	w.cancel(nil)
	return err
}

// Body goes on to watch an answer's body until its Close.
func (w *Watch) Body(b io.ReadCloser) io.ReadCloser {
	w.timer.Stop()
	return &watchedBody{body: b, w: w}
}

type watchedBody struct {
	w *Watch

	mu     sync.Mutex // guards what follows; a Read holds it
	body   io.ReadCloser
	closed bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, io.ErrClosedPipe
	}
	b.w.timer.Reset(b.w.silence)
	n, err := b.body.Read(p)
	b.w.timer.Stop()
	if err != nil && err != io.EOF {
		if cause := context.Cause(b.w.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

// Close may be called by another than the reader: it ends the request, and
// with it a Read that waits.
func (b *watchedBody) Close() error {
	b.w.cancel(context.Canceled)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	b.w.timer.Stop()
	return b.body.Close()
}

var _ io.ReadCloser = (*watchedBody)(nil)
