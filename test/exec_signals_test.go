package test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tellsSignals is a command that says which signals it gets, until it is ended by its
// input.
const tellsSignals = `
import os, signal, sys
for n in 1, 2, 3, 10, 12, 15, 28, 20, 40:
    signal.signal(n, lambda n, _: os.write(1, b"got %d\n" % n))
os.write(1, b"%d %d %d\n" % (os.getppid(), os.getpgrp(), os.getsid(0)))
while True:
    signal.sigtimedwait([], 0.05)
`

// TestExecPassesEachSignalOnce fails when a signal that is sent to exec does not reach the
// command, when one that is sent to its process group, as by Ctrl-C, reaches it twice, or
// when the command is in another process group or session than exec.
func TestExecPassesEachSignalOnce(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17")
	for _, name := range []string{asRoot, withNothing} {
		p := newPlace(t, name)
		r := p.start(t, s.uri, "python3", "-c", tellsSignals)
		pid := r.Process.Pid
		sid, _ := syscall.Getpgid(pid)
		var parent, group, session int
		if fmt.Sscan(r.line(t), &parent, &group, &session); parent != pid || group != pid || group != sid {
			t.Errorf("%s: parent %d, process group %d, session %d; exec is %d", name, parent, group, session, pid)
		}
		var got, want []string
		for round := range 5 {
			for _, n := range []syscall.Signal{1, 2, 3, 10, 12, 15, 28, 20, 40} {
				to := pid
				if round%2 == 1 {
					to = -pid
				}
				syscall.Kill(to, n)
				want = append(want, fmt.Sprintf("got %d", int(n)))
				got = append(got, r.line(t))
				// Two of one kind at once are one: of the group's the supervisor asks its
				// witness, for which it waits.
				time.Sleep(30 * time.Millisecond)
				waitFor(t, "a signal to the group is not taken note of", long, func() bool { return !waitsIn(t, pid, n) })
			}
		}
		time.Sleep(100 * time.Millisecond) // what comes twice comes by now
		syscall.Kill(pid, 10)
		got, want = append(got, r.line(t)), append(want, "got 10")
		if !slices.Equal(got, want) {
			t.Errorf("%s: the command %v, and was sent %v", name, got, want)
		}
		syscall.Kill(-pid, syscall.SIGKILL)
		if code := r.ends(t); code != 137 {
			t.Errorf("%s: killed, it ends with %d", name, code)
		}
		p.isClean(t)
	}
}

// waitsIn tells whether a child of a process has a signal wait.
func waitsIn(t *testing.T, pid int, n syscall.Signal) bool {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil || len(lists) == 0 {
		t.Fatalf("exec has no threads: %v", err)
	}
	for _, list := range lists {
		children, _ := os.ReadFile(list)
		for child := range strings.FieldsSeq(string(children)) {
			status, _ := os.ReadFile("/proc/" + child + "/status")
			_, pending, _ := strings.Cut(string(status), "\nShdPnd:\t")
			line, _, _ := strings.Cut(pending, "\n")
			if set, err := strconv.ParseUint(line, 16, 64); err == nil && set&(1<<(n-1)) != 0 {
				return true
			}
		}
	}
	return false
}

// TestExecKeepsJobControl fails when at a terminal Ctrl-C, Ctrl-Z, fg or a change of the
// window's size do something else to a command of exec than to one without, or when a
// command that takes the terminal for itself, as shells do, can't.
func TestExecKeepsJobControl(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "sqlite 3.17")
	p := newPlace(t, asRoot)
	const inTerminal = `
import os, pty, select, signal, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
said = b""
def until(word, say=None):
    global said
    if say is not None:
        os.write(fd, say)
    end = time.time() + 30
    while word not in said:
        if not select.select([fd], [], [], max(0, end - time.time()))[0]:
            sys.exit("no %r in %r" % (word, said))
        said += os.read(fd, 65536)
    before, _, said = said.partition(word)
    return before
until(b"ready", b"stty -echo; PS1='$ '; echo re\"\"ady\n")
run = os.environ["RUN"].encode()
until(b"begins", run + b" sh -c 'trap \"echo in\\terrupted\" INT; echo be\"\"gins; while :; do sleep 0.1; done'\n")
until(b"in", b"\x03")
time.sleep(0.5)
assert b"in" not in said, said  # it came once
until(b"Stopped", b"\x1a")
until(b"$ ", b"\n")
os.write(fd, b"fg\n")
time.sleep(0.5)
until(b"in", b"\x03")
until(b"Stopped", b"\x1a")
until(b"$ ", b"\n")
until(b"Killed", b"kill -KILL %1; sleep 0.5; jobs\n")
# A shell of its own takes the terminal, and gives it back.
until(b"inner", run + b" bash --norc --noprofile -i\nPS1=; stty -echo; echo inn\"\"er\n")
os.write(fd, b"sleep 100\n")
time.sleep(0.5)
os.write(fd, b"\x03")
until(b"still here", b"echo st\"\"ill here\n")
until(b"left 5", b"exit 5\necho le\"\"ft $?\n")
os.write(fd, b"exit\n")
print("well")
`
	c := p.exec(t, s.uri, "x")
	words := c.Args[:len(c.Args)-1]
	for i, w := range words {
		words[i] = "'" + w + "'"
	}
	sh := exec.Command("python3", "-c", inTerminal)
	sh.Env = append(c.Env, "TERM=dumb", "RUN="+strings.Join(words, " "))
	out, err := sh.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "well" {
		t.Errorf("%s%v", out, err)
	}
	p.isClean(t)
}

// TestKilledExecLeavesNothing fails when SIGKILL of any of exec's processes, before the
// mount is there, while the command reads or when it has ended, leaves a mount, a process
// or a directory, or the command.
func TestKilledExecLeavesNothing(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"f": 2 << 20})
	const reads = `
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
os.write(1, b"up\n")
try:
    while True:
        os.pread(fd, 65536, 0)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
except OSError:
    time.sleep(1000)
`
	for _, name := range []string{asRoot, withSetuid, withNothing} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, name)
			file := "{}/runs/" + e.run + "/f"
			for _, who := range []string{"exec", "group", "holder", "command", "daemon"} {
				r := p.start(t, e.URL, "--no-passthrough", "/usr/bin/python3", "-c", reads, file)
				r.line(t)
				holder := p.holder(t)
				switch who {
				case "exec":
					r.Process.Kill()
				case "group":
					syscall.Kill(-r.Process.Pid, syscall.SIGKILL)
				case "holder":
					syscall.Kill(holder, syscall.SIGKILL)
				case "command":
					syscall.Kill(childOf(t, r.Process.Pid, "/usr/bin/python3"), syscall.SIGKILL)
				case "daemon": // the mount goes on with another, and ends well
					syscall.Kill(childOf(t, holder, "/proc/self/exe mount"), syscall.SIGKILL)
					time.Sleep(100 * time.Millisecond)
					syscall.Kill(-r.Process.Pid, syscall.SIGTERM)
				}
				if code, want := r.ends(t), 137; code != want && who != "daemon" || who == "daemon" && code != 143 {
					t.Errorf("%s killed: ends with %d, %s", who, code, r.errs.String())
				}
				p.isClean(t)
			}
			// Before the mount: its server is silent.
			proxy := proxyTo(t, e.URL)
			release := make(chan struct{})
			proxy.Break(func(http.ResponseWriter, *http.Request) bool { <-release; return false }, nil)
			for _, who := range []string{"exec", "holder", "daemon", "group"} {
				r := p.start(t, proxy.URL, "echo", "started")
				switch holder := p.holder(t); who {
				case "exec":
					r.Process.Kill()
				case "holder":
					syscall.Kill(holder, syscall.SIGKILL)
				case "daemon":
					syscall.Kill(childOf(t, holder, "/proc/self/exe mount"), syscall.SIGKILL)
				case "group":
					syscall.Kill(-r.Process.Pid, syscall.SIGTERM)
				}
				if code := r.ends(t); code == 0 {
					t.Errorf("before the mount %s was killed, and it ends with %d", who, code)
				}
				if out, _ := io.ReadAll(r.out); len(out) > 0 {
					t.Errorf("the command was started: %s", out)
				}
				p.isClean(t)
			}
			close(release)
			// When the command has ended, and another still reads.
			r := p.start(t, e.URL, "sh", "-c", `sleep 1000 <"$0" >/dev/null 2>&1 & echo up`, file)
			r.line(t)
			waitFor(t, "the mount is not detached", long, func() bool { return !p.isMounted() })
			r.Process.Kill()
			r.ends(t)
			for _, pid := range p.processes() {
				if strings.Contains(process{pid: pid}.file("cmdline"), "sleep") {
					syscall.Kill(pid, syscall.SIGKILL)
				}
			}
			p.isClean(t)
		})
	}
}

// isMounted tells whether there is a mount of exec's in the place, or in its namespaces.
func (p *place) isMounted() bool {
	for _, pid := range append(p.processes(), p.keeper) {
		if strings.Contains(process{pid: pid}.file("mountinfo"), p.tmp) {
			return true
		}
	}
	return false
}

// childOf gives the child of a process whose command line begins so.
func childOf(t *testing.T, parent int, words string) (pid int) {
	t.Helper()
	waitFor(t, "no "+words, long, func() bool {
		for _, q := range processes() {
			_, stat, _ := strings.Cut(q.file("stat"), ") ")
			if f := strings.Fields(stat); len(f) > 1 && f[1] == fmt.Sprint(parent) && strings.HasPrefix(q.args, words) {
				pid = q.pid
			}
		}
		return pid > 0
	})
	return pid
}
