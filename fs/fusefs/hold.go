package fusefs

import (
	"os"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Session is a mount apart from the daemon that answers it: while somebody has its
// descriptors, programs that use the mount wait for the next daemon instead of failing.
type Session struct {
	Device *os.File // /dev/fuse
	File   *os.File // what the daemon knows: see package sessionfile
}

// scopeOf is what the numbers of a session hold for.
func scopeOf(opt MountOptions) uint64 { return xxhash.Sum64String(opt.Scope) }

// Age is how long ago the mount was made, by this daemon or by the first of those before it.
func (m *Mounted) Age() time.Duration { return time.Since(m.a.mounted) }

// TakenOver is how often its session was taken over since.
func (m *Mounted) TakenOver() int { return int(m.a.file.TakenOver()) }
