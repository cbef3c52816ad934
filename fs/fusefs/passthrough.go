package fusefs

import (
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mlflowfs/mlflowfs/fs"
)

// passthrough has the kernel read whole files of the cache by itself. Where it can't, that
// is switched off, and said once in the log.
type passthrough struct {
	log    *slog.Logger
	off    bool                        // not wanted
	server atomic.Pointer[fuse.Server] // nil until the mount answers

	tried sync.Once // the first backing file tells whether the kernel takes any
	works bool
}

// backing is the file that the kernel may read in the place of h, or nil.
func (p *passthrough) backing(h fs.Handle) *os.File {
	b, ok := h.(fs.Backed)
	if !ok || p.off {
		return nil
	}
	f, server := b.Backing(), p.server.Load()
	if f == nil || server == nil {
		return nil
	}
	p.tried.Do(func() {
		if err := canPass(server, f); err != nil {
			p.log.Info("the kernel can't read files of the cache by itself (passthrough): it needs Linux 6.9, root, and a cache on a disk of its own", "err", err)
			return
		}
		p.works = true
	})
	if !p.works {
		return nil
	}
	return f
}
