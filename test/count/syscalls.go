package count

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// Syscalls counts the system calls of a process, of all its threads, until stop
// is called, which gives them by their names. The process is much slower
// meanwhile. They are counted by strace(1), which prints its table when it is
// interrupted.
func Syscalls(pid int) (stop func() (map[string]int, error), err error) {
	c := exec.Command("strace", "-f", "-c", "-U", "calls,name", "-p", strconv.Itoa(pid))
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := c.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(out)
	if first, err := lines.ReadString('\n'); !strings.Contains(first, "attached") {
		rest, _ := io.ReadAll(lines)
		c.Wait()
		return nil, fmt.Errorf("strace of process %d: %s%s: %w", pid, first, rest, err)
	}
	return func() (map[string]int, error) {
		c.Process.Signal(os.Interrupt)
		table, err := io.ReadAll(lines)
		c.Wait() // interrupted, it ends with the signal
		calls := map[string]int{}
		for l := range bytes.Lines(table) {
			if f := strings.Fields(string(l)); len(f) == 2 {
				if n, err := strconv.Atoi(f[0]); err == nil && f[1] != "total" {
					calls[f[1]] = n
				}
			}
		}
		if err == nil && len(calls) == 0 {
			err = fmt.Errorf("strace of process %d gave no table:\n%s", pid, table)
		}
		return calls, err
	}, nil
}
