package test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/test/fault"
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
			if err := unix.Prlimit(m.daemon(), unix.RLIMIT_NOFILE, &before, nil); err != nil {
				t.Fatal(err)
			}
			e.same(t, m, "a")
			if b, err := read(text); err != nil || len(b) == 0 {
				t.Errorf("run.json: %d bytes, %v", len(b), err)
			}
		})
	}
}

// TestLocalFilesBeyondTheLimitEndNoMount fails when a program that has more files of
// this machine open than the daemon may open ends the mount, gets wrong bytes, or an
// error for those that are within the limit; when the files can't be read again once
// they are closed; or when the daemon does not raise the limit to what it may have.
func TestLocalFilesBeyondTheLimitEndNoMount(t *testing.T) {
	t.Parallel()
	const files = 84
	s := shared.get(t, "sqlite 3.17")
	for name, limit := range map[string]fault.Limit{"64": {Most: 64}, "raised": {Most: 4096, Soft: 64}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp(work, "mnt-")
			if err != nil {
				t.Fatal(err)
			}
			limit.Resource = "nofile"
			c := mlflowfs(t, []string{"MLFLOWFS_CACHE_DIR=none"}, "mount", "--tracking-uri", s.uri, dir)
			m := launch(t, dir, fault.Limited(c, limit))
			defer m.stop()
			hold := func() (ok int) {
				var open []*os.File
				for i := range files {
					f, err := os.Open(m.path("runs", s.Wide, "many", fmt.Sprintf("file-%03d.txt", i)))
					if err != nil {
						continue
					}
					defer f.Close()
					open = append(open, f)
				}
				for _, f := range open {
					b, err := io.ReadAll(f)
					var n int
					fmt.Sscanf(filepath.Base(f.Name()), "file-%d.txt", &n)
					if err == nil && string(b) != fmt.Sprintf("%d\n", n) {
						t.Errorf("%s: %q", f.Name(), b)
					} else if err == nil {
						ok++
					}
				}
				return ok
			}
			for range 2 {
				if ok := hold(); ok < 20 || name == "raised" && ok < files {
					t.Errorf("%d of %d files were read", ok, files)
				}
			}
			if b, err := read(m.path("runs", s.Wide, "many", "file-299.txt")); string(b) != "299\n" {
				t.Errorf("after that: %q, %v", b, err)
			}
		})
	}
}

// limitDescriptors leaves the daemon so many descriptors that it has not open,
// and gives the limit of before.
func (m *mount) limitDescriptors(t *testing.T, spare int) (before unix.Rlimit) {
	t.Helper()
	open := map[int]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", m.daemon()))
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
	if err := unix.Prlimit(m.daemon(), unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(m.daemon(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(most), Max: before.Max}, nil); err != nil {
		t.Fatal(err)
	}
	return before
}
