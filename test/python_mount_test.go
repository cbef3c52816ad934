package test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// wheelMounts are the mount points below a directory.
func wheelMounts(tmp string) (points []string) {
	for l := range strings.Lines(readFile("/proc/self/mounts")) {
		if f := strings.Fields(l); len(f) > 1 && strings.HasPrefix(f[1], tmp+"/") {
			points = append(points, f[1])
		}
	}
	return points
}

// gone waits until nothing of Python's mounts below tmp is there: no mount, no directory,
// no daemon.
func gone(t *testing.T, what, tmp string) {
	t.Helper()
	left := func() string {
		dirs, _ := filepath.Glob(tmp + "/mlflowfs-*")
		daemons := slices.DeleteFunc(processes(), func(p process) bool { return !strings.Contains(p.args, tmp+"/mlflowfs-") })
		if len(dirs) == 0 && len(daemons) == 0 && len(wheelMounts(tmp)) == 0 {
			return ""
		}
		return fmt.Sprint(dirs, daemons, wheelMounts(tmp))
	}
	for end := time.Now().Add(20 * time.Second); left() != ""; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%s: %s is left", what, left())
			return
		}
	}
}

// TestPythonMountEndsWithItsUsers fails when a mount of Python's stays though nobody of
// its process uses it any more, however that ended; when it goes while somebody uses it,
// in the process or a forked child; or when users with the same settings have two.
func TestPythonMountEndsWithItsUsers(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"f": 1 << 20})
	venv := wheelVenv(t)
	for name, code := range map[string]string{
		"with":      withEnds,
		"exit":      `m = mlflowfs.mount(URI); print(len(os.listdir(m.path)))`,
		"exception": "m = mlflowfs.mount(URI)\ntry:\n    raise SystemExit(0)\nfinally:\n    print(len(os.listdir(m.path)))",
		"fork":      forks,
		"threads":   threads,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tmp := t.TempDir()
			out := said(t, inVenv(venv, tmp, []string{"MLFLOW_TRACKING_URI=" + e.URL, "RUN=" + e.run}, "python", "-X", "dev", "-W", "error", "-c", wheelCode+code))
			if out != "5\n" {
				t.Errorf("%q", out)
			}
			if left := wheelMounts(tmp); len(left) > 0 {
				t.Errorf("the process ends before its mounts: %q", left)
			}
			gone(t, "after its end", tmp)
		})
	}
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		tmp := t.TempDir()
		c := inVenv(venv, tmp, []string{"MLFLOW_TRACKING_URI=" + e.URL}, "python", "-c", wheelCode+"m = mlflowfs.mount(URI); print(m.path, flush=True); time.sleep(1000)")
		root := firstLine(t, c)
		if out, err := output("ls", root); err != nil || len(lines(out)) != 5 {
			t.Errorf("%s, %v", out, err)
		}
		syscall.Kill(c.Process.Pid, syscall.SIGKILL)
		c.Wait()
		gone(t, "after SIGKILL", tmp)
	})
}

// firstLine starts a command, which goes with the test, and gives what it prints first.
func firstLine(t *testing.T, c *exec.Cmd) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer context.AfterFunc(ctx, func() { r.Close() })()
	c.Stdout = w
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() { c.Process.Kill() })
	var line string
	if _, err := fmt.Fscanln(r, &line); err != nil {
		t.Fatal(c.Args[0], err)
	}
	return line
}

const wheelCode = `
import mlflowfs, multiprocessing, os, signal, sys, threading, time
URI = os.environ["MLFLOW_TRACKING_URI"]
def count():
    return sum(os.environ["TMPDIR"] in line for line in open("/proc/self/mounts"))
`

const withEnds = `
read = lambda root: (root / "runs" / os.environ["RUN"] / "f").stat().st_size
m = mlflowfs.mount(URI)
try:
    with m as root:
        with m as again, mlflowfs.mount() as other, mlflowfs.mount(URI, registry_uri=None) as third:
            assert again == root and other != root and third == root, (again, root, other, third)
            assert count() == 2
        assert read(root) == 1 << 20
        raise KeyError("x")
except KeyError:
    pass
assert count() == 0 and not root.exists()
try:
    m.path
    raise SystemExit("it is not closed")
except mlflowfs.Error:
    pass
m.close()
with m as second:  # a cell of a notebook that is run again
    assert read(second) == 1 << 20
    opened = open(second / "runs" / os.environ["RUN"] / "f", "rb")
assert count() == 0
assert len(opened.read()) == 1 << 20  # what is open can be read on
opened.close()

# So does its directory where the daemon was killed.
m = mlflowfs.mount(URI)
root = m.path
os.kill(mlflowfs.status(root)["pid"], signal.SIGKILL)
m.close()
assert count() == 0 and not root.exists()

# Ended by somebody else, the next use mounts anew.
m = mlflowfs.mount(URI)
mlflowfs.unmount(m.path)
with mlflowfs.mount(URI) as root:
    assert count() == 1 and root != m.path
m.close()
assert count() == 0

place = os.environ["TMPDIR"] + "/place"
os.mkdir(place)
with mlflowfs.mount(URI, mountpoint=place, cache_size="20MiB", parallelism=4, offline=False, allow_address=["127.0.0.1", "::1"]) as root:
    assert str(root) == place
    config = (root / ".mlflowfs" / "config.yaml").read_text()
    for said in ("cache-size: 20 MiB  # the variable MLFLOWFS_CACHE_SIZE", 'parallelism: "4"  # the variable', "allow-address: 127.0.0.1,::1  # the variable"):
        assert said in config, config
    names = len(os.listdir(root))
    s = mlflowfs.status(root)
    assert s["mountpoint"] == place and s["cache"]["memory_hits"] >= 0
    assert place in [x["mountpoint"] for x in mlflowfs.status()] and place in [x["mountpoint"] for x in mlflowfs.mounts()]
os.rmdir(place)
print(names)
`

const forks = `
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
fork = multiprocessing.get_context("fork")
m = mlflowfs.mount(URI)
root = m.path
def child():
    with mlflowfs.mount(URI) as mine:
        assert mine == root and count() == 1
p = fork.Process(target=child)
p.start(); p.join()
assert p.exitcode == 0
pid = os.fork()
if pid == 0:  # runs what is to be run at exit
    with m:
        sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
names = len(os.listdir(root))

# A child that lives longer than its parent's use.
r, w = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(w)
    os.read(r, 1)
    time.sleep(0.2)
    with mlflowfs.mount(URI) as mine:
        os._exit(0 if mine == root and len(os.listdir(root)) == names else 1)
begin = time.monotonic()
m.close()
assert time.monotonic() - begin < 5
assert os.path.ismount(root)
with mlflowfs.mount(URI) as new:
    assert new != root
os.write(w, b"x")
assert os.waitpid(pid, 0)[1] == 0
end = time.monotonic() + 10
while (count() or root.exists()) and time.monotonic() < end:
    time.sleep(0.01)
assert not count() and not root.exists()
print(names)
`

const threads = `
roots, barrier = [], threading.Barrier(8)
def use():
    barrier.wait()
    with mlflowfs.mount(URI) as root:
        roots.append(root)
        names.append(len(os.listdir(root)))
        barrier.wait()
        counts.append(count())
        barrier.wait()
names, counts = [], []
all = [threading.Thread(target=use) for _ in range(8)]
[t.start() for t in all]
[t.join() for t in all]
assert len(set(roots)) == 1 and counts == [1] * 8, (roots, counts)
assert count() == 0
print(names[0])
`

// TestPythonErrorsAreTheProgramsSentences fails when what the program says is not what the
// exception says, or the exception is of another kind; or when of a setting that is none
// the nearest one is not said.
func TestPythonErrorsAreTheProgramsSentences(t *testing.T) {
	t.Parallel()
	venv, tmp := wheelVenv(t), t.TempDir()
	refusing := proxyTo(t, "http://127.0.0.1:1")
	refusing.Break(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusUnauthorized); return true }, nil)
	other := startOther(t)
	for _, x := range []struct{ uri, settings, kinds, words string }{
		{"sqlite:///" + tmp + "/none.db", "", "NotFound FileNotFoundError", "none.db"},
		{refusing.URL, "", "Refused PermissionError", "refuses the credentials"},
		{other, "", "Error", "is no MLflow tracking server"},
		{other, "cache_sise='1GiB'", "UsageError ValueError", "is it cache_size"},
		{other, "cache_size='much'", "UsageError ValueError", `"much" is no size`},
		{other, "parallelism=0", "UsageError ValueError", "from 1 to 256"},
		{other, "mountpoint='/proc/nowhere'", "Error", "/proc/nowhere does not exist"},
	} {
		const code = `
import mlflowfs, os, sys
try:
    mlflowfs.mount(os.environ["MLFLOW_TRACKING_URI"], %s)
except mlflowfs.Error as e:
    print(*[k.__name__ for k in type(e).__mro__], e, sep="\n")
`
		c := inVenv(venv, tmp, []string{"MLFLOW_TRACKING_URI=" + x.uri}, "python", "-c", fmt.Sprintf(code, x.settings))
		out, err := c.CombinedOutput()
		got := lines(out)
		for _, k := range strings.Fields(x.kinds) {
			if err != nil || !slices.Contains(got, k) {
				t.Errorf("%s %s: it is no %s: %s, %v", x.uri, x.settings, k, out, err)
			}
		}
		if len(got) == 0 || !strings.Contains(got[len(got)-1], x.words) || strings.HasPrefix(got[len(got)-1], "mlflowfs: ") {
			t.Errorf("%s %s: it does not say %q: %s", x.uri, x.settings, x.words, out)
		}
		gone(t, x.words, tmp)
	}
	// A server that does not answer is mounted, and said.
	c := inVenv(venv, tmp, []string{"MLFLOW_TRACKING_URI=http://127.0.0.1:1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES=0"}, "python", "-c", `
import mlflowfs, os, errno
with mlflowfs.mount() as root:
    try:
        os.listdir(root / "models")
    except OSError as e:
        print(errno.errorcode[e.errno])
`)
	if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "the tracking server does not answer") || !strings.Contains(string(out), "\nEIO\n") {
		t.Errorf("%s, %v", out, err)
	}
	for _, run := range [][]string{{"-m", "mlflowfs", "list"}, {"-c", "import mlflowfs\ntry: mlflowfs.mounts()\nexcept mlflowfs.ProgramMissing as e: raise SystemExit(f'mlflowfs: {e}')"}} {
		c = inVenv(venv, tmp, []string{"MLFLOWFS_PROGRAM=/none/mlflowfs"}, "python", run...)
		if out, err := c.CombinedOutput(); err == nil || string(out) != "mlflowfs: MLFLOWFS_PROGRAM is /none/mlflowfs, which is no program\n" {
			t.Errorf("%s, %v", out, err)
		}
	}
}

// TestPythonShowsNoPassword fails when a password of a tracking URI, or of a setting, is in
// the command line of a process that a mount of Python's starts, or in the table of mounts.
func TestPythonShowsNoPassword(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"f": 1 << 20})
	venv, tmp := wheelVenv(t), t.TempDir()
	const password = "s3cret-of-pythons-mount"
	uri := strings.Replace(e.URL, "://", "://me:"+password+"@", 1)
	c := inVenv(venv, tmp, []string{"URI=" + uri}, "python", "-c", `
import mlflowfs, os, time
m = mlflowfs.mount(os.environ["URI"], registry_uri=os.environ["URI"], header_file="/dev/null")
print(m.path, flush=True)
time.sleep(1000)
`)
	shown := make(chan string, 1)
	stop := make(chan struct{})
	go func() { // also while it starts
		defer close(shown)
		for {
			for _, p := range processes() {
				if strings.Contains(p.args, password) {
					shown <- p.args
					return
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	root := firstLine(t, c)
	close(stop)
	if args := <-shown; args != "" {
		t.Errorf("a password is in the process list: %q", args)
	}
	daemons := slices.DeleteFunc(processes(), func(p process) bool { return !strings.Contains(p.args, root) })
	if b := readFile("/proc/self/mounts"); len(daemons) == 0 || !strings.Contains(b, root) || strings.Contains(b, password) {
		t.Errorf("%v, %s", daemons, b)
	}
	c.Process.Kill()
	c.Wait()
	gone(t, "after its end", tmp)
}

// TestPythonPathAsksTheProgram fails when mlflowfs.path asks the program for something else
// than it was asked for, names a server on the command line, or loses what the program warns of.
func TestPythonPathAsksTheProgram(t *testing.T) {
	t.Parallel()
	venv, tmp := wheelVenv(t), t.TempDir()
	program := filepath.Join(tmp, "program")
	const script = `#!/bin/sh
echo 'level=WARN msg="it is slow"' >&2
case $* in *none*) printf 'mlflowfs: there is no such thing:\n  none\n' >&2; exit 3 ;; esac
echo "/at/$*;$MLFLOW_TRACKING_URI;$MLFLOW_REGISTRY_URI"
`
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	c := inVenv(venv, tmp, []string{"MLFLOWFS_PROGRAM=" + program, "MLFLOW_TRACKING_URI=usual"}, "python", "-c", `
import mlflowfs
print(mlflowfs.path("models:/a@b"))
print(mlflowfs.path("runs:/1/-x", tracking_uri="me:s3cret@there", registry_uri="registry"))
print(mlflowfs.path(run_id="12", artifact_path="a b"))
print(mlflowfs.path(run_id="12"))
for wrong in {}, {"uri": "runs:/1", "run_id": "1"}, {"uri": "runs:/1", "artifact_path": "x"}:
    try:
        print(mlflowfs.path(**wrong))
    except mlflowfs.UsageError as e:
        pass
try:
    mlflowfs.path("none")
except FileNotFoundError as e:
    print(e)
`)
	var errs strings.Builder
	c.Stderr = &errs
	out, err := c.Output()
	const want = `/at/path -- models:/a@b;usual;
/at/path -- runs:/1/-x;me:s3cret@there;registry
/at/path --run-id=12 --path=a b;usual;
/at/path --run-id=12;usual;
there is no such thing:
  none
`
	if err != nil || string(out) != want || strings.Count(errs.String(), "it is slow") != 5 || strings.Contains(errs.String(), "none") {
		t.Errorf("%v: it says %s and %s, and not %s", err, out, errs.String(), want)
	}
}
