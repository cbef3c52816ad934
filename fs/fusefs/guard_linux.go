package fusefs

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// A daemon that is killed lets go of its mount when its last thread ends. One
// that was just giving the kernel a page (FUSE_NOTIFY_STORE) may wait for a
// folio that a READ holds, which nobody answers any more: it can't be killed,
// and neither lets go. So a second process, the guard, waits for the daemon's
// end, aborts the connection, and takes the dead mount away, so that no
// "Transport endpoint is not connected" is left behind.

// guardReady is what a guard says when it is on its watch.
const guardReady = "ready"

// guardStarts is how long it may take until then.
const guardStarts = 5 * time.Second

// guard is the guard of a mount, as the daemon knows it.
type guard struct {
	bye io.WriteCloser
	cmd *exec.Cmd
}

// startGuard starts the guard of the mount at point. A mount without one works
// as well.
func startGuard(point string, made bool, log *slog.Logger) *guard {
	started := make(chan *guard)
	go func() {
		// The guard is told of the end of the thread that started it, which
		// must be that of the process: it is nobody else's, and stays.
		runtime.LockOSThread()
		g, err := newGuard(point, made)
		if err != nil {
			log.Info("no process watches over the mount; what a kill leaves is cleared by the next mount", "err", err)
		}
		started <- g
		if g != nil {
			g.cmd.Wait()
		}
	}()
	return <-started
}

func newGuard(point string, made bool) (*guard, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(point, &st); err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", GuardCommand, strconv.FormatUint(uint64(unix.Minor(st.Dev)), 10), strconv.Itoa(unix.Gettid()), strconv.FormatBool(made), point)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GORACE=" + os.Getenv("GORACE"), "GOMAXPROCS=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setsid: true}
	if os.Geteuid() != 0 && MayMount() { // in a namespace, where a program that is started has no rights by itself
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
	}
	bye, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	ready, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	late := time.AfterFunc(guardStarts, func() { cmd.Process.Kill() })
	defer late.Stop()
	if _, err := io.ReadFull(ready, make([]byte, len(guardReady))); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, fmt.Errorf("it does not start: %w", err)
	}
	return &guard{bye, cmd}, nil
}

// dismiss ends the guard of a mount that is gone.
func (g *guard) dismiss() {
	if g != nil {
		io.WriteString(g.bye, "bye")
		g.bye.Close()
	}
}

// Guard is the guard's whole life. args are what [newGuard] gives it: the mount's
// number, the thread whose end is the daemon's, whether the mount point goes with the
// mount, and the mount point. A SIGTERM
// that somebody sends it, as systemd and killall do to all of a unit's
// processes, is none of its business: the daemon knows how to end.
func Guard(args []string) error {
	killed := make(chan os.Signal, 1)
	signal.Notify(killed, syscall.SIGTERM)
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
	if len(args) != 4 {
		return fmt.Errorf("%s is not for people", GuardCommand)
	}
	minor, thread, point := args[0], fmt.Sprintf("/proc/%d/task/%s/stat", os.Getppid(), args[1]), args[3]
	// Held open: a later mount may get the number.
	abort, _ := os.OpenFile("/sys/fs/fuse/connections/"+minor+"/abort", os.O_WRONLY, 0)
	io.WriteString(os.Stdout, guardReady)
	word := make(chan int, 1)
	go func() {
		n, _ := os.Stdin.Read(make([]byte, 3))
		word <- n
	}()
	for waits := true; waits; {
		select {
		case <-killed:
			waits = !ends(thread)
		case n := <-word:
			if n > 0 {
				return nil
			}
			waits = false
		}
	}
	if abort != nil {
		abort.WriteString("1")
	}
	err := takeAway(point, minor)
	if args[2] == "true" {
		os.Remove(point)
	}
	return err
}

// takeAway takes the mount with a number away from point.
func takeAway(point, minor string) error {
	infos, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(point))
	if err != nil || len(infos) == 0 || strconv.Itoa(infos[len(infos)-1].Minor) != minor {
		return err // it is gone, or another's
	}
	if MayMount() {
		return syscall.Unmount(point, unix.MNT_FORCE|unix.MNT_DETACH) // which aborts it, too
	}
	return Unmount(point, true)
}

// ends tells whether a thread has ended, or does within a second: it signals its
// end before that can be seen. stat is its file in /proc.
func ends(stat string) bool {
	for end := time.Now().Add(time.Second); ; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(stat)
		_, state, _ := strings.Cut(string(b), ") ")
		if err != nil || strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X") {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}
