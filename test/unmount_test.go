package test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestUnmountEndsTheMount fails when SIGINT, SIGTERM or `mlflowfs unmount` does
// not unmount, or when of a mount in use it is not said what to do.
func TestUnmountEndsTheMount(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "sqlite 3.17")
	mounted := func(m *mount) bool {
		b, _ := os.ReadFile("/proc/self/mounts")
		return strings.Contains(string(b), m.dir)
	}
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		m := mountAt(t, s.uri, nil)
		m.cmd.Process.Signal(sig)
		select {
		case <-m.ended:
		case <-time.After(10 * time.Second):
			t.Errorf("%v does not end the daemon", sig)
		}
		if m.err != nil || mounted(m) {
			t.Errorf("%v: %v, still mounted: %v", sig, m.err, mounted(m))
		}
	}
	m := mountAt(t, s.uri, nil)
	user := exec.Command("sleep", "1000")
	user.Dir = m.path("runs")
	if err := user.Start(); err != nil {
		t.Fatal(err)
	}
	defer user.Process.Kill()
	refuses(t, 1, nil, []string{"unmount", m.dir}, "in use", "--lazy")
	m.cmd.Process.Signal(syscall.SIGTERM)
	waitFor(t, "a mount in use is not detached", 10e9, func() bool { return !mounted(m) })
	waitFor(t, "nothing is said", 5e9, func() bool { return strings.Contains(m.log.String(), "detached") })
	user.Process.Kill()
	user.Wait()
	select {
	case <-m.ended:
	case <-time.After(10 * time.Second):
		t.Error("the daemon stays though nobody uses the mount")
	}

	m = mountAt(t, s.uri, nil)
	if out, err := mlflowfs(t, nil, "unmount", m.dir).CombinedOutput(); err != nil {
		t.Error(string(out), err)
	}
	<-m.ended
	if m.err != nil {
		t.Error(m.err)
	}
}

// TestSignalToEachProcessEndsNoRead fails when a signal to all processes of a
// mount, as systemd and killall send it, takes a file away from a program that
// reads it: the process that holds the mount tells the daemon when to end, and
// nobody else.
func TestSignalToEachProcessEndsNoRead(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"f": 4 << 20})
	m := mountAt(t, e.URL, nil, "--no-passthrough")
	daemon := m.daemon()
	reader := exec.Command("python3", "-c", `
import hashlib, sys
h = hashlib.sha256()
with open(sys.argv[1], "rb", buffering=0) as f:
    for line in sys.stdin:
        h.update(f.read(int(line)))
        print(h.hexdigest(), flush=True)
`, m.path("runs", e.run, "f"))
	in, err := reader.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := reader.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		reader.Wait()
	}()
	out := bufio.NewScanner(pipe)
	read := func(n int) string {
		fmt.Fprintln(in, n)
		out.Scan()
		return out.Text()
	}
	read(4096)
	for range 3 {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
			if err := syscall.Kill(daemon, sig); err != nil {
				t.Error("the daemon is gone:", err)
			}
		}
	}
	time.Sleep(500 * time.Millisecond)
	if read(1<<20) == "" {
		t.Errorf("a signal to the daemon ends the read:\n%s", m.log)
	}
	syscall.Kill(daemon, syscall.SIGTERM)
	m.cmd.Process.Signal(syscall.SIGTERM)
	waitFor(t, "the mount is not detached", 10*time.Second, func() bool { return strings.Contains(m.log.String(), "detached") })
	if got, want := read(4<<20), sumOf(t, filepath.Join(e.dir, "f")); got != want {
		t.Errorf("after signals to both the file reads as %q, and not %s\n%s", got, want, m.log)
	}
}

// TestKilledHolderLeavesNothing fails when a mount stays whose holder is killed: the
// daemon takes it away, and goes.
func TestKilledHolderLeavesNothing(t *testing.T) {
	s := shared.get(t, "sqlite 3.17")
	m := mountAt(t, s.uri, nil)
	daemon := m.daemon()
	m.killed = true
	m.cmd.Process.Kill()
	<-m.ended
	waitFor(t, "the mount stays", 2*time.Second, func() bool {
		b, err := os.ReadFile("/proc/self/mounts")
		return err == nil && !bytes.Contains(b, []byte(m.dir))
	})
	if _, err := os.ReadDir(m.dir); err != nil {
		t.Error(err)
	}
	waitFor(t, "the daemon stays", 10*time.Second, func() bool { return syscall.Kill(daemon, 0) != nil })
}

// TestDeadMountIsCleared fails when what a killed daemon leaves is not cleared by
// the next mount, or by unmount.
func TestDeadMountIsCleared(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "sqlite 3.17")
	kill := func() *mount {
		m := mountAt(t, s.uri, nil)
		m.kill()
		<-m.ended
		if _, err := output("ls", m.dir); err == nil || !strings.Contains(err.Error(), "not connected") {
			t.Fatalf("a killed daemon leaves %v", err)
		}
		return m
	}
	m := kill()
	again := launch(t, m.dir, mlflowfs(t, nil, "mount", "--tracking-uri", s.uri, m.dir))
	if !strings.Contains(again.log.String(), "cleared the dead mount") {
		t.Error(again.log)
	}
	if got, err := read(m.path("models", "echo@champion", "MLmodel")); err != nil || len(got) == 0 {
		t.Error(err)
	}
	again.stop()

	m = kill()
	if out, err := mlflowfs(t, nil, "unmount", m.dir).CombinedOutput(); err != nil {
		t.Error(string(out), err)
	}
	if _, err := os.Stat(m.dir); err != nil {
		t.Error(err)
	}
}

// ordinary is held by the test that has the user of newUser.
var ordinary sync.Mutex

// newUser makes a user who is not root, and may mount, for one test at a time.
func newUser(t *testing.T) string {
	t.Helper()
	needsRoot(t, "it makes a user")
	ordinary.Lock()
	t.Cleanup(ordinary.Unlock)
	if st, err := os.Stat("/dev/fuse"); err != nil {
		t.Fatal(err)
	} else if st.Mode().Perm()&0o006 != 0o006 { // as udev sets it, and some containers do not
		if err := os.Chmod("/dev/fuse", 0o666); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod("/dev/fuse", st.Mode().Perm()) })
	}
	const name = "mlflowfs-tester"
	if _, err := user.Lookup(name); err != nil {
		if out, err := output("useradd", "--system", "--create-home", "--shell", "/bin/sh", name); err != nil {
			t.Fatal(string(out), err)
		}
		t.Cleanup(func() { output("userdel", "--remove", name) })
	}
	return name
}

// TestUnprivilegedUserMounts fails when a user who is not root can't mount with
// fusermount3, does not see the mount as its owner, or when somebody else sees
// it.
func TestUnprivilegedUserMounts(t *testing.T) {
	t.Parallel()
	name := newUser(t)
	s := shared.get(t, "server 3.17")
	bin, err := shipped()
	if err != nil {
		t.Fatal(err)
	}
	point := filepath.Join(t.TempDir(), "mnt")
	for d := filepath.Dir(point); d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := output("chown", name, point); err != nil {
		t.Fatal(err)
	}
	as := func(cmd string) ([]byte, error) { return output("su", name, "-c", cmd) }
	// setpriv becomes the daemon, so that a signal reaches it.
	m := launch(t, point, exec.Command("setpriv", "--reuid", name, "--regid", name, "--init-groups", "--reset-env", bin, "mount", "--tracking-uri", s.uri, point))
	t.Cleanup(m.stop)
	out, err := as("sha256sum " + filepath.Join(point, "runs", s.Wide, "big.bin") + "; stat -c %U " + point + "/runs; touch " + point + "/x")
	if err == nil || !strings.Contains(err.Error(), "Read-only file system") || len(lines(out)) != 2 || lines(out)[1] != name {
		t.Errorf("%s, %v", out, err)
	}
	want := sumOf(t, filepath.Join(s.server.artifacts(), experimentOf(t, s), s.Wide, "artifacts", "big.bin"))
	if !strings.HasPrefix(string(out), want) {
		t.Error("wrong bytes")
	}
	// What only root has is done without, and said once; the disk cache works.
	for range 3 {
		if out, err := as("sha256sum " + filepath.Join(point, "runs", s.Wide, "big.bin")); !strings.HasPrefix(string(out), want) || err != nil {
			t.Error("wrong bytes", err)
		}
	}
	for _, said := range []string{"(passthrough)", "read-ahead stays"} {
		if n := strings.Count(m.log.String(), said); n != 1 {
			t.Errorf("%q is said %d times:\n%s", said, n, m.log)
		}
	}
	if out, err := as("find ~/.cache/mlflowfs -type f -size +100k"); len(lines(out)) == 0 || err != nil {
		t.Errorf("nothing is in the user's cache: %s, %v", out, err)
	}
	if _, err := output("ls", point); err == nil {
		t.Error("another user, even root, sees a mount without --allow-other")
	}
	if out, err := as(bin + " unmount " + point); err != nil {
		t.Error(string(out), err)
	}
	<-m.ended
	if m.err != nil {
		t.Error(m.err, m.log)
	}
}
