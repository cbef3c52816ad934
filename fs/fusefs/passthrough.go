package fusefs

import (
	"log/slog"
	"os"
	"sync"

	"github.com/mlflowfs/mlflowfs/fs"
)

// passthrough has the kernel read whole files of the cache by itself. Where it can't, that
// is switched off, and said once in the log.
type passthrough struct {
	log     *slog.Logger
	off     bool // not wanted
	session *session

	tried sync.Once // the first backing file tells whether the kernel takes any
	works bool
}

// backing is the file that the kernel may read in the place of h, or nil.
func (p *passthrough) backing(h fs.Handle) *os.File {
	b, ok := h.(fs.Backed)
	if !ok || p.off {
		return nil
	}
	f := b.Backing()
	if f == nil {
		return nil
	}
	p.tried.Do(func() {
		id, errno := p.session.back(f)
		if errno != 0 {
			p.log.Info("the kernel can't read files of the cache by itself (passthrough): it needs Linux 6.9, root, and a cache on a disk of its own", "err", errno)
			return
		}
		p.session.unback(id)
		p.works = true
	})
	if !p.works {
		return nil
	}
	return f
}
