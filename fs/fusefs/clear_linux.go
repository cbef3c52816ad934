package fusefs

import (
	"errors"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Reaper takes a mount away that no daemon answers any more, so that no "Transport endpoint
// is not connected" is left behind. It is made while the mount is there, since later its
// number, or its place, may be another's.
//
// A daemon that is killed lets go of its mount when its last thread ends. One that was just
// giving the kernel a page (FUSE_NOTIFY_STORE) may wait for a folio that a READ holds, which
// nobody answers any more: it can't be killed, and neither lets go. The connection is aborted
// then, which ends both.
type Reaper struct {
	point string
	minor int // of the mount's device: the number of its connection
	abort *os.File
}

// NewReaper makes the reaper of the mount at point, which it does not touch.
func NewReaper(point string) (*Reaper, error) {
	top, _, err := mountAt(point)
	if err != nil {
		return nil, err
	}
	if top == nil || top.FSType != "fuse."+fsName {
		return nil, errors.New(point + " is no mount of mlflowfs")
	}
	r := &Reaper{point: point, minor: top.Minor}
	r.abort, _ = os.OpenFile("/sys/fs/fuse/connections/"+strconv.Itoa(top.Minor)+"/abort", os.O_WRONLY, 0) // without it, umount(2) or the last descriptor's end aborts it
	return r, nil
}

// Clear ends a session that no daemon answers: programs that wait get errors, and the mount
// is taken away. The session's descriptors are closed. A nil Reaper only closes them.
func (r *Reaper) Clear(s Session) error {
	s.Close()
	if r == nil {
		return nil
	}
	if r.abort != nil {
		r.abort.WriteString("1")
		r.abort.Close()
	}
	if !r.Shown() {
		return nil
	}
	if MayMount() {
		return syscall.Unmount(r.point, unix.MNT_FORCE|unix.MNT_DETACH) // which aborts it, too
	}
	return Unmount(r.point, true)
}

// Shown tells whether the mount is in its place; it may be detached from there, or another be
// on top of it.
func (r *Reaper) Shown() bool {
	top, _, err := mountAt(r.point)
	return err == nil && top != nil && top.Minor == r.minor
}

// Ended tells whether the kernel has ended the session: there is no mount any more.
func (s Session) Ended() bool {
	if s.Device == nil {
		return false
	}
	ask := []unix.PollFd{{Fd: int32(s.Device.Fd())}}
	n, err := unix.Poll(ask, 0)
	return err == nil && n == 1 && ask[0].Revents&unix.POLLERR != 0
}

// Dying tells whether a process has ended, or can do nothing but end: one of whose threads
// the kernel keeps is not waited for otherwise.
func Dying(pid int) bool { return dying(uint32(pid)) }
