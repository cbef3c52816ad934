package test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// TestUpgradeIsSeenByNoProgram fails when a program that has a file open, or reads one after
// the other, gets an error or another byte while the mount is upgraded, again and again, and
// its daemons are killed; or when the status does not say what was done.
func TestUpgradeIsSeenByNoProgram(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"f": 8 << 20, "g": 100 << 10})
	m := mountAt(t, e.URL, nil, "--no-passthrough")
	reader := exec.Command("python3", "-c", `
import hashlib, os, sys, time
f, g = (os.path.join(sys.argv[1], n) for n in "fg")
want = [hashlib.sha256(open(p, "rb").read()).digest() for p in (f, g)]
held = os.open(f, os.O_RDONLY)
print("up", flush=True)
n = 0
while not os.path.exists(sys.argv[2]):
    os.posix_fadvise(held, 0, 0, os.POSIX_FADV_DONTNEED)
    h, at = hashlib.sha256(), 0
    while b := os.pread(held, 1 << 16, at):
        h.update(b)
        at += len(b)
    got = [h.digest(), hashlib.sha256(open(g, "rb").read()).digest()]
    if got != want or sorted(os.listdir(sys.argv[1])) != ["f", "g"]:
        sys.exit("other bytes")
    n += 1
print(n)
`, m.path("runs", e.run), filepath.Join(t.TempDir(), "stop"))
	reader.Stderr = m.log
	out, err := reader.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Process.Kill() })
	said := bufio.NewScanner(out)
	said.Scan()
	const upgrades = 4
	for range upgrades {
		before := m.daemon()
		began := time.Now()
		if out, err := mlflowfs(t, nil, "upgrade", m.dir).CombinedOutput(); err != nil || !strings.Contains(string(out), "is answered by") {
			t.Fatalf("%s%v\n%s", out, err, m.log)
		}
		figure(t, "an upgrade takes %v", time.Since(began).Round(time.Millisecond))
		if m.daemon() == before {
			t.Error("the same daemon answers")
		}
	}
	daemon := m.daemon()
	syscall.Kill(daemon, syscall.SIGKILL)
	m.replaced(t, daemon)
	if err := os.WriteFile(reader.Args[4], nil, 0o600); err != nil {
		t.Fatal(err)
	}
	said.Scan()
	rounds, _ := strconv.Atoi(said.Text())
	if err := reader.Wait(); err != nil || rounds == 0 {
		t.Errorf("the reader has read %d times, %v\n%s", rounds, err, m.log)
	}
	var s struct {
		Session struct {
			Age         float64                 `json:"age_seconds"`
			TakenOver   int                     `json:"taken_over"`
			LastUpgrade *struct{ Error string } `json:"last_upgrade"`
		}
	}
	if err := count.Status(m.dir, &s); err != nil || s.Session.Age <= 0 || s.Session.TakenOver != upgrades+1 || s.Session.LastUpgrade == nil || s.Session.LastUpgrade.Error != "" {
		t.Errorf("%+v, %v", s, err)
	}
}
