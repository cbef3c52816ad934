//go:build !linux

package fusefs

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Elsewhere than on Linux the programs are built, and nobody tries them: there
// is no passthrough, and no guard.
const (
	detached  = 0x80000 // MNT_FORCE
	directly  = 0
	pastPages = 0
)

func unmountUnprivileged(point string, _ bool) *exec.Cmd { return exec.Command("umount", point) }

// MayMount tells whether this process mounts and unmounts by itself.
func MayMount() bool { return os.Geteuid() == 0 }

func openBacking(*fuse.Server, *os.File) (int32, syscall.Errno) { return 0, syscall.ENOSYS }

func closeBacking(*fuse.Server, int32) {}

func thread() uint32 { return uint32(os.Getpid()) }

// Guard is the guard's whole life.
func Guard([]string) error { return errors.New("there are guards on Linux only") }

type guard struct{}

func startGuard(string, bool, *slog.Logger) *guard { return nil }

func (*guard) dismiss() {}
