package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoDescriptorLeftEndsNoDaemon fails when a daemon that has no descriptor left,
// or a few, in the moment in which it answers a read, ends, or does not read again
// once it may open some.
func TestNoDescriptorLeftEndsNoDaemon(t *testing.T) {
	t.Parallel()
	const size = 300_000
	e := newEngineFiles(t, map[string]int{"a": size})
	for spare := range 6 {
		t.Run(fmt.Sprint(spare), func(t *testing.T) {
			t.Parallel()
			m := mountAt(t, e.URL, nil, "--no-passthrough")
			// Known before, so that its read needs no descriptor but what answering takes.
			text := m.path("experiments", "Default", e.run, "run.json")
			if _, err := os.Stat(text); err != nil {
				t.Fatal(err)
			}
			before := m.limitDescriptors(t, spare)
			if b, err := read(text); err != nil || len(b) == 0 {
				t.Errorf("run.json, which is in memory: %d bytes, %v", len(b), err)
			}
			read(m.path("runs", e.run, "a")) // it may fail
			select {
			case <-m.ended:
				t.Fatal("the daemon has ended")
			default:
			}
			if err := unix.Prlimit(m.cmd.Process.Pid, unix.RLIMIT_NOFILE, &before, nil); err != nil {
				t.Fatal(err)
			}
			e.same(t, m, "a")
			if b, err := read(text); err != nil || len(b) == 0 {
				t.Errorf("run.json: %d bytes, %v", len(b), err)
			}
		})
	}
}

// limitDescriptors leaves the daemon so many descriptors that it has not open,
// and gives the limit of before.
func (m *mount) limitDescriptors(t *testing.T, spare int) (before unix.Rlimit) {
	t.Helper()
	open := map[int]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", m.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		n, _ := strconv.Atoi(filepath.Base(fd))
		open[n] = true
	}
	most := 0
	for free := 0; free < spare || open[most]; most++ {
		if !open[most] {
			free++
		}
	}
	if err := unix.Prlimit(m.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(m.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(most), Max: before.Max}, nil); err != nil {
		t.Fatal(err)
	}
	return before
}
