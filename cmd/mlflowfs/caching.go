package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// caching is the flags that say where bytes are kept, and how many.
type caching struct {
	dir       string
	size      size
	memory    size
	parallel  int
	fillLimit size
	fillSet   func() bool
}

const (
	noCache       = "none"
	maxMemory     = 1 << 30
	leastMemory   = 64 << 20
	blocksOnDisk  = 32 << 20 // memory for blocks where the disk keeps them, too
	goOverhead    = 8        // one in so many bytes of the memory limit is not Go's heap
	perName       = 10 << 10 // of the memory limit, for each name that the kernel knows
	readsPart     = 4        // one in so many bytes of the memory limit may be buffers of reads that wait
	perRead       = 256 << 10
	defaultOnDisk = 10 << 30
)

// bind gives a command the flags of the cache's place and size.
func (c *caching) bind(set *settings) {
	fl := set.fl
	c.size = defaultOnDisk
	fl.StringVar(&c.dir, "cache-dir", defaultCacheDir(), "directory that keeps what was read, for all mounts of this user; none: memory alone")
	set.bind("cache-dir", "MLFLOWFS_CACHE_DIR")
	fl.Var(&c.size, "cache-size", "disk for it, at most; a twentieth of the disk is left free in any case")
	set.bind("cache-size", "MLFLOWFS_CACHE_SIZE")
	fl.IntVar(&c.parallel, "parallelism", 8, "requests that fetch ahead at once, for one file; four times as many for all")
	set.bind("parallelism", "MLFLOWFS_PARALLELISM")
}

// bindMemory gives a command the flags of a daemon's cache.
func (c *caching) bindMemory(set *settings) {
	fl := set.fl
	c.memory = size(defaultMemory())
	fl.Var(&c.memory, "memory-limit", "memory for everything: blocks, windows, buffers")
	set.bind("memory-limit", "MLFLOWFS_MEMORY_LIMIT")
	fl.Var(&c.fillLimit, "fill-limit", "files up to this size are fetched whole once a program maps them, jumps in them, or touches them in a model; 0: never (default: half of what the cache can hold)")
	set.bind("fill-limit", "MLFLOWFS_FILL_LIMIT")
	fl.Lookup("fill-limit").DefValue = "" // the words tell
	c.fillSet = func() bool { return set.set("fill-limit") }
}

// defaultCacheDir is below the user's cache directory; "none" where there is
// none.
func defaultCacheDir() string {
	dir, err := os.UserCacheDir()
	switch {
	case err != nil && os.Geteuid() == 0: // as mount(8) and systemd start it
		dir = "/var/cache"
	case err != nil:
		return noCache
	}
	return filepath.Join(dir, "mlflowfs")
}

// check says what of the flags can't be.
func (c *caching) check() error {
	switch {
	case c.memory != 0 && c.memory < leastMemory:
		return usageError{fmt.Errorf("--memory-limit %s: it must be at least %s", &c.memory, sizeOf(leastMemory))}
	case c.size < 16<<20 && c.dir != noCache:
		return usageError{fmt.Errorf("--cache-size %s: it must be at least 16 MiB (--cache-dir none keeps nothing on disk)", &c.size)}
	case c.parallel < 1 || c.parallel > 256:
		return usageError{fmt.Errorf("--parallelism %d: it must be from 1 to 256", c.parallel)}
	case c.dir == "":
		return usageError{errors.New("--cache-dir is empty: name a directory, or none")}
	}
	return nil
}

func sizeOf(n int64) *size {
	s := size(n)
	return &s
}

// disk opens the directory; nil where there is to be none.
func (c *caching) disk(log *slog.Logger) (*disk.Dir, error) {
	if c.dir == noCache {
		return nil, nil
	}
	d, err := disk.Open(c.dir, disk.Options{Bound: int64(c.size), Scope: scope(), Log: log})
	if err != nil {
		return nil, fmt.Errorf("the cache directory can't be used: %w (--cache-dir names another, or none)", err)
	}
	return d, nil
}

// scope is what one location may mean different bytes with: where the stores'
// clients are sent to, and as whom in MLflow's own sense.
func scope() string {
	var b strings.Builder
	for _, v := range []string{
		"MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_CONFIG_FILE",
		"STORAGE_EMULATOR_HOST", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_DOMAIN", "MLFLOW_WORKSPACE",
	} {
		fmt.Fprintf(&b, "%s=%s\n", v, os.Getenv(v))
	}
	return b.String()
}

// open makes the cache of a daemon; the disk below it is nil where there is
// none.
func (c *caching) open(log *slog.Logger) (*cache.Cache, *disk.Dir, error) {
	d, err := c.disk(log)
	if err != nil && c.dir == defaultCacheDir() {
		log.Warn("nothing is kept on disk", "err", err)
	} else if err != nil {
		return nil, nil, err
	}
	opt := cache.Options{Disk: d, Memory: int64(c.memory) / 2, Parallel: c.parallel, Log: log}
	if opt.Fill = opt.Memory / 2; d != nil {
		opt.Memory = min(int64(c.memory)/8, blocksOnDisk)
		opt.Fill = int64(c.size) / 2
	}
	if c.fillSet != nil && c.fillSet() {
		opt.Fill = min(int64(c.fillLimit), 2*opt.Fill)
	}
	return newCache(opt, int64(c.memory)), d, nil
}

// newCache makes the process's cache, and has the Go runtime keep to the limit
// of memory.
func newCache(opt cache.Options, limit int64) *cache.Cache {
	debug.SetMemoryLimit(limit - limit/goOverhead)
	debug.SetGCPercent(50) // a hundred thousand names are no garbage
	return cache.New(opt)
}

// maxRead is how much the kernel may ask for at a time: each such request has
// a buffer of the daemon's.
func (c *caching) maxRead() int {
	if c.memory < 512<<20 {
		return 256 << 10
	}
	return 1 << 20
}

// maxReads is how many reads may wait at once, each with a buffer of what the
// kernel reads ahead. Those of one silent origin are not to keep the others with
// the kernel.
func (c *caching) maxReads() int { return int(min(max(64, c.memory/readsPart/perRead), 1<<15)) }

// maxNames is how many names the kernel may know.
func (c *caching) maxNames() int { return int(c.memory / perName) }

// defaultMemory is a quarter of the machine's memory, or of the control
// group's where that has less, and at most maxMemory.
func defaultMemory() int64 {
	total := int64(4 * maxMemory)
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kib int64
		if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kib); err == nil {
			total = min(total, kib<<10)
		}
	}
	if n := cgroupMemory(); n > 0 {
		total = min(total, n)
	}
	return max(total/4, leastMemory)
}

// cgroupMemory is the memory that this process's control group may use
// (memory.max of it and of those above it; cgroup v2), or 0.
func cgroupMemory() (least int64) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(own) {
		path, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "0::")
		for ok {
			b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", path, "memory.max"))
			if n, perr := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && perr == nil && (least == 0 || n < least) {
				least = n
			}
			if path == "/" || path == "." || path == "" {
				break
			}
			path = filepath.Dir(path)
		}
	}
	return least
}
