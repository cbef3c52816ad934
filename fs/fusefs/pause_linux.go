package fusefs

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wake is a signal that ends a system call, which it does for nobody else.
const wake = syscall.Signal(40)

// pause has no loop take another request: what comes then waits. A loop that waits for one is
// woken by a signal, since nothing else ends a read of the device; one that answers a request
// ends behind that.
func (c *connection) pause() {
	c.stopping.Store(true)
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, wake)
	defer signal.Stop(caught)
	interrupting(wake)
	for c.waiting.Load() > 0 {
		c.with(func(fd int) { wakeReaders(fd) })
		time.Sleep(200 * time.Microsecond)
	}
}

// interrupting has a signal that is caught end the system call that a thread is in: a
// handler of Go's has it begun anew (SA_RESTART).
func interrupting(sig syscall.Signal) {
	const restart = 0x10000000
	var is struct {
		handler, flags, restorer uintptr
		mask                     uint64
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&is)), 8, 0, 0)
	is.flags &^= restart
	syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&is)), 0, 8, 0, 0)
}

// wakeReaders sends wake to the threads that read fd now.
func wakeReaders(fd int) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	reads := fmt.Sprintf("%d 0x%x ", unix.SYS_READV, fd)
	for _, t := range threads {
		id, _ := strconv.Atoi(t.Name())
		if at, err := os.ReadFile("/proc/self/task/" + t.Name() + "/syscall"); err != nil || strings.HasPrefix(string(at), reads) {
			unix.Tgkill(os.Getpid(), id, wake)
		}
	}
}
