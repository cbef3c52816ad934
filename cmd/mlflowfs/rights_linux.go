package main

import (
	"errors"
	"log/slog"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/fs/fusefs"
)

// needed are the capabilities that a mount of root's, or in a namespace of its own, keeps (capabilities(7)):
// to unmount, to hand files to the kernel, and to read local stores that belong
// to others.
var needed = []uint{unix.CAP_SYS_ADMIN, unix.CAP_DAC_READ_SEARCH}

// dropRights gives up the other capabilities, for this process and for those
// that it starts. What can't be given up is kept.
func dropRights(log *slog.Logger) {
	if os.Geteuid() != 0 && !fusefs.MayMount() {
		return
	}
	if err := limitCapabilities(needed, true); err != nil {
		log.Debug("the rights of root are all kept", "err", err)
	}
}

// limitCapabilities keeps capabilities for all threads, and where bound says so for the
// programs that they start.
func limitCapabilities(keep []uint, bound bool) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return err
	}
	var want [2]unix.CapUserData
	for _, c := range keep {
		bit := uint32(1) << (c % 32)
		want[c/32].Permitted |= have[c/32].Permitted & bit
		want[c/32].Effective |= have[c/32].Effective & bit
	}
	kept := func(c uint) bool { return want[c/32].Permitted&(1<<(c%32)) != 0 }
	for c := uint(0); c <= unix.CAP_LAST_CAP; c++ {
		if kept(c) || !bound {
			continue
		}
		if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0, 0); e == syscall.ENOTSUP {
			return errors.New("a program with cgo can't do that for all its threads")
		} // else it is unknown to this kernel, or not ours to drop
	}
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&want[0])), 0); e != 0 {
		return e
	}
	return nil
}
