// Package count tells how a mount did its work, and not only what came of it.
// A test of speed or of a cache holds counts beside the bytes: a read that gives
// the right bytes by asking the origin again is a fault that no comparison of
// bytes finds.
//
//	what                         | counted by          | where it is seen
//	-----------------------------+---------------------+------------------------------------
//	requests of an origin        | [Origin], [Of]      | a proxy before the real server
//	bytes that an origin sent    | [Origin.Bytes]      | the bodies below one path
//	READs of the kernel          | [Reads]             | the log, with [ReadsInLog]
//	hits and misses of the cache | [CacheOf]           | .mlflowfs/status.json of the mount
//	operations on the disk       | [Tally]             | a fault.Disk below the cache
//	fsyncs                       | [Tally]             | the operation "fsync" there
//	system calls                 | [Syscalls]          | strace(1), from now until it is stopped
//
// Everything is counted from outside: no program is built in another way to be
// counted. READs are to be held by their bytes: a kernel that reclaims memory
// (DAMON) lets single pages of a file go at any time, and asks for them again.
package count

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Tally counts events by their names. The zero Tally is ready, and any number
// of goroutines may use it.
type Tally struct {
	mu sync.Mutex // guards n
	n  map[string]int
}

// Add counts one event.
func (t *Tally) Add(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = map[string]int{}
	}
	t.n[name]++
}

// Of is how many events had a name that begins with one of prefixes; without
// any, how many there were.
func (t *Tally) Of(prefixes ...string) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, k := range t.n {
		if len(prefixes) == 0 || slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			n += k
		}
	}
	return n
}

// Reset counts from zero.
func (t *Tally) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n = nil
}

// String lists the names with their counts, the most frequent first.
func (t *Tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	names := slices.SortedFunc(maps.Keys(t.n), func(a, b string) int { return cmp.Or(cmp.Compare(t.n[b], t.n[a]), cmp.Compare(a, b)) })
	for i, name := range names {
		names[i] = fmt.Sprint(name, ": ", t.n[name])
	}
	return strings.Join(names, ", ")
}

// Reads are the READs that the kernel has sent to a daemon.
type Reads struct{ Requests, Bytes int }

// Logged are the flags with which a daemon logs its READs.
var Logged = []string{"--debug-fuse", "--log-level", "debug"}

var readLine = regexp.MustCompile(`: READ n\d+ \{Fh \d+ \[\d+ \+(\d+)\)`)

// ReadsInLog counts the READs in the log of a daemon that has the flags
// [Logged].
func ReadsInLog(log string) (r Reads) {
	for _, m := range readLine.FindAllStringSubmatch(log, -1) {
		n, _ := strconv.Atoi(m[1])
		r.Requests++
		r.Bytes += n
	}
	return r
}

// Cache is what a mount's cache did since the mount was made. Blocks are of up
// to 128 KiB, and are counted each time that a program wants bytes of one.
type Cache struct {
	MemoryHits     int `json:"memory_hits"`     // blocks that were in memory
	DiskHits       int `json:"disk_hits"`       // blocks that were on disk
	Misses         int `json:"misses"`          // blocks that had to be waited for
	Damaged        int `json:"damaged"`         // files that were found damaged on disk
	OriginBytes    int `json:"origin_bytes"`    // that came from origins
	OriginRequests int `json:"origin_requests"` // for bytes
}

// Hits are the blocks that were in memory or on disk.
func (c Cache) Hits() int { return c.MemoryHits + c.DiskHits }

// Since is what came after earlier.
func (c Cache) Since(earlier Cache) Cache {
	return Cache{
		c.MemoryHits - earlier.MemoryHits, c.DiskHits - earlier.DiskHits, c.Misses - earlier.Misses,
		c.Damaged - earlier.Damaged, c.OriginBytes - earlier.OriginBytes, c.OriginRequests - earlier.OriginRequests,
	}
}

// Status reads what the mount at dir says of itself into v, as JSON: that is its
// .mlflowfs/status.json. The file is read by a process of its own: a test must not
// wait on its own threads for a mount.
func Status(dir string, v any) error {
	out, err := exec.Command("timeout", "60", "cat", filepath.Join(dir, ".mlflowfs", "status.json")).Output()
	if err == nil {
		err = json.Unmarshal(out, v)
	}
	if err != nil {
		return fmt.Errorf("the status of the mount at %s: %w", dir, err)
	}
	return nil
}

// CacheOf asks the mount at dir.
func CacheOf(dir string) (Cache, error) {
	var s struct{ Cache Cache }
	err := Status(dir, &s)
	return s.Cache, err
}
