package test

import (
	"fmt"
	"io"
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

// replaced waits until a daemon has died and another answers in its place.
func (m *mount) replaced(t *testing.T, before int) {
	t.Helper()
	waitFor(t, "no other daemon answers\n"+m.log.String(), long, func() bool {
		var s status
		return count.Status(m.dir, &s) == nil && s.Daemon != before && s.PID == m.cmd.Process.Pid
	})
}

// TestDeadDaemonIsReplaced fails when a mount does not go on with another daemon after one
// was killed, or has ended by a fault of its own; or does not end well then.
func TestDeadDaemonIsReplaced(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"f": 1 << 20})
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGABRT} {
		m := mountAt(t, e.URL, nil)
		e.same(t, m, "f")
		daemon := m.daemon()
		syscall.Kill(daemon, sig)
		m.replaced(t, daemon)
		e.same(t, m, "f")
		if !strings.Contains(m.log.String(), "another one goes on with the mount") {
			t.Errorf("%v: the log does not say so:\n%s", sig, m.log)
		}
		m.cmd.Process.Signal(syscall.SIGTERM)
		<-m.ended
		if m.err != nil {
			t.Errorf("%v: it ends with %v", sig, m.err)
		}
		m.log = &count.Log{} // with the goroutines of a fault
		m.stop()
	}
}

// TestThirdCrashEndsTheMount fails when daemons die one after the other without an end, or
// when that end leaves a mount, or a directory that was made for it, or is not said.
func TestThirdCrashEndsTheMount(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"f": 1 << 20})
	m := mountAt(t, e.URL, []string{"MLFLOWFS_OWN_MOUNTPOINT=1"})
	for crash := range 3 {
		daemon := m.daemon()
		syscall.Kill(daemon, syscall.SIGKILL)
		if crash < 2 {
			m.replaced(t, daemon)
		}
	}
	select {
	case <-m.ended:
	case <-time.After(10 * time.Second):
		t.Fatalf("it goes on:\n%s", m.log)
	}
	m.killed = true
	if code := m.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(m.log.String(), "died 3 times within a minute: the mount is taken away") {
		t.Errorf("it ends with %d:\n%s", code, m.log)
	}
	if b, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(b), m.dir) {
		t.Error("the mount stays")
	}
	if _, err := os.Stat(m.dir); !os.IsNotExist(err) {
		t.Error("the mount point stays:", err)
	}
}

// TestHolderIsSmall fails when the process that holds a mount takes more than 10 MiB of
// memory for itself, as it lives as long as the mount.
func TestHolderIsSmall(t *testing.T) {
	t.Parallel()
	const most = 10 << 10 // KiB
	e := newEngineFiles(t, map[string]int{"f": 32 << 20})
	m := mountAt(t, e.URL, nil)
	for _, when := range []string{"at first", "after a restart"} {
		e.same(t, m, "f")
		_, anon, _ := strings.Cut(process{pid: m.cmd.Process.Pid}.file("status"), "RssAnon:")
		kib, err := strconv.Atoi(strings.Fields(anon + " ")[0])
		figure(t, "the holder has %d KiB of memory %s", kib, when)
		if err != nil || kib > most {
			t.Errorf("%s it has %d KiB, %v", when, kib, err)
		}
		if when == "at first" {
			daemon := m.daemon()
			syscall.Kill(daemon, syscall.SIGKILL)
			m.replaced(t, daemon)
		}
	}
}

// TestFailedUpgradeChangesNothing fails when a program that is not fit for a mount takes it
// from the daemon that has it, or when `mlflowfs upgrade` does not say why it was not done.
func TestFailedUpgradeChangesNothing(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"f": 1 << 20})
	bin, err := shipped()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(work, "mnt-")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "mlflowfs")
	if out, err := exec.Command("cp", bin, program).CombinedOutput(); err != nil {
		t.Fatal(string(out), err)
	}
	c := mlflowfs(t, []string{"MLFLOWFS_CACHE_DIR=" + t.TempDir()}, "mount", "--tracking-uri", e.URL, dir)
	c.Path, c.Args[0] = program, program
	m := launch(t, dir, c)
	t.Cleanup(m.stop)
	speaks := func(words string) string {
		return "#!/usr/bin/env python3\nimport os, socket, time\ns = socket.socket(fileno=int(os.environ['MLFLOWFS_HOLDER_FD']))\ns.recv(65536)\n" + words
	}
	daemon := m.daemon()
	for _, bad := range []struct{ name, text, why string }{
		{"no program", "rubbish", "can't be started"},
		{"it fails", "#!/bin/sh\nexit 7\n", "exit status 7"},
		{"it speaks otherwise", speaks("s.send(b'READY=1')\ntime.sleep(100)"), "can't be understood"},
		{"it is too eager", speaks(`s.send(b'{"kind":"serving"}')` + "\nos.kill(os.getpid(), 9)"), "killed"},
		{"it dies of the mount", speaks(`s.send(b'{"kind":"proven"}')` + "\ns.recv(65536)\nos.kill(os.getpid(), 9)"), ""},
	} {
		next := program + ".next"
		if err := os.WriteFile(next, []byte(bad.text), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, program); err != nil {
			t.Fatal(err)
		}
		out, err := mlflowfs(t, nil, "upgrade", dir).CombinedOutput()
		if err == nil || !strings.Contains(string(out), dir+" is not upgraded: ") || !strings.Contains(string(out), bad.why) {
			t.Errorf("%s: %s%v", bad.name, out, err)
		}
		if m.daemon() != daemon {
			t.Errorf("%s: another daemon has the mount\n%s", bad.name, m.log)
		}
		e.same(t, m, "f")
	}
	if s := m.status(); s.PID != c.Process.Pid || s.Daemon != daemon {
		t.Errorf("%+v", s)
	}
	refuses(t, 1, nil, []string{"upgrade", t.TempDir()}, "is no mount of mlflowfs")
}

// TestBackgroundMountLeavesTheTerminal fails when a holder or a daemon of `mount --daemon`
// stays in the session of the terminal in which it was started: it would end with that.
func TestBackgroundMountLeavesTheTerminal(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"f": 1 << 20})
	dir, err := os.MkdirTemp(work, "mnt-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	log := filepath.Join(t.TempDir(), "log")
	c := mlflowfs(t, []string{"MLFLOWFS_CACHE_DIR=" + t.TempDir()}, "mount", "--daemon", "--log-file", log, "--tracking-uri", e.URL, dir)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	started := c.Process.Pid
	said, _ := io.ReadAll(out)
	if err := c.Wait(); err != nil {
		t.Fatal(string(said), err)
	}
	m := &mount{t: t, dir: dir}
	s := m.status()
	for name, pid := range map[string]int{"holder": s.PID, "daemon": s.Daemon} {
		_, stat, _ := strings.Cut(process{pid: pid}.file("stat"), ") ")
		if f := strings.Fields(stat); len(f) < 4 || f[3] == fmt.Sprint(started) || f[3] == "0" {
			t.Errorf("the %s is in the session of %d: %q", name, started, stat)
		}
	}
	syscall.Kill(s.Daemon, syscall.SIGABRT)
	waitFor(t, "no other daemon answers", long, func() bool {
		var now status
		return count.Status(dir, &now) == nil && now.Daemon != s.Daemon && now.PID == s.PID
	})
	e.same(t, m, "f")
	if b, _ := os.ReadFile(log); !strings.Contains(string(b), "another one goes on with the mount") || !strings.Contains(string(b), "goroutine 1 ") {
		t.Errorf("the log says\n%s", b)
	}
	if out, err := mlflowfs(t, nil, "unmount", dir).CombinedOutput(); err != nil {
		t.Error(string(out), err)
	}
	for name, pid := range map[string]int{"holder": s.PID} {
		waitFor(t, "the "+name+" stays", 10*time.Second, func() bool { return syscall.Kill(pid, 0) != nil })
	}
}
