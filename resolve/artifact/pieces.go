package artifact

import (
	"context"
	"errors"
	"io"
	"sync"
)

// pieces is a range of an open file of a host. It is read in pieces, as many at once as
// the file gives: a round trip to the host is longer than a piece is on its way. A piece
// is given out once the file was found to be the one that was opened, behind it.
type pieces struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	f      File
	next   int64 // what is asked for next
	end    int64
	done   func(good bool)

	mu     sync.Mutex // guards what follows; a Read holds it
	queue  []chan piece
	got    piece // of which rest was not given out yet
	rest   []byte
	err    error // of the piece that came last
	closed bool
}

type piece struct {
	b   *[]byte // of piecePool; nil with err
	n   int
	err error
}

// pieceSize is how much is read at a time, in bytes.
const pieceSize = 256 << 10

var piecePool = sync.Pool{New: func() any { b := make([]byte, pieceSize); return &b }}

// newPieces reads n bytes of f from off. done is called once nobody reads f any more; good
// says that it can be read on.
func newPieces(ctx context.Context, f File, off, n int64, done func(good bool)) *pieces {
	ctx, cancel := context.WithCancelCause(ctx)
	return &pieces{ctx: ctx, cancel: cancel, f: f, next: off, end: off + n, done: done}
}

// ask has pieces read, as many as there may be at once.
func (b *pieces) ask() {
	for len(b.queue) < b.f.Ahead() && b.next < b.end {
		off, n := b.next, min(pieceSize, b.end-b.next)
		come := make(chan piece, 1)
		b.next += n
		b.queue = append(b.queue, come)
		go func() { come <- b.bring(off, int(n)) }()
	}
}

// bring reads one piece. Where it fails the buffer is not used again: a read that was let
// go may still fill it.
func (b *pieces) bring(off int64, n int) piece {
	buf := piecePool.Get().(*[]byte)
	err := b.f.ReadAt(b.ctx, (*buf)[:n], off)
	if err == nil {
		err = b.f.Check(b.ctx)
	}
	if err != nil {
		return piece{err: err}
	}
	return piece{buf, n, nil}
}

// first waits for the first piece, if there is one.
func (b *pieces) first() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.fill(); err != io.EOF {
		return err
	}
	return nil
}

// fill has rest hold something, or says why there is nothing. b.mu is held.
func (b *pieces) fill() error {
	if len(b.rest) > 0 || b.err != nil {
		return b.err
	}
	if b.got.b != nil {
		piecePool.Put(b.got.b)
		b.got = piece{}
	}
	b.ask()
	if len(b.queue) == 0 {
		return io.EOF
	}
	select {
	case b.got = <-b.queue[0]:
	case <-b.ctx.Done(): // who reads may wait for an answer that never comes
		b.err = context.Cause(b.ctx)
		return b.err
	}
	b.queue = b.queue[1:]
	if b.err = b.got.err; b.err != nil {
		b.cancel(nil)
		return b.err
	}
	b.rest = (*b.got.b)[:b.got.n]
	b.ask()
	return nil
}

func (b *pieces) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, io.ErrClosedPipe
	}
	if err := b.fill(); err != nil {
		return 0, err
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// Close ends a Read that waits. The file goes on to its next reader once no piece of it is
// on its way.
func (b *pieces) Close() error {
	b.cancel(errClosed)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	if b.got.b != nil {
		piecePool.Put(b.got.b)
	}
	queue, good := b.queue, b.err == nil
	if len(queue) == 0 {
		b.done(good)
		return nil
	}
	go func() {
		for _, come := range queue {
			<-come
		}
		b.done(false)
	}()
	return nil
}

var errClosed = errors.New("it is closed")

var _ io.ReadCloser = (*pieces)(nil)
