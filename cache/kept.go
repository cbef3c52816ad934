package cache

import (
	"cmp"
	"context"
	"errors"
	"io"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// keepTries is how often a content is read until it is in the directory: another
// process may evict it meanwhile, and one that is damaged may be begun anew.
const keepTries = 3

// Keep has the content of key in the directory of the cache, all of it fetched or held
// against its checksums, and calls use with its file, which stays open until use
// returns. progress is told of bytes that are there; n may be negative where some are
// to come again. Where the directory can't have it the error is an [ErrNotKept].
func (c *Cache) Keep(ctx context.Context, key Key, src Source, progress func(n int64), use func(*disk.File) error) error {
	for try := 1; ; try++ {
		there := int64(0)
		err := c.keepOnce(ctx, key, src, func(n int64) {
			there += n
			progress(n)
		}, use)
		if err == nil {
			return nil
		}
		progress(-there)
		if try == keepTries || ctx.Err() != nil || !errors.Is(err, disk.ErrGone) {
			return err
		}
	}
}

// ErrNotKept says that a content can't be had in the directory, and wraps why.
type ErrNotKept struct{ Why error }

func (e *ErrNotKept) Error() string { return "it can't be kept on disk: " + e.Why.Error() }
func (e *ErrNotKept) Unwrap() error { return e.Why }

func (c *Cache) keepOnce(ctx context.Context, key Key, src Source, progress func(n int64), use func(*disk.File) error) error {
	f := c.Open(key, src, true)
	defer f.Close()
	f.Whole = true
	p := make([]byte, 8*BlockSize)
	for off := int64(0); off < key.Size; {
		n, err := f.ReadAt(ctx, p, off)
		if err != nil && err != io.EOF {
			return err
		}
		off += int64(n)
		progress(int64(n))
	}
	file, err := f.ct.settled()
	if err == nil {
		err = use(file)
	}
	if err == nil {
		return nil
	}
	if notKept := (*ErrNotKept)(nil); !errors.As(err, &notKept) {
		err = &ErrNotKept{err}
	}
	// What is in memory would not be written again.
	c.mu.Lock()
	f.ct.kill(nil)
	c.mu.Unlock()
	return err
}

// settled waits until what came of the content is written, and gives its file, each
// block of which is there and was verified.
func (ct *content) settled() (*disk.File, error) {
	c := ct.c
	c.mu.Lock()
	for ct.life.work > 0 {
		c.ended.Wait()
	}
	file, open, refused := ct.store.file, ct.store.open, ct.store.refused
	c.mu.Unlock()
	if !open || !file.Kept() {
		return nil, &ErrNotKept{cmp.Or(refused, disk.ErrGone)}
	}
	for i := file.Unverified(0, disk.BlocksOf(ct.key.Size)); i >= 0; i = file.Unverified(i, disk.BlocksOf(ct.key.Size)) {
		b, err := ct.verify(file, i)
		if err != nil {
			return nil, &ErrNotKept{disk.ErrGone}
		}
		c.releaseUnlocked(b)
	}
	if !file.Whole() {
		return nil, &ErrNotKept{cmp.Or(refused, file.Failed(), disk.ErrGone)}
	}
	return file, nil
}
