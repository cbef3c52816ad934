package mlflow

import (
	"context"
	"fmt"
	"io"
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
	silent := fmt.Errorf("%s: no answer for %v", what, s.Silence)
	return &Watch{ctx, cancel, time.AfterFunc(s.Silence, func() { cancel(silent) }), s.Silence}
}

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
	return &watchedBody{b, w}
}

type watchedBody struct {
	io.ReadCloser
	w *Watch
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.w.timer.Reset(b.w.silence)
	n, err := b.ReadCloser.Read(p)
	b.w.timer.Stop()
	if err != nil && err != io.EOF {
		if cause := context.Cause(b.w.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.w.timer.Stop()
	err := b.ReadCloser.Close()
	b.w.cancel(context.Canceled)
	return err
}

var _ io.ReadCloser = (*watchedBody)(nil)
