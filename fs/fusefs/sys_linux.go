package fusefs

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// What Linux has for mount(2), umount(2) and open(2).
const (
	detached  = syscall.MNT_DETACH
	directly  = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_RDONLY
	pastPages = syscall.O_DIRECT
)

// unmountUnprivileged is the command of a user other than root.
func unmountUnprivileged(point string, lazy bool) *exec.Cmd {
	args := []string{"-u"}
	if lazy {
		args = append(args, "-z")
	}
	return exec.Command("fusermount3", append(args, "--", point)...)
}

// MayMount tells whether this process mounts and unmounts by itself, which takes
// CAP_SYS_ADMIN. Others need fusermount3.
func MayMount() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	err := unix.Capget(&header, &have[0])
	return err == nil && have[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// thread is the calling thread, as a request names who asks.
func thread() uint32 { return uint32(unix.Gettid()) }
