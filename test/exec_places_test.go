package test

import (
	"bufio"
	"bytes"
	"fmt"
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

// place is where, and as whom, `mlflowfs exec` runs: a mount namespace of the test's,
// in which /dev/fuse may be opened by all, as udev sets it.
type place struct {
	name   string
	keeper int    // a process that is in it
	tmp    string // in which exec makes its mount point
	home   string
	become []string // the command that enters it
}

// What a place of exec's has to mount with.
const (
	asRoot      = "root"
	inContainer = "root without the right to mount"
	withSetuid  = "a user with fusermount3"
	withNothing = "a user without fusermount3"
)

var places = []string{asRoot, inContainer, withSetuid, withNothing}

// isPrivate tells whether exec needs a user namespace in a place.
func isPrivate(name string) bool { return name == inContainer || name == withNothing }

const setUpPlace = aloneInNamespace + `
set -e
mount -t tmpfs none /mnt
mknod -m 666 /mnt/fuse c 10 229
mount --bind /mnt/fuse /dev/fuse
if [ "$1" = hide ]; then
	: >/mnt/none
	for f in /usr/bin/fusermount3 /usr/bin/fusermount; do [ ! -e $f ] || mount --bind /mnt/none $f; done
fi
[ "$1" != bare ] || umount /dev/fuse
[ "$1" != bare ] || { mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; }
echo ready
exec cat`

func newPlace(t *testing.T, name string) *place {
	t.Helper()
	needsRoot(t, "it makes users and namespaces")
	dir, err := os.MkdirTemp(work, "place-")
	if err != nil {
		t.Fatal(err)
	}
	p := &place{name: name, tmp: filepath.Join(dir, "tmp"), home: filepath.Join(dir, "home")}
	for _, d := range []string{p.tmp, p.home} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	how := "keep"
	if name == withNothing {
		how = "hide"
	}
	p.keep(t, how)
	switch name {
	case inContainer:
		p.become = append(p.become, "setpriv", "--bounding-set", "-sys_admin")
	case withSetuid, withNothing:
		user := ownUser(t)
		os.Chmod(dir, 0o755)
		if _, err := output("chown", user, p.tmp, p.home); err != nil {
			t.Fatal(err)
		}
		p.become = append(p.become, "setpriv", "--reuid", user, "--regid", user, "--init-groups")
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return p
}

// keep makes the namespace.
func (p *place) keep(t *testing.T, how string) {
	t.Helper()
	c := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", setUpPlace, "sh", how)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if l, err := bufio.NewReader(out).ReadString('\n'); l != "ready\n" {
		t.Fatal("the namespace:", l, err)
	}
	t.Cleanup(func() {
		in.Close()
		c.Wait()
	})
	p.keeper = c.Process.Pid
	p.become = []string{"nsenter", "--mount=/proc/" + strconv.Itoa(p.keeper) + "/ns/mnt", "--wd=" + work}
}

// ownUser creates a user for the test.
func ownUser(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("mlflowfs-exec%d", time.Now().UnixNano()%1e9)
	do := func(args ...string) (err error) {
		for range 100 { // while another test makes one, the file is locked
			if _, err = output(args[0], args[1:]...); err == nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		return err
	}
	if err := do("useradd", "--system", "--no-create-home", "--shell", "/bin/sh", name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := do("userdel", name); err != nil {
			t.Error(err)
		}
	})
	return name
}

// exec is `mlflowfs exec` of a command, or of flags and a command, in the place.
func (p *place) exec(t *testing.T, uri string, command ...string) *exec.Cmd {
	t.Helper()
	own := mlflowfs(t, []string{"HOME=" + p.home, "TMPDIR=" + p.tmp}, "exec", "--tracking-uri", uri)
	args := slices.Concat(p.become, own.Args)
	if !strings.HasPrefix(command[0], "--") {
		args = append(args, "--")
	}
	c := exec.Command(args[0], slices.Concat(args[1:], command)...)
	c.Env = own.Env
	return c
}

// isClean fails the test if a mount, a process or a directory is left.
func (p *place) isClean(t *testing.T) {
	t.Helper()
	var left []string
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left = nil
		for l := range strings.Lines(readFile(fmt.Sprintf("/proc/%d/mountinfo", p.keeper))) {
			if strings.Contains(l, p.tmp) {
				left = append(left, "a mount: "+l)
			}
		}
		dirs, _ := filepath.Glob(p.tmp + "/*")
		for _, pid := range p.processes() {
			left = append(left, fmt.Sprint("a process: ", pid, " ", process{pid: pid}.file("cmdline")))
		}
		if left = append(left, dirs...); len(left) == 0 || time.Now().After(end) {
			break
		}
	}
	if len(left) > 0 {
		t.Errorf("%s: left behind: %q", p.name, left)
	}
}

// processes are those of exec, and of its command, in the place.
func (p *place) processes() (pids []int) {
	for _, q := range processes() {
		if strings.Contains(q.file("environ"), "TMPDIR="+p.tmp+"\x00") || strings.Contains(q.args, p.tmp) {
			if state := q.file("stat"); !strings.Contains(state, ") Z") && state != "" {
				pids = append(pids, q.pid)
			}
		}
	}
	return pids
}

// running is a started exec whose command writes a line when it runs.
type running struct {
	*exec.Cmd
	out    *bufio.Reader
	errs   bytes.Buffer
	waited chan struct{}
}

// start starts an exec in a process group of its own.
func (p *place) start(t *testing.T, uri string, command ...string) *running {
	t.Helper()
	r := &running{Cmd: p.exec(t, uri, command...), waited: make(chan struct{})}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.out, r.Stdout, r.Stderr = bufio.NewReader(out), w, &r.errs
	r.WaitDelay = time.Second
	r.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() {
		r.Wait()
		close(r.waited)
	}()
	t.Cleanup(func() {
		syscall.Kill(-r.Process.Pid, syscall.SIGKILL)
		<-r.waited
		out.Close()
	})
	return r
}

// line is the next line that the command writes.
func (r *running) line(t *testing.T) string {
	t.Helper()
	late := time.AfterFunc(long, func() { r.Process.Kill() }) // a word that does not come fails the test, and holds no other
	defer late.Stop()
	l, err := r.out.ReadString('\n')
	if err != nil {
		<-r.waited
		t.Fatalf("%v, %v: %s", err, r.ProcessState, r.errs.String())
	}
	return strings.TrimSuffix(l, "\n")
}

// ends waits for the end, and gives it as a shell would.
func (r *running) ends(t *testing.T) int {
	t.Helper()
	select {
	case <-r.waited:
	case <-time.After(30 * time.Second):
		t.Fatalf("it does not end: %s", r.errs.String())
	}
	return codeOf(r.ProcessState)
}

// codeOf is an exit code as shells give it, of a program that was ended by a signal too.
func codeOf(s *os.ProcessState) int {
	if st := s.Sys().(syscall.WaitStatus); st.Signaled() {
		return 128 + int(st.Signal())
	}
	return s.ExitCode()
}

// holder gives the process that holds the mount of an exec in the place. Its child, the
// daemon, has the same command line.
func (p *place) holder(t *testing.T) (pid int) {
	t.Helper()
	waitFor(t, "no holder", long, func() bool {
		mounts := map[int]bool{}
		for _, q := range processes() {
			if strings.Contains(q.args, "/proc/self/exe mount "+p.tmp) {
				mounts[q.pid] = true
			}
		}
		for q := range mounts {
			if !mounts[(process{pid: q}).parent()] {
				pid = q
			}
		}
		return pid > 0
	})
	return pid
}
