package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// openDevice says what to do where /dev/fuse can't be opened.
func openDevice() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, os.ErrNotExist):
		return errors.New("the kernel offers no FUSE here (/dev/fuse is missing): load the module with `modprobe fuse`, or give the container --device /dev/fuse")
	case errors.Is(err, syscall.EPERM):
		return errors.New("this container may not open /dev/fuse: start it with --device /dev/fuse")
	}
	return exitError{fmt.Errorf("this user may not open /dev/fuse (%w): let root run `chmod 666 /dev/fuse`, as udev does, or add the user to the group that may", err), exitFailed}
}

// sysctl is a value of sysctl(8); empty: this kernel has none of that name.
func sysctl(name string) string {
	b, _ := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	return strings.TrimSpace(string(b))
}

// noNamespace says what to do where a mount is possible neither in the usual way, which
// was tried, nor in a namespace.
func noNamespace(tried bool, err error) error {
	way := "fusermount3 is not installed"
	instead := "install it (Debian: apt install fuse3)"
	switch {
	case os.Geteuid() == 0:
		way, instead = "this container has no right to mount", "start it with --cap-add SYS_ADMIN"
	case tried:
		way, instead = "fusermount3 can't mount", "have root install fuse3 anew"
	}
	why, otherwise := "a user namespace can't be had", "in a container, let its seccomp profile allow user namespaces"
	for _, s := range []struct{ name, closed, open string }{
		{"user.max_user_namespaces", "0", "10000"}, {"kernel.unprivileged_userns_clone", "0", "1"}, {"kernel.apparmor_restrict_unprivileged_userns", "1", "0"},
	} {
		if sysctl(s.name) == s.closed {
			why = fmt.Sprintf("user namespaces are closed (%s is %s)", s.name, s.closed)
			otherwise = fmt.Sprintf("let root run `sysctl -w %s=%s`", s.name, s.open)
			break
		}
	}
	if err != nil {
		why = fmt.Sprintf("%s: %v", why, errors.Unwrap(err))
	}
	return exitError{fmt.Errorf("nothing can be mounted here: %s, and %s; %s, or %s", way, why, instead, otherwise), exitFailed}
}
