package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// What a mount opens: some for itself; connections, of which so many stay when they
// are idle; and of each file of the cache that a program has open, its bytes and its
// record.
const (
	ownDescriptors  = 64
	idleConnections = 256
	perCachedFile   = 2
	manyFiles       = 1000 // that programs have open at once: a data loader's shards
)

func (o *options) checkDescriptors() finding {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return finding{"descriptors", lesser, err.Error(), ""}
	}
	return descriptors(limit.Cur, o.Cache.Parallel) // Go has raised it to the hard limit
}

// descriptors says whether a mount that may open so many can serve many open files.
func descriptors(limit uint64, parallel int) finding {
	rest := int64(min(limit, 1<<32)) - ownDescriptors - idleConnections - int64(4*parallel)
	files := max(rest/perCachedFile, 0)
	words := fmt.Sprintf("a mount may open %d: enough for its connections and about %d files that are read at once", limit, files)
	if files >= manyFiles {
		return finding{"descriptors", well, words, ""}
	}
	return finding{"descriptors", lesser, words + "; what is over fails with \"Input/output error\", or is read past the cache",
		"raise the hard limit: `ulimit -Hn 65536` as root before the mount, LimitNOFILE=65536 in its systemd unit, nofile in /etc/security/limits.conf"}
}
