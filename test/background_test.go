package test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// TestDaemonReturnsWhenItAnswers fails when a mount in the background does not
// return when it answers, or does not say why it does not, with the exit code
// that it has in the foreground; or when its log is not in its file.
func TestDaemonReturnsWhenItAnswers(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"f": 1 << 20})
	home := t.TempDir()
	dir, err := os.MkdirTemp(work, "mnt-")
	if err != nil {
		t.Fatal(err)
	}
	env := append([]string{"HOME=" + home, "XDG_STATE_HOME=" + home + "/state", "MLFLOWFS_CACHE_DIR=none"}, fast...)
	run := func(code int, args ...string) string {
		t.Helper()
		out, err := mlflowfs(t, env, args...).CombinedOutput()
		got := 0
		if x, ok := err.(*exec.ExitError); ok {
			got = x.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if got != code {
			t.Errorf("%v ends with %d, and not %d:\n%s", args, got, code, out)
		}
		return string(out)
	}
	const password = "s3cret-of-this-mount" // and of no server that runs beside
	uri := strings.Replace(e.URL, "://", "://me:"+password+"@", 1)
	said := run(0, "mount", "--daemon", "--tracking-uri", uri, dir)
	m := &mount{t: t, dir: dir}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	e.same(t, m, "f") // at once
	logFile := filepath.Join(home, "state", "mlflowfs", strings.ReplaceAll(strings.Trim(dir, "/"), "/", "-")+".log")
	if !strings.Contains(said, logFile) || !strings.Contains(said, dir+" shows") || strings.Contains(said, password) {
		t.Error(said)
	}
	if out, err := output("grep", "-l", password, "-r", "/proc/self/mounts", logFile); err == nil {
		t.Errorf("a password is in %s", out)
	}
	for _, p := range processes() {
		if strings.Contains(p.args, password) {
			t.Errorf("a password is in the process list: %q", p.args)
		}
	}
	run(1, "mount", "--daemon", "--tracking-uri", e.URL, dir) // is mounted
	output("ls", m.path("runs", "00000000000000000000000000000000", "x"))
	output("cat", m.path("uri"))
	run(0, "unmount", dir)
	waitFor(t, "the daemon does not end", 10*time.Second, func() bool { return !strings.Contains(leftovers(), dir) })

	other := startOther(t)
	if out := run(1, "mount", "--daemon", "--tracking-uri", other, dir); !strings.Contains(out, "is no MLflow tracking server") {
		t.Errorf("why it does not mount: %s", out)
	}
	run(2, "mount", "--daemon", "--parallelism", "0", dir)
	run(3, "mount", "--daemon", "--tracking-uri", "sqlite:///"+home+"/none.db", dir)
	os.Remove(dir)
}

// TestMountEndsWithWhomItServes fails when a mount stays though the program that started it
// has let go of its life line, or goes before; when that program is not told, on the
// descriptor that it names, how it went; or when a mount point that was made for the mount
// stays.
func TestMountEndsWithWhomItServes(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"f": 1 << 20})
	start := func(uri string, env ...string) (m *mount, said string, life *os.File) {
		t.Helper()
		dir, err := os.MkdirTemp(work, "mnt-")
		if err != nil {
			t.Fatal(err)
		}
		watched, life, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		ready, told, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		m = &mount{t: t, dir: dir, log: &count.Log{}, ended: make(chan struct{})}
		m.cmd = mlflowfs(t, append(env, "MLFLOWFS_LIFE_FD=3", "MLFLOWFS_READY_FD=4", "MLFLOWFS_CACHE_DIR=none"), "mount", "--tracking-uri", uri, dir)
		m.cmd.Stderr, m.cmd.ExtraFiles = m.log, []*os.File{watched, told}
		if err := m.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		watched.Close()
		told.Close()
		go func() {
			m.err = m.cmd.Wait()
			close(m.ended)
		}()
		b, _ := io.ReadAll(ready)
		ready.Close()
		return m, string(b), life
	}
	for _, own := range []bool{false, true} {
		var env []string
		if own {
			env = []string{"MLFLOWFS_OWN_MOUNTPOINT=1"}
		}
		m, said, life := start(e.URL, env...)
		if !strings.Contains(said, m.dir+" shows") || m.log.String() != "" {
			t.Errorf("it tells %q, and on standard error\n%s", said, m.log)
		}
		e.same(t, m, "f")
		select {
		case <-m.ended:
			t.Error("it ends though its life line is held")
		default:
		}
		if b := (process{pid: m.cmd.Process.Pid}).file("mounts"); !strings.Contains(b, m.dir) {
			t.Error("it is not mounted")
		}
		life.Close()
		select {
		case <-m.ended:
		case <-time.After(10 * time.Second):
			t.Error("it stays")
		}
		if _, err := os.Stat(m.dir); os.IsNotExist(err) != own {
			t.Errorf("a mount point that was made for it (%v): %v", own, err)
		}
		m.stop()
	}
	m, said, life := start("sqlite:///" + work + "/none.db")
	defer life.Close()
	<-m.ended
	if !strings.Contains(said, "none.db") || !strings.Contains(said, `"Code":3`) || m.log.String() != "" {
		t.Errorf("of what it can't mount it tells %q, and on standard error\n%s", said, m.log)
	}
	os.Remove(m.dir)
}

// startOther gives the address of a web server that is no MLflow's.
func startOther(t *testing.T) string {
	t.Helper()
	p := proxyTo(t, "http://127.0.0.1:1")
	p.Break(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(404); return true }, nil)
	return p.URL
}

// TestMountHelperTakesOptions fails when mount(8) or a line of fstab(5) does not
// mount by our helper, with options in its own form.
func TestMountHelperTakesOptions(t *testing.T) {
	t.Parallel()
	needsRoot(t, "it has mount(8) call a helper")
	bin, err := shipped()
	if err != nil {
		t.Fatal(err)
	}
	const helper = "/sbin/mount.mlflowfs"
	if _, err := os.Lstat(helper); err == nil {
		t.Fatal(helper + " is there already")
	}
	if err := os.Symlink(bin, helper); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(helper)
	e := newEngineFiles(t, map[string]int{"f": 1 << 20})
	dir, err := os.MkdirTemp(work, "mnt-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	m := &mount{t: t, dir: dir}
	cached := t.TempDir()
	log := filepath.Join(t.TempDir(), "log")
	options := "_netdev,allow_other,cache_size=20M,metadata_ttl=1s,nosuid,x-systemd.automount,cache_dir=" + cached + ",log_file=" + log
	fstab := filepath.Join(t.TempDir(), "fstab")
	if err := os.WriteFile(fstab, []byte(fmt.Sprintf("%s %s mlflowfs %s 0 0\n", e.URL, dir, options)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-t", "mlflowfs", e.URL, dir, "-o", options}, {"-T", fstab, dir}} {
		if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
			t.Errorf("mount %v: %s, %v", args, out, err)
			continue
		}
		e.same(t, m, "f")
		config, err := read(m.path(".mlflowfs", "config.yaml"))
		for _, want := range []string{`allow-other: "true"`, `cache-size: "20000000"`, "metadata-ttl: 1s  # the variable", `parallelism: "8"  # the default`} {
			if !strings.Contains(string(config), want) {
				t.Errorf("no %q in its settings, %v:\n%s", want, err, config)
			}
		}
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %s, %v", out, err)
		}
		waitFor(t, "the daemon does not end", 10*time.Second, func() bool { return !strings.Contains(leftovers(), dir) })
	}
	out, err := exec.Command("mount", "-t", "mlflowfs", e.URL, dir, "-o", "cache_sise=20G").CombinedOutput()
	if err == nil || !strings.Contains(string(out), `do you mean "cache_size"`) {
		t.Errorf("a wrong option: %s, %v", out, err)
	}
}

// TestSystemdIsTold fails when systemd is not told when the mount answers, or
// that it goes on.
func TestSystemdIsTold(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e := newEngineFiles(t, map[string]int{"f": 1000})
	m := mountAt(t, e.URL, append([]string{"NOTIFY_SOCKET=" + socket, "WATCHDOG_USEC=400000"}, fast...))
	buf := make([]byte, 1000)
	hear := func() string {
		t.Helper()
		l.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := l.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	if s := hear(); !strings.Contains(s, "READY=1") || !strings.Contains(s, "STATUS=shows http://") {
		t.Errorf("%q", s)
	}
	for range 2 {
		if s := hear(); s != "WATCHDOG=1" {
			t.Errorf("%q", s)
		}
	}
	e.same(t, m, "f")
}

// TestSettingsHaveAnOrder fails when settings do not come from the command line,
// the environment and a file, in that order; or when for a name that is none the
// nearest one is not said.
func TestSettingsHaveAnOrder(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	file := filepath.Join(home, ".config", "mlflowfs", "config.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	show := func(env []string, args ...string) string {
		out, err := mlflowfs(t, append([]string{"HOME=" + home}, env...), append([]string{"config", "show"}, args...)...).CombinedOutput()
		return fmt.Sprint(string(out), err)
	}
	write("cache-size: 3GiB\nparallelism: 4\nmetadata-ttl: 5s\nallow-other: true\nmount-uris:\n- s3://a\n- gs://b/c\ntracking-uri: http://me:s3cret@host:5000\n")
	got := show([]string{"MLFLOWFS_PARALLELISM=5", "MLFLOWFS_METADATA_TTL=6s"}, "--metadata-ttl", "7s")
	for _, want := range []string{
		"# " + file, "cache-size: 3.0 GiB  # " + file, `parallelism: "5"  # the variable MLFLOWFS_PARALLELISM`, "metadata-ttl: 7s  # the command line",
		`allow-other: "true"`, "mount-uris: s3://a,gs://b/c", "log-level: info  # the default", "host:5000",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "s3cret") {
		t.Errorf("a password: %s", got)
	}
	for text, want := range map[string]string{
		"cache-sise: 3GiB\n": `do you mean "cache-size"?`, "paralelism: 3": `do you mean "parallelism"?`, "cache-size: many\n": "is no size",
		"- a\n": "no YAML of the form", "cache-size: {a: b}\n": "one value, or a list",
	} {
		write(text)
		if got := show(nil); !strings.Contains(got, want) || !strings.Contains(got, "exit status 2") {
			t.Errorf("%q: no %q in %s", text, want, got)
		}
	}
	if got := show(nil, "--config", home+"/none.yaml"); !strings.Contains(got, "none.yaml") || !strings.Contains(got, "exit status 3") {
		t.Error(got)
	}
	// A mount takes it, and shows it.
	s := shared.get(t, "server 3.17")
	write("metadata-ttl: 3s\ntracking-uri: " + s.uri + "\n")
	m := mountAt(t, "", []string{"HOME=" + home})
	if b, err := read(m.path(".mlflowfs", "config.yaml")); err != nil || !strings.Contains(string(b), "metadata-ttl: 3s  # "+file) {
		t.Errorf("%s, %v", b, err)
	}
	if _, err := output("ls", m.path("runs", s.Wide)); err != nil {
		t.Error(err)
	}
}
