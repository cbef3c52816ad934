package cache

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/mlflowfs/mlflowfs/cache/disk"
	"github.com/mlflowfs/mlflowfs/cache/limit"
)

// Downloader copies contents into files of a directory.
//
// A file grows under a name of its own beside its place ([disk.Part]) and is moved
// there when it is whole, its size is right, and its checksum where the origin
// gives one. It is a content like any other, which is kept in that file and read
// whole: an answer that breaks off is resumed by the same rules, and so is a
// download that was interrupted, if the origin tells by a validator that it is
// still the same content.
type Downloader struct {
	Root     *os.Root // where names are relative to
	Parallel int      // requests of one file at once

	// Limit bounds the requests of all files at once.
	Limit *limit.Requests

	// Progress is told of bytes that are there; n may be negative where some are
	// to come again. It is called by many at once.
	Progress func(n int64)

	begin sync.Once
	cache *Cache
}

const downloadMemory = 32 << 20 // bytes of blocks, of all files

// ErrDamaged says that what came is not what the origin's checksum says.
var ErrDamaged = errors.New("the checksum is wrong")

// Download brings the content of key to the file name, replacing what is
// there.
func (d *Downloader) Download(ctx context.Context, key Key, src Source, name string) error {
	d.begin.Do(func() {
		d.cache = New(Options{Memory: downloadMemory, Parallel: d.Parallel, Fill: 1 << 62})
		d.cache.limit = d.Limit
	})
	dir, id := path.Split(name)
	own := fmt.Sprintf("%s.mlflowfs-%016x", dir, xxhash.Sum64String(id))
	part, err := disk.OpenPart(d.Root, own+".part", own+".rec")
	if errors.Is(err, disk.ErrBusy) {
		return fmt.Errorf("%s is being downloaded by another mlflowfs: wait for it, or choose another directory", name)
	}
	if err != nil {
		return err
	}
	defer part.Close()
	for {
		x := &download{d: d, part: part, src: src, ctx: ctx}
		err = x.run(key)
		switch changed := errors.Is(err, ErrChanged); {
		case err == nil:
			return part.Commit(name)
		case changed && x.resumed: // what was left is of an older content
			if err := part.Forget(); err != nil {
				return err
			}
			d.progress(-x.there)
		case changed || errors.Is(err, ErrDamaged) || !part.Resumable():
			return errors.Join(err, part.Remove())
		default:
			return err
		}
	}
}

func (d *Downloader) progress(n int64) {
	if d.Progress != nil {
		d.Progress(n)
	}
}

// download is one file on its way.
type download struct {
	d       *Downloader
	part    *disk.Part
	src     Source
	ctx     context.Context
	resumed bool  // begun with what an earlier one left
	there   int64 // bytes that Progress was told of

	mu   sync.Mutex // guards sums
	sums Sums       // as the origin gives them
}

// ReadRange asks the origin, until the download ends.
func (x *download) ReadRange(ctx context.Context, off, n int64, validator string) (*Body, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(x.ctx, func() { cancel(context.Cause(x.ctx)) })
	b, err := x.src.ReadRange(ctx, off, n, validator)
	if err != nil {
		stop()
		cancel(nil)
		return nil, err
	}
	x.mu.Lock()
	if b.MD5 != nil || b.CRC32C != nil {
		x.sums = b.Sums
	}
	x.mu.Unlock()
	body := *b
	body.ReadCloser = &endingBody{b.ReadCloser, func() { stop(); cancel(nil) }}
	return &body, nil
}

// Origin is that of the source.
func (x *download) Origin() string { return originOf(x.src) }

// endingBody lets go of what the body's request has, when it is closed.
type endingBody struct {
	io.ReadCloser
	end func()
}

func (b *endingBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

// run brings the content into the part.
func (x *download) run(key Key) (err error) {
	if key.Size > MaxSize {
		return fmt.Errorf("its size is given as %d bytes, which no store can have: look at the artifact there", key.Size)
	}
	if key.Size == 0 {
		f, err := x.part.Create(disk.Key(key), "")
		if err == nil {
			f.Close()
		}
		return err
	}
	c := x.d.cache
	c.mu.Lock()
	ct := c.newContent(key, x, true)
	ct.home = x.part
	ct.ahead.unit = maxUnit
	ct.opened()
	c.mu.Unlock()
	ct.attach()
	c.mu.Lock()
	ct.fill(0)
	c.mu.Unlock()
	x.resumed = ct.store.file != nil
	f := &File{ct: ct, Whole: true, Later: true, reader: prefetcher{next: -1}}
	err = x.follow(f)
	c.mu.Lock()
	if err != nil {
		ct.kill(err)
	}
	for ct.life.work > 0 { // what came is written, and marked
		c.ended.Wait()
	}
	file := ct.store.file
	c.mu.Unlock()
	if err == nil {
		err = ct.unwritten()
	}
	if err == nil && !file.Complete() {
		err = errors.New("not all of it was written")
	}
	c.mu.Lock()
	ct.kill(err)
	c.mu.Unlock()
	f.Close()
	return err
}

// unwritten is why the content's file has not all that came.
func (ct *content) unwritten() error {
	ct.c.mu.Lock()
	file, refused := ct.store.file, ct.store.refused
	ct.c.mu.Unlock()
	if file == nil {
		return refused
	}
	return file.Failed()
}

// follow reads the file from its beginning to its end as it comes, and holds it
// against the origin's checksum, where there is one.
func (x *download) follow(f *File) error {
	p := make([]byte, 2*BlockSize)
	var sum hash.Hash
	var want []byte
	for off := int64(0); off < f.Size(); {
		n, err := f.ReadAt(x.ctx, p, off)
		if err != nil && err != io.EOF {
			return err
		}
		if off == 0 {
			sum, want = x.checksum()
		}
		if sum != nil {
			sum.Write(p[:n])
		}
		off += int64(n)
		x.there += int64(n)
		x.d.progress(int64(n))
		if err := f.ct.unwritten(); err != nil {
			return err
		}
	}
	if sum == nil || bytes.Equal(sum.Sum(nil), want) {
		return nil
	}
	return fmt.Errorf("%w: it is %s, and the origin says %s", ErrDamaged, hex.EncodeToString(sum.Sum(nil)), hex.EncodeToString(want))
}

// checksum is how to make the one that the origin gives, and what it is; nil
// where it gives none.
func (x *download) checksum() (hash.Hash, []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.sums.CRC32C != nil:
		return crc32.New(crc32.MakeTable(crc32.Castagnoli)), binary.BigEndian.AppendUint32(nil, *x.sums.CRC32C)
	case x.sums.MD5 != nil:
		return md5.New(), x.sums.MD5
	}
	return nil, nil
}
