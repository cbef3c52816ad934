package cache

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// counters are what a Cache did since it was made.
type counters struct {
	memory, disk, misses atomic.Int64 // blocks
	origin               atomic.Int64 // bytes
	requests, failures   atomic.Int64
	evicted, damaged     atomic.Int64 // blocks, contents
	fetches              atomic.Int64
}

// Stats is what a Cache holds and did.
type Stats struct {
	Wanted
	Asked
	Held
	Open    int `json:"open_contents"`
	Fetches int `json:"fetches"` // running, or waiting for their turn

	Transfers []Transfer `json:"transfers"` // the largest, at most maxTransfers
}

// Wanted is the blocks, of up to [BlockSize] bytes, that programs wanted: each is
// counted each time that a program wants bytes of it.
type Wanted struct {
	MemoryHits int64 `json:"memory_hits"` // that were in memory
	DiskHits   int64 `json:"disk_hits"`   // that were on disk
	Misses     int64 `json:"misses"`      // that had to be waited for
	Evicted    int64 `json:"evicted"`     // that left memory for others
	Damaged    int64 `json:"damaged"`     // contents that were found damaged on disk
}

// Asked is what was asked of origins.
type Asked struct {
	OriginBytes    int64 `json:"origin_bytes"`    // that came from them, and were taken
	OriginRequests int64 `json:"origin_requests"` // for bytes
	OriginFailures int64 `json:"origin_failures"` // of these
}

// Held is the bytes that are held, and may be.
type Held struct {
	Memory      int64 `json:"memory_bytes"` // of blocks
	MemoryLimit int64 `json:"memory_limit_bytes"`
	Disk        int64 `json:"disk_bytes"` // by all processes
	DiskLimit   int64 `json:"disk_limit_bytes"`
}

// Transfer is a content that is on its way.
type Transfer struct {
	Location string `json:"-"` // which may hold a credential
	Size     int64  `json:"size"`
	Here     int64  `json:"here"` // bytes
}

const maxTransfers = 20

// HitRate is the share of wanted blocks that were here, from 0 to 1.
func (s Wanted) HitRate() float64 {
	hits := s.MemoryHits + s.DiskHits
	if all := hits + s.Misses; all > 0 {
		return float64(hits) / float64(all)
	}
	return 0
}

// Stats says what the cache holds and did.
func (c *Cache) Stats() Stats {
	s := Stats{
		Wanted: Wanted{
			MemoryHits: c.did.memory.Load(), DiskHits: c.did.disk.Load(), Misses: c.did.misses.Load(),
			Evicted: c.did.evicted.Load(), Damaged: c.did.damaged.Load(),
		},
		Asked:     Asked{OriginBytes: c.did.origin.Load(), OriginRequests: c.did.requests.Load(), OriginFailures: c.did.failures.Load()},
		Held:      Held{MemoryLimit: c.opt.Memory},
		Transfers: []Transfer{},
	}
	if d := c.opt.Disk; d != nil {
		s.Disk, s.DiskLimit = d.Used(), d.Bound()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Memory, s.Open = c.blocks.Total(), c.open
	for _, ct := range c.contents {
		s.Fetches += ct.fetch.running
		if ct.fetch.running > 0 || ct.fetch.stream {
			s.Transfers = append(s.Transfers, Transfer{ct.key.Location, ct.key.Size, ct.here()})
		}
	}
	slices.SortFunc(s.Transfers, func(a, b Transfer) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Location, b.Location))
	})
	s.Transfers = s.Transfers[:min(len(s.Transfers), maxTransfers)]
	return s
}

// here is how many bytes of the content are on disk, or else in memory. c.mu
// is held.
func (ct *content) here() int64 {
	n := int64(ct.store.blocks) * BlockSize
	if f := ct.store.file; f != nil {
		n = max(n, f.Bytes())
	}
	return min(n, ct.key.Size)
}

// Here is how many bytes of a content are kept: on disk, or else in memory.
func (c *Cache) Here(key Key) int64 {
	c.mu.Lock()
	n := int64(0)
	if ct := c.contents[key]; ct != nil {
		n = ct.here()
	}
	c.mu.Unlock()
	if d := c.opt.Disk; d != nil && n == 0 {
		n = min(d.Has(disk.Key(key)), key.Size)
	}
	return n
}
