package cache

import (
	"math"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// BlockSize is the unit of caching, in bytes. It bounds what a small read
// moves where the origin honours ranges.
const BlockSize = 1 << 20

// Options bound a Cache. A zero field takes the default beside it.
type Options struct {
	Bytes      int64         // of blocks in memory (256 MiB)
	SpoolDir   string        // where spools lie (os.TempDir())
	SpoolBytes int64         // of spools that nobody has open (10 GiB)
	Parallel   int           // fetches ahead of the reader, for one content (4)
	Linger     time.Duration // how long a spool goes on filling after its last Close (30 s)
}

// Key identifies one content: where it lies, how long it is, and, where the
// listing tells, what version of it.
type Key struct {
	Location string // unique in the process
	Size     int64  // bytes; every answer is held against it
	Version  string // a validator from the listing, of the kind that Body has, or empty
}

// Cache is a set of contents. Its methods may be called by many at once.
type Cache struct {
	opt Options

	// mu guards everything below and in every content; nothing that waits is
	// done under it, and of the locks here only spool.mu is taken inside it.
	mu       sync.Mutex
	contents map[Key]*content
	blocks   *simplelru.LRU[blockKey, []byte]
	held     int64 // bytes in blocks
	spools   *simplelru.LRU[*content, *spool]
	spooled  int64 // bytes promised to spools
}

type blockKey struct {
	of    *content
	index int64
}

// maxSpools bounds the open files that spools cost.
const maxSpools = 128

// New makes an empty Cache.
func New(opt Options) *Cache {
	if opt.Bytes <= 0 {
		opt.Bytes = 256 << 20
	}
	if opt.SpoolDir == "" {
		opt.SpoolDir = os.TempDir()
	}
	if opt.SpoolBytes <= 0 {
		opt.SpoolBytes = 10 << 30
	}
	if opt.Parallel <= 0 {
		opt.Parallel = 4
	}
	if opt.Linger <= 0 {
		opt.Linger = 30 * time.Second
	}
	c := &Cache{opt: opt, contents: map[Key]*content{}}
	var err error
	if c.blocks, err = simplelru.NewLRU(math.MaxInt, c.evicted); err == nil {
		c.spools, err = simplelru.NewLRU[*content, *spool](math.MaxInt, nil)
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
	defer c.mu.Unlock()
	ct := c.contents[key]
	if ct == nil {
		ct = &content{c: c, key: key, src: src, keep: keep, flights: map[int64]*flight{}, validator: key.Version}
		c.contents[key] = ct
	}
	ct.refs++
	if ct.linger != nil {
		ct.linger.Stop()
		ct.linger = nil
	}
	return &File{ct: ct, next: -1}
}

// Held returns the bytes of blocks in memory.
func (c *Cache) Held() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held
}

// add puts a block into the LRU. c.mu is held.
func (c *Cache) add(ct *content, index int64, data []byte) {
	k := blockKey{ct, index}
	if c.blocks.Contains(k) {
		return
	}
	c.blocks.Add(k, data)
	c.held += int64(len(data))
	ct.resident++
	for c.held > c.opt.Bytes {
		c.blocks.RemoveOldest()
	}
}

// evicted is called by the LRU for each block that leaves it. c.mu is held.
func (c *Cache) evicted(k blockKey, data []byte) {
	c.held -= int64(len(data))
	k.of.resident--
	k.of.forgetIfIdle()
}

// trimSpools lets go of the spools used longest ago that nobody has open.
// c.mu is held.
func (c *Cache) trimSpools() {
	for _, ct := range c.spools.Keys() { // oldest first
		if c.spooled <= c.opt.SpoolBytes && c.spools.Len() <= maxSpools {
			return
		}
		if ct.refs == 0 {
			ct.dropSpool()
		}
	}
}
