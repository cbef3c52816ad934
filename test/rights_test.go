package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRightsAreDropped fails when a mount of root's, or the process that holds it, keeps more
// rights than it needs (that one starts daemons, which begin with all of them); as it is shipped, that is, for with the race detector Go
// can't give any up.
func TestRightsAreDropped(t *testing.T) {
	t.Parallel()
	needsRoot(t, "it looks at a mount of root's")
	const sysAdmin, dacReadSearch = 21, 2
	e := newEngineFiles(t, map[string]int{"f": 5 << 20})
	m := mountAt(t, e.URL, nil)
	e.same(t, m, "f")
	e.same(t, m, "f")
	for _, pid := range []int{m.cmd.Process.Pid, m.daemon()} {
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
				if _, err := fmt.Sscanf(strings.TrimSpace(value), "%x", &caps); err == nil && (key == "CapPrm" || key == "CapEff" || key == "CapBnd" && pid != m.cmd.Process.Pid) && caps&^(1<<sysAdmin|1<<dacReadSearch) != 0 {
					t.Errorf("%s: %s", task, strings.TrimSpace(l))
				}
			}
		}
	}
}
