package cache

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/mlflowfs/mlflowfs/cache/limit"
	"golang.org/x/sync/errgroup"
)

// Downloader copies contents into files of a directory.
//
// A file grows under a name of its own beside its place and is moved there
// when it is whole, its size is right, and its checksum where the origin gives
// one. One that was interrupted is taken up where it was left, if the origin
// honours ranges and tells by a validator that it is still the same content.
// Pieces are written with their CRC32C, so that a piece counts on the next
// attempt only if it is what was received.
type Downloader struct {
	Root     *os.Root // where names are relative to
	Parallel int      // ranges of one file at once

	// Limit bounds the requests of all files at once.
	Limit *limit.Requests

	// Progress is told of bytes as they come; n may be negative where some are
	// to come again. It is called by many at once.
	Progress func(n int64)
}

// pieceSize is the unit in which a large file is asked for, and in which it is
// resumed, in bytes.
const pieceSize = 16 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged says that what came is not what the origin's checksum says.
var ErrDamaged = errors.New("the checksum is wrong")

// Download brings the content of key to the file name, replacing what is
// there.
func (d *Downloader) Download(ctx context.Context, key Key, src Source, name string) error {
	part := path.Join(path.Dir(name), fmt.Sprintf(".mlflowfs-%016x.part", xxhash.Sum64String(path.Base(name))))
	f, err := d.Root.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("%s is being downloaded by another mlflowfs: wait for it, or choose another directory", name)
	}
	for {
		x := &download{d: d, key: key, src: src, f: f, validator: key.Version}
		err = x.run(ctx)
		switch changed := errors.Is(err, ErrChanged); {
		case err == nil:
			return d.Root.Rename(part, name)
		case changed && x.resumed: // what was left is of an older content
			if err := f.Truncate(0); err != nil {
				return err
			}
			d.progress(-x.taken)
		case changed || !x.resumable:
			return errors.Join(err, d.Root.Remove(part))
		default:
			return err
		}
	}
}

// download is one file on its way.
type download struct {
	d   *Downloader
	key Key
	src Source
	f   *os.File
	j   *journal // nil for a file of one piece

	resumed bool  // begun with what an earlier attempt left
	taken   int64 // bytes of that

	mu        sync.Mutex // guards what follows
	validator string
	sums      Sums
	whole     bool // the origin sends the whole file at once
	resumable bool
	done      []bool // by piece
	advanced  chan struct{}
}

func (x *download) run(ctx context.Context) error {
	x.done = make([]bool, (x.key.Size+pieceSize-1)/pieceSize)
	x.advanced = make(chan struct{})
	if len(x.done) > 1 {
		if err := x.resume(); err != nil {
			return err
		}
	} else if err := x.f.Truncate(0); err != nil {
		return err
	}
	if len(x.done) > 0 {
		if err := x.fetch(ctx); err != nil {
			return err
		}
	}
	return x.f.Truncate(x.key.Size)
}

// resume takes up what an earlier attempt left.
func (x *download) resume() (err error) {
	if x.j, err = openJournal(x.f, x.key, len(x.done)); err != nil {
		return err
	}
	if v := x.j.validator; v != "" && (x.validator == "" || x.validator == v) {
		kept, err := x.j.check()
		if err != nil {
			return err
		}
		if !slices.Contains(kept, false) {
			kept[0] = false // one answer must say that it is this content still
		}
		for i, there := range kept {
			if there {
				x.taken += min(pieceSize, x.key.Size-int64(i)*pieceSize)
			}
		}
		x.d.progress(x.taken)
		x.validator, x.done, x.resumable, x.resumed = v, kept, true, true
		return nil
	}
	return x.j.begin(x.validator)
}

func (d *Downloader) progress(n int64) {
	if d.Progress != nil {
		d.Progress(n)
	}
}

// fetch brings all pieces. The first answer tells whether they can be asked
// for one by one, and who checks them.
func (x *download) fetch(ctx context.Context) error {
	next := x.missing(0)
	sums := make(chan error, 1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if next >= 0 {
		if err := x.piece(ctx, next); err != nil {
			return err
		}
	}
	go func() { sums <- guard(func() error { return x.verify(ctx) }) }()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(x.d.Parallel, 1))
	for i := x.missing(0); i >= 0; i = x.missing(i + 1) {
		g.Go(func() error { return guard(func() error { return x.piece(gctx, i) }) })
	}
	if err := g.Wait(); err != nil {
		cancel(err)
		<-sums
		return err
	}
	return <-sums
}

// missing is the first piece from i on that is not there, or -1.
func (x *download) missing(i int) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	for ; i < len(x.done); i++ {
		if !x.done[i] {
			return i
		}
	}
	return -1
}

// piece brings piece i, by as many answers as it takes. An origin that knows
// no ranges brings all of them with piece 0.
func (x *download) piece(ctx context.Context, i int) error {
	off := int64(i) * pieceSize
	end := min(off+pieceSize, x.key.Size)
	at, crc := off, crc32.New(castagnoli)
	for try := 0; ; {
		before := at
		err := x.attempt(ctx, i, &at, end, crc)
		if err == nil {
			return nil
		}
		if at > before {
			try = 0
		}
		if try++; permanent(err) || try >= maxTries || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(backoff(try)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// attempt writes what one answer brings from *at on, and moves *at along.
func (x *download) attempt(ctx context.Context, i int, at *int64, end int64, crc hash.Hash32) error {
	x.mu.Lock()
	validator := x.validator
	x.mu.Unlock()
	permit := x.d.Limit.Ask(originOf(x.src), limit.Waited)
	if err := permit.Wait(ctx); err != nil {
		return err
	}
	defer permit.Release()
	body, err := x.src.ReadRange(ctx, *at, end-*at, validator)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := x.accept(body); err != nil {
		return err
	}
	if body.Whole {
		x.d.progress(int64(i)*pieceSize - *at) // what came of this piece comes again
		*at = int64(i) * pieceSize
		return x.stream(ctx, body, *at)
	}
	if err := x.write(ctx, body, at, end, crc); err != nil {
		return err
	}
	return x.finish(i, crc.Sum32())
}

// accept holds an answer against the key and the answers before it.
func (x *download) accept(b *Body) error {
	if b.Total >= 0 && b.Total != x.key.Size {
		return fmt.Errorf("%w: it has %d bytes now and was listed with %d", ErrChanged, b.Total, x.key.Size)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if b.MD5 != nil || b.CRC32C != nil {
		x.sums = b.Sums
	}
	if b.Validator != "" && x.validator == "" && !b.Whole {
		x.validator, x.resumable = b.Validator, x.j != nil
		if x.j != nil {
			return x.j.begin(b.Validator)
		}
	}
	if b.Validator != "" && x.validator != "" && b.Validator != x.validator {
		x.resumable = false
		return fmt.Errorf("%w: its validator was %s and is %s", ErrChanged, x.validator, b.Validator)
	}
	x.resumable = x.j != nil && x.validator != "" && !b.Whole
	return nil
}

// bufs are the buffers between an answer and the file.
var bufs = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// write copies from body to the file until *at is end.
func (x *download) write(ctx context.Context, body io.Reader, at *int64, end int64, crc hash.Hash32) error {
	buf := bufs.Get().(*[]byte)
	defer bufs.Put(buf)
	for *at < end {
		n, err := io.ReadAtLeast(body, (*buf)[:min(int64(len(*buf)), end-*at)], 1)
		if n > 0 {
			crc.Write((*buf)[:n])
			if _, err := x.f.WriteAt((*buf)[:n], *at); err != nil {
				return err
			}
			*at += int64(n)
			x.d.progress(int64(n))
		}
		if err != nil && *at < end {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return &brokenBody{err}
		}
	}
	return nil
}

// stream writes a whole body from the file's byte 0 on. Bytes before skip are
// counted already.
func (x *download) stream(ctx context.Context, body *Body, skip int64) error {
	x.mu.Lock()
	if x.whole {
		x.mu.Unlock()
		return errors.New("the origin honoured ranges and does no more")
	}
	x.whole = true
	x.mu.Unlock()
	x.d.progress(-skip)
	for i := range x.done {
		at := int64(i) * pieceSize
		crc := crc32.New(castagnoli)
		if err := x.write(ctx, body, &at, min(at+pieceSize, x.key.Size), crc); err != nil {
			x.mu.Lock()
			x.whole = false // it may begin anew
			x.mu.Unlock()
			x.d.progress(-at)
			return err
		}
		if i == len(x.done)-1 {
			if err := atEnd(body); err != nil {
				return err
			}
		}
		if err := x.finish(i, crc.Sum32()); err != nil {
			return err
		}
	}
	return nil
}

// finish marks a piece as there, after its bytes.
func (x *download) finish(i int, crc uint32) error {
	if x.j != nil {
		if err := x.j.mark(i, crc); err != nil {
			return err
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.done[i] = true
	close(x.advanced)
	x.advanced = make(chan struct{})
	return nil
}

// verify follows the pieces as they come and holds all of them against the
// origin's checksum, where it gave one.
func (x *download) verify(ctx context.Context) error {
	x.mu.Lock()
	sums := x.sums
	x.mu.Unlock()
	var h hash.Hash
	var want []byte
	switch {
	case sums.CRC32C != nil:
		h = crc32.New(castagnoli)
		c := *sums.CRC32C
		want = []byte{byte(c >> 24), byte(c >> 16), byte(c >> 8), byte(c)}
	case sums.MD5 != nil:
		h, want = md5.New(), sums.MD5
	default:
		return nil
	}
	for i := range x.done {
		for {
			x.mu.Lock()
			done, advanced := x.done[i], x.advanced
			x.mu.Unlock()
			if done {
				break
			}
			select {
			case <-advanced:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		off := int64(i) * pieceSize
		if _, err := io.Copy(h, io.NewSectionReader(x.f, off, min(pieceSize, x.key.Size-off))); err != nil {
			return err
		}
	}
	if got := h.Sum(nil); !bytes.Equal(got, want) {
		x.mu.Lock()
		x.resumable = false
		x.mu.Unlock()
		return fmt.Errorf("%w: it is %s, and the origin says %s", ErrDamaged, hex.EncodeToString(got), hex.EncodeToString(want))
	}
	return nil
}
