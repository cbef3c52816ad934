package cache

import (
	"log/slog"
	"math"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// BlockSize is the unit of caching, in bytes: what the kernel asks a FUSE
// daemon for at a time, unless told otherwise. It bounds what a small read
// moves where the origin honours ranges.
const BlockSize = 128 << 10

// Options bound a Cache. A zero field takes the default beside it.
type Options struct {
	Memory   int64         // bytes of blocks in memory (64 MiB)
	Disk     *Disk         // what outlives the process; nil: nothing does
	TempDir  string        // where a stream goes that is too large for memory, without a Disk (os.TempDir())
	Parallel int           // requests at once that fetch ahead, for one content (8)
	Requests int           // requests at once, of all contents (4 times Parallel)
	Fill     int64         // contents of up to so many bytes are fetched whole once that pays (0: none)
	Linger   time.Duration // how long a stream or a fill goes on after the last Close (30 s)
	Log      *slog.Logger  // of damage, and of a disk that fails (none)
}

// Key identifies one content: where it lies, how long it is, and, where the
// listing tells, what version of it.
type Key struct {
	Location string // unique in the process, and with a Disk's scope beyond it
	Size     int64  // bytes; every answer is held against it
	Version  string // a validator from the listing, of the kind that Body has, or empty
}

// Cache is a set of contents. Its methods may be called by many at once.
type Cache struct {
	opt     Options
	gate    gate
	running sync.WaitGroup // fetches and streams
	did     counters

	// mu guards everything below and in every content; nothing that waits is
	// done under it. Before it, content.files is taken; inside it only the
	// mutexes of gate and Disk.
	mu       sync.Mutex
	contents map[Key]*content
	idle     *simplelru.LRU[*content, struct{}] // contents that nobody has open
	serial   uint64                             // contents that are another than the one before by their key
	latest   *simplelru.LRU[Key, uint64]        // their serials; a key that never changed has none
	open     int                                // contents that somebody has open
	blocks   *simplelru.LRU[blockKey, *block]
	held     int64    // bytes in blocks
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
	maxIdle = 10_000              // contents that are remembered while nobody has them open
	maxKeys = 10_000              // keys that are remembered to have changed
	maxFree = 4 << 20 / BlockSize // buffers that wait to be used again
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
	if opt.Disk != nil {
		opt.Disk.health.log = opt.Log
	}
	c := &Cache{opt: opt, gate: gate{free: opt.Requests}, contents: map[Key]*content{}}
	var err error
	if c.blocks, err = simplelru.NewLRU(math.MaxInt, c.evicted); err == nil {
		c.idle, err = simplelru.NewLRU[*content, struct{}](math.MaxInt, nil)
	}
	if err == nil {
		c.latest, err = simplelru.NewLRU[Key, uint64](maxKeys, nil)
	}
	if err != nil {
		panic(err) // only for a size below 1
	}
	return c
}

// Open gives a handle on the content of key. Bytes that are not there yet come
// from src; the first Open of a content decides which. keep false says that
// the content may change under its key: it is forgotten with its last handle.
func (c *Cache) Open(key Key, src Source, keep bool) *File {
	c.mu.Lock()
	ct := c.contents[key]
	if ct == nil {
		ct = &content{c: c, key: key, src: src, keep: keep, flights: map[int64]*flight{}, storing: map[int64]*block{}, validator: key.Version, unit: firstUnit}
		if !keep {
			c.isAnother(key)
		}
		ct.generation, _ = c.latest.Get(key)
		c.contents[key] = ct
	}
	ct.refs++
	if ct.refs == 1 {
		c.open++
		c.idle.Remove(ct)
	}
	if ct.linger != nil {
		ct.linger.Stop()
		ct.linger = nil
	}
	c.mu.Unlock()
	ct.attach()
	return &File{ct: ct, next: -1}
}

// isAnother notes that what comes next by key is another content. c.mu is held.
func (c *Cache) isAnother(key Key) {
	c.serial++
	c.latest.Add(key, c.serial)
}

// Wait returns when no fetch and no stream is on its way. No File may be read
// meanwhile.
func (c *Cache) Wait() { c.running.Wait() }

// Held returns the bytes of blocks in memory.
func (c *Cache) Held() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held
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

func (c *Cache) releaseUnlocked(b *block) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.release(b)
}

// add puts a block into the LRU. c.mu is held.
func (c *Cache) add(ct *content, index int64, b *block) {
	k := blockKey{ct, index}
	if c.blocks.Contains(k) {
		return
	}
	b.refs++
	c.blocks.Add(k, b)
	c.held += int64(cap(b.data))
	ct.resident++
	for c.held > c.opt.Memory {
		c.blocks.RemoveOldest()
	}
}

// evicted is called by the LRU for each block that leaves it. c.mu is held.
func (c *Cache) evicted(k blockKey, b *block) {
	c.held -= int64(cap(b.data))
	k.of.resident--
	c.did.evicted.Add(1)
	c.release(b)
}

// share is how many blocks one content may have on their way where memory
// alone keeps them. c.mu is held.
func (c *Cache) share() int64 {
	return c.opt.Memory / 2 / BlockSize / int64(max(c.open, 1))
}
