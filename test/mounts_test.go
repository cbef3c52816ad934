package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// raced is mlflowfs with the race detector, for tests in which goroutines meet.
// It takes many times as long for all that it does.
var raced = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(work, "raced")
	return bin, build(bin, "CGO_ENABLED=1", "-race")
})

// shipped is mlflowfs as it is given to people, for tests that compare bytes, or
// time.
var shipped = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(work, "shipped")
	return bin, build(bin, "CGO_ENABLED=0")
})

// build builds mlflowfs with the flags of the Makefile, so that what it imports is
// compiled already.
func build(bin, cgo string, flags ...string) error {
	c := exec.Command("go", slices.Concat([]string{"build"}, flags, []string{"-o", bin, "../cmd/mlflowfs"})...)
	c.Env = append(os.Environ(), cgo, "GOFLAGS=-buildvcs=false -trimpath -tags=disable_grpc_modules")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// allowLoopback lets servers lead to the other servers of the tests, which are all
// on this machine.
const allowLoopback = "MLFLOWFS_ALLOW_ADDRESS=127.0.0.1,::1"

// mlflowfs is a command of ours, in an environment without anything of
// MLflow's.
func mlflowfs(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	return built(t, shipped, env, args...)
}

func built(t *testing.T, build func() (string, error), env []string, args ...string) *exec.Cmd {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(bin, args...)
	c.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + work, "GORACE=halt_on_error=1 atexit_sleep_ms=20", noMetadata, allowLoopback}, env...)
	return c
}

// mount is a running mount.
type mount struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
	log *count.Log

	ended  chan struct{} // closed when the daemon has exited
	err    error         // of its exit
	killed bool
}

// fast makes a mount give up early where a test waits for that.
var fast = []string{"MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR=0.05", "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER=0", "MLFLOW_HTTP_REQUEST_MAX_RETRIES=4"}

// mountAt mounts a tracking URI and returns when the mount is ready. The mount
// goes with the test, and must go without a word of panic.
func mountAt(t *testing.T, uri string, env []string, flags ...string) *mount {
	t.Helper()
	return mountWith(t, shipped, uri, env, flags...)
}

// mountRaced is mountAt with the race detector, of which there must be no word
// either.
func mountRaced(t *testing.T, uri string, env []string, flags ...string) *mount {
	t.Helper()
	return mountWith(t, raced, uri, env, flags...)
}

func mountWith(t *testing.T, build func() (string, error), uri string, env []string, flags ...string) *mount {
	t.Helper()
	dir, err := os.MkdirTemp(work, "mnt-")
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"mount"}, flags...)
	if uri != "" {
		args = append(args, "--tracking-uri", uri)
	}
	// A cache of its own: nothing comes from another test's reads.
	cached, err := os.MkdirTemp(work, "cache-")
	if err != nil {
		t.Fatal(err)
	}
	env = append([]string{"MLFLOWFS_CACHE_DIR=" + cached}, env...)
	m := launch(t, dir, built(t, build, env, append(args, dir)...))
	t.Cleanup(func() {
		m.stop()
		os.RemoveAll(cached)
	})
	return m
}

// launch starts a command that mounts at dir, and returns when it says that
// the mount is ready.
func launch(t *testing.T, dir string, cmd *exec.Cmd) *mount {
	t.Helper()
	m := &mount{t: t, dir: dir, cmd: cmd, log: &count.Log{}, ended: make(chan struct{})}
	cmd.Stderr = m.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		m.err = cmd.Wait()
		close(m.ended)
	}()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) { // an emulated machine takes half of one
		if strings.Contains(m.log.String(), "Ctrl-C unmounts") {
			return m
		}
		select {
		case <-m.ended:
			t.Fatalf("the mount ended: %v\n%s", m.err, m.log)
		default:
		}
		if time.Now().After(end) {
			cmd.Process.Kill()
			syscall.Unmount(dir, syscall.MNT_DETACH)
			t.Fatalf("the mount is not ready:\n%s", m.log)
		}
	}
}

// holders are the processes that have something of a mount open, stand in it, or have it
// in a mount namespace of their own.
func holders(dir string) (out []string) {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		mounts, _ := os.ReadFile(p + "/mountinfo")
		how := ""
		if bytes.Contains(mounts, []byte(" "+dir+" ")) {
			how = "its namespace"
		}
		places, _ := filepath.Glob(p + "/fd/*")
		for _, l := range append(places, p+"/cwd", p+"/root") {
			if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, dir) {
				how = to
			}
		}
		if how != "" {
			args, _ := os.ReadFile(p + "/cmdline")
			out = append(out, fmt.Sprintf("%s (%.100q): %s", filepath.Base(p), args, how))
		}
	}
	return out
}

// stop unmounts by SIGTERM and looks at what the daemon said.
func (m *mount) stop() {
	m.t.Helper()
	m.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.ended:
	case <-time.After(20 * time.Second):
		held := holders(m.dir)
		m.cmd.Process.Signal(syscall.SIGQUIT) // its goroutines go to the log
		select {
		case <-m.ended:
		case <-time.After(10 * time.Second):
			m.cmd.Process.Kill()
			<-m.ended
		}
		m.t.Errorf("the daemon does not end; its mount is in use by %v:\n%s", held, m.log)
	}
	if m.err != nil && !m.killed {
		m.t.Errorf("the daemon ended with %v:\n%s", m.err, m.log)
	}
	for _, bad := range []string{"panic", "DATA RACE", "goroutine "} {
		if strings.Contains(m.log.String(), bad) {
			m.t.Errorf("the daemon's log:\n%s", m.log)
			break
		}
	}
	syscall.Unmount(m.dir, syscall.MNT_DETACH) // what a killed daemon left
	if err := os.Remove(m.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Errorf("the mount point: %v", err)
	}
}

// daemon is the process that answers the mount. The one that was started holds it.
func (m *mount) daemon() (pid int) {
	m.t.Helper()
	waitFor(m.t, "the mount has no daemon", long, func() bool {
		for _, p := range processes() {
			if p.parent() == m.cmd.Process.Pid {
				pid = p.pid
			}
		}
		return pid > 0
	})
	return pid
}

// kill kills the daemon and who holds its mount, at the same moment.
func (m *mount) kill() {
	m.t.Helper()
	daemon := m.daemon()
	m.killed = true
	m.cmd.Process.Signal(syscall.SIGSTOP) // it starts no other
	syscall.Kill(daemon, syscall.SIGKILL)
	m.cmd.Process.Kill()
}

// path joins a path to the mount.
func (m *mount) path(parts ...string) string {
	return filepath.Join(append([]string{m.dir}, parts...)...)
}

// read reads a file in a process of its own: a test must not wait on its own
// threads for a mount.
func read(path string) ([]byte, error) { return output("cat", path) }

// output runs a command and gives its standard output; what it said on
// standard error is in the error.
func output(name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, tail(errs.String()))
	}
	return out, err
}

func lines(b []byte) []string {
	return strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' })
}

// long is how long a test waits for what comes soon: a fault alone takes so long, and
// no busy machine. What is promised in some time is waited for no longer than that.
const long = time.Minute

// waitFor waits until cond is true.
func waitFor(t *testing.T, what string, limit time.Duration, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v: %s", limit, what)
		}
	}
}

// aloneInNamespace is a shell's command that has a new mount namespace let go of the
// mounts of other tests: one that is in it, too, does not end when it is unmounted.
const aloneInNamespace = `awk '$3 ~ /^fuse/ { print $2 }' /proc/mounts | xargs -r umount -l`

// reads are the READs that the kernel has sent to a daemon with the flags
// count.Logged.
func (m *mount) reads() count.Reads { return count.ReadsInLog(m.log.String()) }

// status is what the mount says of itself.
type status struct {
	PID    int `json:"pid"`
	Daemon int `json:"daemon_pid"`
	FUSE   struct {
		Names, Opens int64
		PushedBytes  int64 `json:"pushed_bytes"`
	}
	Requests map[string]int64 `json:"server_requests"`
}

func (m *mount) status() (s status) {
	m.t.Helper()
	if err := count.Status(m.dir, &s); err != nil {
		m.t.Fatal(err)
	}
	return s
}

// settled waits until a value has stayed the same for a while.
func settled(f func() int64) {
	last, since := f(), time.Now()
	for end := time.Now().Add(30 * time.Second); time.Since(since) < 300*time.Millisecond && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if now := f(); now != last {
			last, since = now, time.Now()
		}
	}
}

// cache is what the mount's cache did so far.
func (m *mount) cache() count.Cache {
	m.t.Helper()
	c, err := count.CacheOf(m.dir)
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// proxyTo counts before a server, and breaks what it sends; the bytes that count
// are those of artifacts.
func proxyTo(t *testing.T, target string) *count.Origin {
	t.Helper()
	return proxyOf(t, target, artifactsAPI+"/")
}

func proxyOf(t *testing.T, target, counted string) *count.Origin {
	t.Helper()
	o, err := count.NewOrigin(target, counted)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Stop)
	return o
}

const artifactsAPI = "/api/2.0/mlflow-artifacts/artifacts"
