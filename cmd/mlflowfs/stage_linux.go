package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// stage is the life of the process that becomes a command of exec's. args are the file
// descriptors of the daemon's leash, of its word and of the plan, the supervisor's
// process, and the command.
func (p *process) stage(args []string) int {
	runtime.LockOSThread() // rights are a thread's
	if len(args) < 5 {
		fmt.Fprintf(os.Stderr, "mlflowfs: %s is not for people\n", stageCommand)
		return exitUsage
	}
	var own [4]int
	for i := range own {
		own[i], _ = strconv.Atoi(args[i])
	}
	for _, fd := range own[:3] {
		syscall.CloseOnExec(fd)
	}
	for _, s := range passedOn(nil) {
		if !signal.Ignored(s) {
			setDefault(s.(syscall.Signal)) // it is for the command
		}
	}
	inherited := setInherited(true, nil) // a file that the command is given is not the daemon's to hold open
	told := json.NewDecoder(os.NewFile(uintptr(own[2]), "plan"))
	var of plan
	if told.Decode(&of) != nil {
		return exitFailed
	}
	leash, ready := os.NewFile(uintptr(own[0]), "leash"), os.NewFile(uintptr(own[1]), "ready")
	err := of.startDaemon(p.environ, leash, ready)
	if err == nil && of.Private {
		err = dropAll()
	}
	if err != nil {
		json.NewEncoder(ready).Encode(word{Err: err.Error(), Code: exitFailed})
	}
	leash.Close()
	ready.Close()
	unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0) // with other rights it is to be said anew
	begins := false
	if told.Decode(&begins); !begins || os.Getppid() != own[3] {
		return exitFailed
	}
	setInherited(false, inherited)
	return p.become(args[4:])
}

// startDaemon starts the daemon as a child of the supervisor's. In a namespace it has the
// rights that this process still has.
func (p *plan) startDaemon(environ []string, leash, ready *os.File) error {
	cmd := exec.Command("/proc/self/exe", "mount", p.Point)
	cmd.Env = append(withoutRoot(environ), p.Env...)
	cmd.Env = append(cmd.Env, readyFD+"=3", lifeFD+"=4", ownPoint+"=1")
	cmd.ExtraFiles = []*os.File{ready, leash}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_PARENT}
	return cmd.Start()
}

// dropAll gives up all rights, for this thread and the program that it becomes, be it
// root's.
func dropAll() error {
	for c := uintptr(0); c < 64; c++ {
		unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0) // beyond the last one it is EINVAL
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return errors.Join(unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), unix.Capset(&header, &none[0]))
}

// setInherited has programs that are started not get the open files, or get them again:
// those in fds, else all that a program would get beside the standard streams. It gives
// what it has changed.
func setInherited(off bool, fds []int) (changed []int) {
	if fds == nil && off {
		entries, _ := os.ReadDir("/proc/self/fd")
		for _, e := range entries {
			if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
				fds = append(fds, fd)
			}
		}
	}
	for _, fd := range fds {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || (flags&unix.FD_CLOEXEC != 0) == off {
			continue
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags^unix.FD_CLOEXEC); err == nil {
			changed = append(changed, fd)
		}
	}
	return changed
}

// become runs a command in the place of this process.
func (p *process) become(command []string) (code int) {
	path, err := exec.LookPath(command[0])
	if err == nil || errors.Is(err, exec.ErrDot) { // a PATH with "." in it is the user's choice
		err = syscall.Exec(path, command, p.environ)
		if errors.Is(err, syscall.ENOEXEC) { // execvp(3)
			err = syscall.Exec("/bin/sh", append([]string{"sh", path}, command[1:]...), p.environ)
		}
	} else {
		err = whyNot(command[0], p.getenv("PATH"), err)
	}
	fmt.Fprintf(os.Stderr, "mlflowfs: %s: %v\n", command[0], err)
	if errors.Is(err, os.ErrNotExist) || err == errNoCommand {
		return exitNoCommand
	}
	return exitNotExecutable
}

// errNoCommand is in the words of shells.
var errNoCommand = errors.New("command not found")

// whyNot is the error of a command that [exec.LookPath] does not find. It passes by files
// in the PATH that can't be executed, which are not the same as none.
func whyNot(name, path string, err error) error {
	var plain *exec.Error
	if errors.As(err, &plain) {
		err = plain.Err
	}
	if !strings.Contains(name, "/") && slices.ContainsFunc(filepath.SplitList(path), func(dir string) bool {
		st, err := os.Stat(filepath.Join(dir, name))
		return err == nil && st.Mode().IsRegular()
	}) {
		return os.ErrPermission
	}
	if errors.Is(err, exec.ErrNotFound) {
		return errNoCommand
	}
	return err
}
