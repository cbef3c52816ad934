//go:build !linux

package fusefs

import (
	"errors"
	"os"
	"os/exec"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mlflowfs/mlflowfs/fs"
)

// Elsewhere than on Linux the programs are built, and nobody tries them: there
// is no passthrough, and a mount has one process.
const (
	detached  = 0x80000 // MNT_FORCE
	directly  = 0
	pastPages = 0
)

func unmountUnprivileged(point string, _ bool) *exec.Cmd { return exec.Command("umount", point) }

// MayMount tells whether this process mounts and unmounts by itself.
func MayMount() bool { return os.Geteuid() == 0 }

func thread() uint32 { return uint32(os.Getpid()) }

// serve mounts, and has requests answered until the mount is gone.
func serve(point string, a *adapter, o *fuse.MountOptions) (server, error) {
	server, err := fuse.NewServer(raw{fuse.NewDefaultRawFileSystem(), a}, point, o)
	if err != nil {
		return nil, err
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return nil, err
	}
	return server, nil
}

// Session gives none.
func (m *Mounted) Session() Session { return Session{} }

// LetGo does not.
func (m *Mounted) LetGo() error { return errors.ErrUnsupported }

// CheckSession takes none for one that can be taken up.
func CheckSession(Session, MountOptions) error { return errors.ErrUnsupported }

// TakeUp takes none up.
func TakeUp(string, *fs.Node, Session, MountOptions) (*Mounted, error) {
	return nil, errors.ErrUnsupported
}
