package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/cache/disk"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

const (
	noCache      = "none"
	maxMemory    = 1 << 30
	leastMemory  = 64 << 20
	blocksOnDisk = 32 << 20 // memory for blocks where the disk keeps them, too
	goOverhead   = 8        // one in so many bytes of the memory limit is not Go's heap
	perName      = 10 << 10 // of the memory limit, for each name that the kernel knows
	readsPart    = 4        // one in so many bytes of the memory limit may be buffers of reads that wait
	perRead      = 256 << 10
)

// defaultCacheDir is below the user's cache directory; "none" where there is
// none.
func defaultCacheDir(env rest.Env) string {
	dir := userDir(env, "XDG_CACHE_HOME", ".cache")
	switch {
	case dir == "" && os.Geteuid() == 0: // as mount(8) and systemd start it
		dir = "/var/cache"
	case dir == "":
		return noCache
	}
	return filepath.Join(dir, "mlflowfs")
}

// openDisk opens the cache's directory; nil where there is to be none.
func (c *ClientConfig) openDisk(log *slog.Logger) (*disk.Dir, error) {
	if c.Cache.Dir == noCache {
		return nil, nil
	}
	d, err := disk.Open(c.Cache.Dir, disk.Options{Bound: int64(c.Cache.Size), Scope: storeScope(c.Env), Log: log})
	if err != nil {
		return nil, fmt.Errorf("the cache directory can't be used: %w (--cache-dir names another, or none)", err)
	}
	return d, nil
}

// storeScope is what one location may mean different bytes with: where the stores'
// clients are sent to, and as whom in MLflow's own sense.
func storeScope(env rest.Env) string {
	var b strings.Builder
	for _, v := range []string{
		"MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_CONFIG_FILE",
		"STORAGE_EMULATOR_HOST", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_DOMAIN", "HADOOP_CONF_DIR", "HADOOP_HOME", "HADOOP_USER_NAME", "MLFLOW_KERBEROS_USER", "MLFLOW_KERBEROS_TICKET_CACHE", "KRB5CCNAME", "MLFLOW_WORKSPACE",
	} {
		fmt.Fprintf(&b, "%s=%s\n", v, env(v))
	}
	return b.String()
}

// openCache makes the cache of a daemon; the disk below it is nil where there is
// none. A default directory that can't be used is done without.
func (c *ClientConfig) openCache(log *slog.Logger) (*cache.Cache, *disk.Dir, error) {
	d, err := c.openDisk(log)
	if err != nil && c.Cache.Dir == defaultCacheDir(c.Env) {
		log.Warn("nothing is kept on disk", "err", err)
	} else if err != nil {
		return nil, nil, err
	}
	opt := cache.Options{Disk: d, Memory: int64(c.Cache.Memory) / 2, Parallel: c.Cache.Parallel, Log: log}
	if opt.Fill = opt.Memory / 2; d != nil {
		opt.Memory = min(int64(c.Cache.Memory)/8, blocksOnDisk)
		opt.Fill = int64(c.Cache.Size) / 2
	}
	if limit := c.Cache.FillLimit; !limit.auto {
		opt.Fill = min(int64(limit.size), 2*opt.Fill)
	}
	return c.newCache(opt, int64(c.Cache.Memory)), d, nil
}

// newCache makes the process's cache, and has the Go runtime keep to the limit
// of memory.
func (c *ClientConfig) newCache(opt cache.Options, limit int64) *cache.Cache {
	debug.SetMemoryLimit(limit - limit/goOverhead)
	debug.SetGCPercent(50) // a hundred thousand names are no garbage
	// Large temporary files go, as tmpfiles.d(5) has it, not to /tmp, which may be memory.
	const large = "/var/tmp"
	if st, err := os.Stat(large); err == nil && st.IsDir() && c.Env("TMPDIR") == "" {
		opt.TempDir = large
	}
	return cache.New(opt)
}

// maxRead is how much the kernel may ask for at a time: each such request has
// a buffer of the daemon's.
func (c *cacheConfig) maxRead() int {
	if c.Memory < 512<<20 {
		return 256 << 10
	}
	return 1 << 20
}

// maxReads is how many reads may wait at once, each with a buffer of what the
// kernel reads ahead. Those of one silent origin are not to keep the others with
// the kernel.
func (c *cacheConfig) maxReads() int { return int(min(max(64, c.Memory/readsPart/perRead), 1<<15)) }

// maxNames is how many names the kernel may know.
func (c *cacheConfig) maxNames() int { return int(c.Memory / perName) }

// defaultMemory is a quarter of the machine's memory, or of the control
// group's where that has less, and at most maxMemory.
func defaultMemory(rest.Env) string {
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
	limit := size(max(total/4, leastMemory))
	return limit.String()
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
