package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// spool is a whole body on its way into an unlinked temporary file. Readers
// follow it as it grows: one at offset X waits until X has passed.
type spool struct {
	file   *os.File
	size   int64
	cancel context.CancelFunc // ends the filling

	mu   sync.Mutex // guards what follows
	n    int64      // bytes written
	err  error      // why it will never be complete
	grew chan struct{}
}

// startSpool makes the spool that body fills, and sends everyone to it.
func (ct *content) startSpool(body *Body) error {
	file, err := os.CreateTemp(ct.c.opt.SpoolDir, ".mlflowfs-spool-*")
	if err == nil {
		// Unlinked at once: nothing is left behind, whatever ends the process.
		err = os.Remove(file.Name())
	}
	if err != nil {
		body.Close()
		return fmt.Errorf("an artifact that comes as one stream needs a temporary file: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &spool{file: file, size: ct.key.Size, cancel: cancel, grew: make(chan struct{})}

	ct.c.mu.Lock()
	if ct.gone || ct.spool != nil { // an origin that honoured ranges so far may send two bodies at once
		err := ct.err
		if ct.gone && err == nil {
			err = os.ErrClosed
		}
		ct.c.mu.Unlock()
		cancel()
		body.Close()
		file.Close()
		ct.landSpooled()
		return err
	}
	ct.spool = s
	ct.c.spools.Add(ct, s)
	ct.c.spooled += s.size
	ct.c.trimSpools()
	ct.c.mu.Unlock()
	ct.landSpooled()

	go func() {
		err := guard(func() error { return s.fill(ctx, ct.src, body) })
		if err != nil {
			s.fail(err)
			ct.c.mu.Lock()
			if errors.Is(err, ErrChanged) {
				ct.changed(err)
			} else if ct.spool == s {
				ct.dropSpool() // the next reader begins anew
				ct.forgetIfIdle()
			}
			ct.c.mu.Unlock()
		}
	}()
	return nil
}

// landSpooled sends all who wait for blocks to the spool.
func (ct *content) landSpooled() {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	for i := range ct.flights {
		ct.land(i, nil, errSpooled)
	}
}

// dropSpool ends the spool, if there is one. c.mu is held.
func (ct *content) dropSpool() {
	s := ct.spool
	if s == nil {
		return
	}
	ct.spool = nil
	ct.c.spools.Remove(ct)
	ct.c.spooled -= s.size
	s.fail(os.ErrClosed)
	s.cancel()
	s.file.Close()
}

// fill writes the body to the file, and what other bodies bring where it
// breaks off: what was written already is compared, byte for byte.
func (s *spool) fill(ctx context.Context, src Source, body *Body) error {
	validator := body.Validator
	for try := 0; ; {
		before := s.written()
		err := s.copy(ctx, body)
		body.Close()
		if err == nil {
			return nil
		}
		if s.written() > before {
			try = 0
		}
		if try++; ctx.Err() != nil || permanent(err) || try >= maxTries {
			return err
		}
		time.Sleep(backoff(try))
		if body, err = src.ReadRange(ctx, 0, s.size, validator); err != nil {
			return err
		}
		if body.Total >= 0 && body.Total != s.size {
			body.Close()
			return fmt.Errorf("%w: it has %d bytes now and had %d", ErrChanged, body.Total, s.size)
		}
	}
}

func (s *spool) copy(ctx context.Context, body io.ReadCloser) error {
	stop := context.AfterFunc(ctx, func() { body.Close() })
	defer stop()
	buf := make([]byte, 256<<10)
	old := make([]byte, len(buf))
	for at := int64(0); at < s.size; {
		n, err := io.ReadAtLeast(body, buf[:min(int64(len(buf)), s.size-at)], 1)
		if n > 0 {
			known := min(max(s.written()-at, 0), int64(n))
			if known > 0 {
				if _, err := s.file.ReadAt(old[:known], at); err != nil {
					return err
				}
				if !bytes.Equal(old[:known], buf[:known]) {
					return fmt.Errorf("%w: a second answer differs from the first", ErrChanged)
				}
			}
			if _, err := s.file.WriteAt(buf[known:n], at+known); err != nil {
				return err
			}
			at += int64(n)
			if at < s.size { // the last piece is given out when the body has ended
				s.grow(at)
			}
		}
		if err != nil && at < s.size {
			return &brokenBody{err}
		}
	}
	if err := atEnd(body); err != nil {
		return err
	}
	s.grow(s.size)
	return nil
}

func (s *spool) written() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

func (s *spool) complete() bool { return s.written() == s.size }

// grow tells the readers that the first n bytes are there.
func (s *spool) grow(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > s.n {
		s.n = n
		close(s.grew)
		s.grew = make(chan struct{})
	}
}

// fail tells the readers that no more will come; the first reason stays.
func (s *spool) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		close(s.grew)
		s.grew = make(chan struct{})
	}
}

// ReadAt fills p from offset off, which lies with all of p inside the file,
// and waits for bytes that have not come yet.
func (s *spool) ReadAt(ctx context.Context, p []byte, off int64) error {
	for {
		s.mu.Lock()
		n, err, grew := s.n, s.err, s.grew
		s.mu.Unlock()
		if off+int64(len(p)) <= n {
			_, err := s.file.ReadAt(p, off)
			return err
		}
		if err != nil {
			return err
		}
		select {
		case <-grew:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
