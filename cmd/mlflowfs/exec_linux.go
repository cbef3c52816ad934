package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/fs/fusefs"
)

// Exec is five processes:
//
//   - the supervisor, which the user has started: it passes on signals, stops when the
//     command stops, and ends as it ends;
//   - its child, the stage, which starts the holder of a mount, waits until that has mounted, and
//     becomes the command: it stays in the process group and the session in which it was
//     started, and so do its streams;
//   - the holder, a mount in a session of its own, held by a leash (leashFD): it ends by
//     the supervisor's word or by its death, and no signal to a process group or of a
//     terminal ends it, or stops it while somebody reads;
//   - its child, the daemon (see [holder]);
//   - the witness, by which the supervisor tells a signal to itself from one to its group.
//
// Where this user can't mount, the stage is cloned into a user and a mount namespace, so
// that the daemon mounts in there, and the command has given up all that it may do there.

// supervisor is the first of them.
type supervisor struct {
	o       *options
	point   string
	command []string // with the mount's root in it
	signals chan os.Signal
	witness *witness
}

// attempt is a mount that is about to be there, and then is, with the child that becomes
// the command.
type attempt struct {
	pid    int
	status chan syscall.WaitStatus // of the child, each time that it stops, and when it ends
	plan   *os.File
	leash  *os.File
	said   chan word     // of the daemon; closed with it where it has said nothing
	gone   chan struct{} // closed with the daemon
}

// plan is what the stage is told. With true behind it the command begins.
type plan struct {
	Point   string
	Env     []string // the daemon's settings, beside the command's environment
	Private bool     // there are rights to give up
}

// supervise runs a command with a mount at point.
func (o *options) supervise(ctx context.Context, point string, command []string) error {
	runtime.LockOSThread() // a child is told of the end of the thread that started it
	s := &supervisor{o: o, point: point, command: command, signals: make(chan os.Signal, 64)}
	signal.Notify(s.signals, passedOn(o.ignored)...)
	o.calm()
	for _, sig := range o.ignored {
		signal.Ignore(sig)
	}
	var err error
	if s.witness, err = startWitness(); err != nil {
		return err
	}
	defer s.witness.end()
	a, err := s.mount(ctx)
	if err != nil {
		return err
	}
	return s.run(a)
}

// passedOn are the signals that are for the command. The rest are Go's own, can't be
// caught, or tell of a fault in this process; what was ignored stays so.
func passedOn(ignored []os.Signal) (all []os.Signal) {
	for _, s := range []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM,
		unix.SIGVTALRM, unix.SIGIO, unix.SIGPWR, unix.SIGWINCH, unix.SIGTSTP, unix.SIGCONT, unix.SIGXCPU, unix.SIGXFSZ} {
		if !slices.Contains(ignored, os.Signal(s)) {
			all = append(all, s)
		}
	}
	for n := syscall.Signal(34); n <= 64; n++ { // for who has real-time signals
		all = append(all, n)
	}
	return all
}

// mount mounts as this user can.
func (s *supervisor) mount(ctx context.Context) (*attempt, error) {
	usual := fusefs.MayMount() || hasFusermount()
	if usual {
		a, said, err := s.attempt(ctx, false)
		if err != nil || said.Err == "" {
			return a, err
		}
		if !said.NoMount || openDevice() != nil {
			return nil, exitError{errors.New(said.Err), said.Code}
		}
	}
	if err := openDevice(); err != nil {
		return nil, err
	}
	a, said, err := s.attempt(ctx, true)
	var refused mountError
	switch {
	case errors.As(err, &refused), said.NoMount:
		return nil, noNamespace(usual, err)
	case err != nil:
		return nil, err
	case said.Err != "":
		return nil, exitError{errors.New(said.Err), said.Code}
	}
	return a, nil
}

func hasFusermount() bool {
	for _, name := range []string{"fusermount3", "/bin/fusermount3"} { // as go-fuse looks for it
		if _, err := exec.LookPath(name); err == nil {
			return true
		}
	}
	return false
}

// attempt starts a child and a daemon, and waits for the daemon's word. There is an
// attempt where that has no error.
func (s *supervisor) attempt(ctx context.Context, private bool) (*attempt, word, error) {
	if err := os.Mkdir(s.point, 0o700); err != nil && !errors.Is(err, os.ErrExist) { // an attempt before has removed it
		return nil, word{}, err
	}
	a, err := s.start(private)
	if err != nil {
		return nil, word{}, err
	}
	for {
		select {
		case said, ok := <-a.said:
			switch {
			case !ok:
				err = errors.New("the daemon ended before the mount answered")
			case said.Err == "":
				return a, said, nil
			}
			if st := s.abandon(a); !ok && st.Signaled() && st.Signal() != unix.SIGKILL {
				err = dieBy(st.Signal()) // it was the group's, and has come to the child first
			}
			return nil, said, err
		case <-ctx.Done(): // a signal that came before this took them
			s.abandon(a)
			number := unix.SIGTERM
			if c, ok := context.Cause(ctx).(caught); ok {
				number = c.Signal.(syscall.Signal)
			}
			return nil, word{}, dieBy(number)
		case sig := <-s.signals:
			if number := sig.(syscall.Signal); number == unix.SIGTSTP {
				unix.Kill(os.Getpid(), unix.SIGSTOP)
			} else if number != unix.SIGCONT && number != unix.SIGWINCH {
				s.abandon(a)
				return nil, word{}, dieBy(number)
			}
		case st := <-a.status:
			if !st.Stopped() {
				close(a.status)
				s.abandon(a)
				if st.Signaled() {
					return nil, word{}, dieBy(st.Signal())
				}
				return nil, word{}, errors.New("the process that becomes the command has ended")
			}
		}
	}
}

// start starts a child, and by it a daemon.
func (s *supervisor) start(private bool) (*attempt, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	a := &attempt{leash: os.NewFile(uintptr(pair[0]), "leash"), status: make(chan syscall.WaitStatus, 1), said: make(chan word, 1), gone: make(chan struct{})}
	theirs := []*os.File{os.NewFile(uintptr(pair[1]), "leash"), nil, nil}
	ready, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	theirs[1] = w
	if theirs[2], a.plan, err = os.Pipe(); err != nil {
		return nil, err
	}
	args := []string{stageCommand}
	var passed []int
	for _, f := range theirs { // where the command may have none of its own
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, 3)
		if err != nil {
			return nil, err
		}
		f.Close()
		passed = append(passed, fd)
		args = append(args, strconv.Itoa(fd))
	}
	cmd := exec.Command("/proc/self/exe", append(append(args, strconv.Itoa(os.Getpid())), s.command...)...)
	cmd.Env = withRoot(s.o.environ, s.point)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if private {
		inNamespaces(cmd.SysProcAttr)
	}
	err = cmd.Start()
	for _, fd := range passed {
		unix.Close(fd)
	}
	if err != nil {
		a.plan.Close()
		a.leash.Close()
		return nil, mountError{err}
	}
	a.pid = cmd.Process.Pid
	go a.wait()
	go a.listen(ready)
	json.NewEncoder(a.plan).Encode(plan{Point: s.point, Env: s.o.environment(), Private: private}) // that it has ended shows in its status
	return a, nil
}

// inNamespaces has a child be in a user and a mount namespace of its own, as the same
// user, with the rights to mount there and to give these up.
func inNamespaces(attr *syscall.SysProcAttr) {
	attr.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
	attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP}
}

func (a *attempt) wait() {
	for {
		var st syscall.WaitStatus
		if _, err := syscall.Wait4(a.pid, &st, unix.WUNTRACED, nil); err == syscall.EINTR {
			continue
		}
		a.status <- st
		if !st.Stopped() {
			return
		}
	}
}

func (a *attempt) listen(ready io.ReadCloser) {
	var said word
	if json.NewDecoder(ready).Decode(&said) == nil {
		a.said <- said
	}
	ready.Close()
	close(a.said)
	a.leash.Read(make([]byte, 1)) // it says nothing there
	close(a.gone)
}

// abandon ends what has begun before the command was started.
func (s *supervisor) abandon(a *attempt) (st syscall.WaitStatus) {
	a.plan.Close()
	unix.Kill(a.pid, unix.SIGKILL)
	for st = range a.status {
		if !st.Stopped() {
			break
		}
	}
	unix.Shutdown(int(a.leash.Fd()), unix.SHUT_WR)
	<-a.gone
	a.leash.Close()
	os.Remove(s.point)
	return st
}

// run has the command begin, and ends as it ends.
func (s *supervisor) run(a *attempt) error {
	io.WriteString(a.plan, "true\n")
	a.plan.Close()
	letGo()
	var st syscall.WaitStatus
	killed := false
	for gone, running := a.gone, true; running; {
		select {
		case sig := <-s.signals:
			if number := sig.(syscall.Signal); !s.witness.saw(number) {
				unix.Kill(a.pid, number)
			}
		case <-gone:
			gone, killed = nil, true
			unix.Kill(a.pid, unix.SIGKILL)
		case st = <-a.status:
			if running = st.Stopped(); running && isStopped(a.pid) {
				unix.Kill(os.Getpid(), unix.SIGSTOP) // for who waits for this process
			}
		}
	}
	s.unmount(a)
	switch {
	case killed:
		fmt.Fprintln(os.Stderr, "mlflowfs: the daemon of the mount was killed, and so was the command")
		return exitError{nil, exitSignal + int(unix.SIGKILL)}
	case st.Signaled():
		return dieBy(st.Signal())
	case st.ExitStatus() != 0:
		return exitError{nil, st.ExitStatus()}
	}
	return nil
}

// letGo has this process hold open nothing that is the command's: who reads what it writes
// is to see its end when the command closes it. Standard error is for both.
func letGo() {
	if null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		unix.Dup3(null, 0, 0)
		unix.Dup3(null, 1, 0)
		unix.Close(null)
	}
	for _, fd := range setInherited(true, nil) {
		unix.Close(fd)
	}
}

// isStopped tells whether a process is stopped still.
func isStopped(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(b), ") ")
	return err == nil && strings.HasPrefix(state, "T")
}

// unmount ends the mount. Programs that the command has left may have files open: they
// are waited for, until a signal ends that.
func (s *supervisor) unmount(a *attempt) {
	unix.Write(int(a.leash.Fd()), []byte("."))
	for gone := false; !gone; {
		select {
		case <-a.gone:
			gone = true
		case sig := <-s.signals:
			if slices.Contains([]os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT}, sig) {
				unix.Shutdown(int(a.leash.Fd()), unix.SHUT_WR)
			}
		}
	}
	os.Remove(s.point)
}

// setDefault has a signal do what it does by default, without a handler of Go's: that one
// tells of goroutines, and loses a signal when another thread runs another program.
func setDefault(sig syscall.Signal) {
	var usual [4]uint64 // a struct sigaction of zeros is SIG_DFL
	syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&usual)), 0, 8, 0, 0)
}

// dieBy ends this process by a signal, as the command was ended. Where no signal can, as
// in the first process of a container, its error has the exit code that shells give.
func dieBy(sig syscall.Signal) error {
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) // the command's core is the one to look at
	setDefault(sig)
	if unix.Kill(os.Getpid(), sig) == nil {
		time.Sleep(100 * time.Millisecond)
	}
	return exitError{nil, exitSignal + int(sig)}
}
