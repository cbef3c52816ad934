package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A mount of root's, and its guard, keep no more rights than they need; as it
// is shipped, that is, for with the race detector Go can't give any up.
func TestRightsAreDropped(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test looks at a mount of root's: run it as root")
	}
	const sysAdmin, dacReadSearch = 21, 2
	bin := filepath.Join(work, "shipped")
	build := exec.Command("go", "build", "-o", bin, "../cmd/mlflowfs")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatal(string(out), err)
	}
	e := newEngineFiles(t, map[string]int{"f": 5 << 20})
	dir, err := os.MkdirTemp(work, "mnt-")
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(bin, "mount", "--tracking-uri", e.URL, "--cache-dir", t.TempDir(), dir)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + work, noMetadata}
	m := launch(t, dir, c)
	defer m.stop()
	e.same(t, m, "f")
	e.same(t, m, "f")
	for _, pid := range []int{c.Process.Pid, guardOf(t, m)} {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		if err != nil || len(tasks) == 0 {
			t.Fatal(err)
		}
		for _, task := range tasks {
			status, err := os.ReadFile(task)
			if err != nil {
				continue // the thread has ended
			}
			for l := range strings.Lines(string(status)) {
				key, value, _ := strings.Cut(l, ":")
				var caps uint64
				if _, err := fmt.Sscanf(strings.TrimSpace(value), "%x", &caps); err == nil && (key == "CapPrm" || key == "CapEff" || key == "CapBnd") && caps&^(1<<sysAdmin|1<<dacReadSearch) != 0 {
					t.Errorf("%s: %s", task, strings.TrimSpace(l))
				}
			}
		}
	}
}
