package cache

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/mlflowfs/mlflowfs/cache/disk"
	"github.com/mlflowfs/mlflowfs/cache/limit"
	"github.com/mlflowfs/mlflowfs/cache/lru"
)

// BlockSize is the unit of caching, in bytes. It is what a small read moves where the
// origin honours ranges, and no others near it bring more (regions).
const BlockSize = disk.BlockSize

// MaxSize is that of the largest file that is believed in, in bytes: twenty times
// that of the largest object of a store.
const MaxSize = 1 << 50

// Options bound a Cache. A zero field takes the default beside it.
type Options struct {
	Memory   int64         // bytes of blocks in memory (64 MiB)
	Disk     *disk.Dir     // what outlives the process; nil: nothing does
	TempDir  string        // where a stream goes that is too large for memory, without a Disk (os.TempDir)
	Parallel int           // requests at once that fetch ahead, for one content (8)
	Requests int           // requests at once, to one origin (4 times Parallel); 8 times as many to all
	Fill     int64         // contents of up to so many bytes are fetched whole once that pays (0: none)
	Linger   time.Duration // how long a stream or a fill goes on after the last Close (30 s)
	Log      *slog.Logger  // of damage (none)
}

// Key identifies one content: where it lies, how long it is, and, where the
// listing tells, what version of it.
type Key struct {
	Location string // unique in the process, and with a disk.Dir's scope beyond it
	Size     int64  // bytes; every answer is held against it
	Version  string // a validator from the listing, of the kind that Body has, or empty
}

// Cache is a set of contents. Its methods may be called by many at once.
type Cache struct {
	opt   Options
	limit *limit.Requests
	did   counters

	// mu guards everything below and in every content; nothing that waits is
	// done under it. Before it, blockStore.opening is taken; inside it only the
	// mutexes of limit and disk.
	mu       sync.Mutex
	contents map[Key]*content
	idle     *lru.Costed[*content, struct{}] // contents that nobody has open, by the memory that they take
	serial   uint64                          // contents that there were
	open     int                             // contents that somebody has open
	working  int                             // what goes on for contents
	ended    sync.Cond                       // some of that has ended
	blocks   *lru.Costed[blockKey, *block]
	free     [][]byte // buffers to use again
}

type blockKey struct {
	of    *content
	index int64
}

// block is a block's bytes in memory, and how many use them: the LRU, readers,
// writers. The last one gives the buffer back. refs is guarded by Cache.mu.
type block struct {
	data []byte // of a buffer of BlockSize
	refs int
}

const (
	idlePart = 4                   // one in so many bytes of Options.Memory may be what is known of idle contents
	maxFree  = 4 << 20 / BlockSize // buffers that wait to be used again
)

// New makes an empty Cache.
func New(opt Options) *Cache {
	if opt.Memory <= 0 {
		opt.Memory = 64 << 20
	}
	if opt.TempDir == "" {
		opt.TempDir = os.TempDir()
	}
	if opt.Parallel <= 0 {
		opt.Parallel = 8
	}
	if opt.Requests <= 0 {
		opt.Requests = 4 * opt.Parallel
	}
	if opt.Linger <= 0 {
		opt.Linger = 30 * time.Second
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	c := &Cache{opt: opt, limit: limit.New(opt.Requests, 8*opt.Requests), contents: map[Key]*content{}}
	c.blocks = lru.New(opt.Memory, c.evicted)
	c.ended.L = &c.mu
	c.idle = lru.New(opt.Memory/idlePart, func(ct *content, _ struct{}) {
		if ct.life.state == idle { // it was pushed out
			ct.kill(nil)
		}
	})
	return c
}

// Open gives a handle on the content of key. Bytes that are not there yet come
// from src; the first Open of a content decides which. keep false says that
// the content may change under its key: it is forgotten with its last handle.
func (c *Cache) Open(key Key, src Source, keep bool) *File {
	for {
		ct := c.content(key, src, keep)
		if ct.attach() {
			return &File{ct: ct, reader: prefetcher{next: -1}}
		}
		// What is on disk is another content: nothing of the old one is left.
		c.mu.Lock()
		ct.kill(nil)
		c.mu.Unlock()
		ct.closed()
	}
}

// content is the content of key, which the caller has open.
func (c *Cache) content(key Key, src Source, keep bool) *content {
	c.mu.Lock()
	defer c.mu.Unlock()
	ct := c.contents[key]
	if ct == nil {
		ct = c.newContent(key, src, keep)
		if c.opt.Disk != nil {
			ct.home = c.opt.Disk
		}
		c.contents[key] = ct
	}
	ct.opened()
	return ct
}

// newContent makes a content that is in no map. c.mu is held.
func (c *Cache) newContent(key Key, src Source, keep bool) *content {
	c.serial++
	ct := &content{c: c, key: key, src: src, generation: c.serial, validator: key.Version}
	ct.life.keep = keep
	ct.life.ctx, ct.life.cancel = context.WithCancelCause(context.Background())
	ct.store.writing = map[int64]*block{}
	ct.fetch.pending = map[int64]*pendingBlock{}
	ct.fetch.wait, ct.fetch.each = time.Hour, time.Hour // until they are known
	ct.ahead.unit = firstUnit
	return ct
}

// Wait returns when no fetch and no stream is on its way, and what they brought
// is written.
func (c *Cache) Wait() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.working > 0 {
		c.ended.Wait()
	}
}

// Held returns the bytes of blocks in memory.
func (c *Cache) Held() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.blocks.Total()
}

// Ahead is how many bytes may be fetched before anybody asks for them, beyond
// the files that are read: what Options.Fill allows, and memory where that alone
// keeps them.
func (c *Cache) Ahead() int64 {
	if c.opt.Disk == nil {
		return min(c.opt.Fill, c.opt.Memory/4)
	}
	return c.opt.Fill
}

// buffer gives a block with room for n bytes, which the caller holds. c.mu is
// not held.
func (c *Cache) buffer(n int64) *block {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last := len(c.free) - 1; last >= 0 {
		data := c.free[last]
		c.free = c.free[:last]
		return &block{data[:n], 1}
	}
	if n < BlockSize/2 { // a small file
		return &block{make([]byte, n), 1}
	}
	return &block{make([]byte, n, BlockSize), 1}
}

// release gives up one hold of b. c.mu is held.
func (c *Cache) release(b *block) {
	if b.refs--; b.refs == 0 && cap(b.data) == BlockSize && len(c.free) < maxFree {
		c.free = append(c.free, b.data)
	}
}

// hold takes one more hold of b, and gives what gives it up. c.mu is not held.
func (c *Cache) hold(b *block) (release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b.refs++
	return func() { c.releaseUnlocked(b) }
}

func (c *Cache) releaseUnlocked(b *block) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.release(b)
}

// add puts a block into the LRU. c.mu is held.
func (c *Cache) add(ct *content, index int64, b *block) {
	k := blockKey{ct, index}
	if c.blocks.Has(k) {
		return
	}
	b.refs++
	ct.store.blocks++
	c.blocks.Add(k, b, int64(cap(b.data)))
}

// evicted is called by the LRU for each block that leaves it. c.mu is held.
func (c *Cache) evicted(k blockKey, b *block) {
	k.of.store.blocks--
	c.did.evicted.Add(1)
	c.release(b)
}

// share is how many blocks one content may have on their way where memory
// alone keeps them. c.mu is held.
func (c *Cache) share() int64 {
	return c.opt.Memory / 2 / BlockSize / int64(max(c.open, 1))
}
