package fusefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// mountDevice mounts at point, and gives the /dev/fuse that the mount is of.
func mountDevice(point string, o *fuse.MountOptions) (fd int, err error) {
	options := append([]string{fmt.Sprint("max_read=", o.MaxWrite)}, o.Options...)
	if o.AllowOther {
		options = append(options, "allow_other")
	}
	if !MayMount() {
		return byFusermount(point, append(options, "ro", "fsname="+o.FsName, "subtype="+o.Name))
	}
	if fd, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return -1, err
	}
	options = append(options, fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d", fd, unix.S_IFDIR, os.Geteuid(), os.Getegid()))
	if err = unix.Mount(o.FsName, point, "fuse."+o.Name, directly, strings.Join(options, ",")); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// byFusermount has fusermount3 mount, which sends the device over a socket that it inherits
// (_FUSE_COMMFD in libfuse).
func byFusermount(point string, options []string) (fd int, err error) {
	program, err := exec.LookPath("fusermount3")
	if err != nil {
		program = "/bin/fusermount3" // for who has no PATH
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(ends[0])
	theirs := os.NewFile(uintptr(ends[1]), "fusermount3")
	defer theirs.Close()
	cmd := exec.Command(program, "-o", strings.Join(options, ","), "--", point)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{theirs}
	if out, err := cmd.CombinedOutput(); err != nil {
		if said := strings.TrimSpace(string(out)); said != "" {
			return -1, errors.New(said)
		}
		return -1, err
	}
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, flags, _, err := unix.Recvmsg(ends[0], make([]byte, 1), rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 || flags&unix.MSG_CTRUNC != 0 {
		return -1, errors.New("fusermount3 sends no device")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.New("fusermount3 sends no device")
	}
	return fds[0], nil
}

// neverPolled has the kernel know that the mount's files are not to be polled, before Go's
// poller asks for one that this process opens: the goroutine that would answer might wait
// for the same thread. go-fuse has a file for that, which no listing shows.
func neverPolled(point string) {
	fd, err := unix.Open(filepath.Join(point, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	unix.Close(fd)
}
