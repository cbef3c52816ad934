package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// witness is a process that does nothing, in the same process group as this one. A signal
// that was sent to the group, as by Ctrl-C at a terminal, waits for it; one that was sent
// to this process alone does not. Nothing else tells them apart: of kill(2) a signal names
// its sender, and not whether others got it.
type witness struct {
	pid     int
	in, out *os.File // a signal's number in has it let go of that signal, and comes out again
}

// startWitness forks the witness from this thread, to which the goroutine is locked.
func startWitness() (*witness, error) {
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirIn.Close()
	out, theirOut, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirOut.Close()
	all := unix.Sigset_t{}
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	var before unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return nil, err
	}
	pid, e := forkWitness(theirIn.Fd(), theirOut.Fd(), new(witnessMemory))
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil); err != nil {
		return nil, err
	}
	if e != 0 {
		return nil, fmt.Errorf("the process that tells signals apart: %w", e)
	}
	return &witness{int(pid), in, out}, nil
}

// witnessMemory is what a witness needs.
type witnessMemory struct {
	signal uint8
	set    uint64
	now    unix.Timespec
}

// forkWitness forks a process that has all signals blocked, as this thread has. A program
// of Go's can't: its runtime unblocks those that end a program. Like the child of
// [syscall.ForkExec] it has no runtime, and makes system calls alone.
//
//go:norace
//go:nosplit
//go:noinline
func forkWitness(in, out uintptr, m *witnessMemory) (pid uintptr, e syscall.Errno) {
	pid, _, e = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid != 0 || e != 0 {
		return pid, e
	}
	for fd := uintptr(0); fd < 1024; fd++ {
		if fd != in && fd != out {
			syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
		}
	}
	for {
		if n, _, _ := syscall.RawSyscall(unix.SYS_READ, in, uintptr(unsafe.Pointer(&m.signal)), 1); n != 1 {
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
		m.set = 1 << ((m.signal - 1) & 63)
		for {
			if _, _, e := syscall.RawSyscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&m.set)), 0, uintptr(unsafe.Pointer(&m.now)), 8, 0, 0); e != 0 {
				break
			}
		}
		syscall.RawSyscall(unix.SYS_WRITE, out, uintptr(unsafe.Pointer(&m.signal)), 1)
	}
}

// saw tells whether a signal that this process has caught was the group's.
func (w *witness) saw(sig syscall.Signal) bool {
	// What sends a signal to a group holds the lock that this waits for (tasklist_lock
	// in the kernel): when it returns, each process of the group has the signal.
	unix.Setpgid(0, unix.Getpgrp())
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.pid))
	if err != nil || !pendingIn(string(status), sig) {
		return false
	}
	if _, err := w.in.Write([]byte{byte(sig)}); err == nil {
		w.out.Read(make([]byte, 1))
	}
	return true
}

// pendingIn tells whether a process, whose status in /proc it is, has a signal wait.
func pendingIn(status string, sig syscall.Signal) bool {
	_, after, _ := strings.Cut(status, "\nShdPnd:")
	line, _, _ := strings.Cut(after, "\n")
	set, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	return err == nil && set&(1<<(sig-1)) != 0
}

// end ends the witness: its input does.
func (w *witness) end() {
	w.in.Close()
	w.out.Close()
	syscall.Wait4(w.pid, nil, 0, nil)
}
