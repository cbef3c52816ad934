package test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// wheelVersion is that of builtWheel, as packages have it, and as Python does.
const wheelVersion, wheelVersionInPython = "1.2.3-4-gabc123", "1.2.3.post4+gabc123"

var theWheel = sync.OnceValues(func() (string, error) {
	dist := filepath.Join(work, "wheel", "dist")
	c := exec.Command("../packaging/build.sh", wheelVersion)
	c.Env = append(os.Environ(), "DIST="+dist, "FORMATS=wheel", "ARCHES="+runtime.GOARCH, "SYSTEMS=linux")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, tail(string(out)))
	}
	found, err := filepath.Glob(filepath.Join(dist, "*.whl"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%v, %w", found, err)
	}
	return found[0], nil
})

// builtWheel is the wheel for this machine, as make wheel builds it. It is built when the
// first test wants it; what lies beside it is what is given to people.
func builtWheel(t *testing.T) string {
	t.Helper()
	name, err := theWheel()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

var theVenv = sync.OnceValues(func() (string, error) {
	name, err := theWheel()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(work, "wheel", "venv")
	if _, err = output("python3", "-m", "venv", dir); err == nil {
		_, err = output(filepath.Join(dir, "bin", "pip"), "install", "--no-index", name)
	}
	return dir, err
})

// wheelVenv is a virtual environment of its own with builtWheel and nothing else. Tests
// share it, and leave it as it is.
func wheelVenv(t *testing.T) string {
	t.Helper()
	dir, err := theVenv()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// inVenv is a command in an environment where the programs are those of a virtual
// environment and of Debian: there is no Go. What it makes for a while lies below tmp.
func inVenv(venv, tmp string, env []string, name string, args ...string) *exec.Cmd {
	if !strings.Contains(name, "/") {
		name = filepath.Join(venv, "bin", name)
	}
	c := exec.Command(name, args...)
	c.Env = append([]string{"PATH=" + filepath.Join(venv, "bin") + ":/usr/bin:/bin", "HOME=" + tmp, "TMPDIR=" + tmp, "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1",
		"MLFLOWFS_CACHE_DIR=none", "PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_CACHE_DIR=" + tmp + "/pip", noMetadata, allowLoopback}, env...)
	return c
}

// said runs a command and gives what it prints.
func said(t *testing.T, c *exec.Cmd) string {
	t.Helper()
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", c.Args, err, out, tail(errs.String()))
	}
	return string(out)
}

// TestWheelIsWhole fails when the wheel is not what its name says: when it is too large,
// for other machines, needs something else, or lacks the program, its SBOM or the types;
// or when an installer would find it damaged.
func TestWheelIsWhole(t *testing.T) {
	t.Parallel()
	name := builtWheel(t)
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	tags := []string{"py3-none-manylinux_2_17_" + machine, "py3-none-manylinux2014_" + machine}
	if want := "mlflowfs-" + wheelVersionInPython + "-" + tags[0] + ".manylinux2014_" + machine + ".whl"; filepath.Base(name) != want {
		t.Errorf("it is %s, and not %s", filepath.Base(name), want)
	}
	st, err := os.Stat(name)
	if err != nil || st.Size() >= 30<<20 {
		t.Errorf("it has %d bytes, %v", st.Size(), err)
	}
	figure(t, "the wheel has %.1f MiB", float64(st.Size())/(1<<20))
	z, err := zip.OpenReader(name)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	files := map[string][]byte{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if files[f.Name], err = io.ReadAll(r); err != nil {
			t.Error(f.Name, err)
		}
		r.Close()
	}
	info, program := "mlflowfs-"+wheelVersionInPython+".dist-info/", "mlflowfs-"+wheelVersionInPython+".data/scripts/mlflowfs"
	wheelRecord(t, files, info+"RECORD")
	var tagged []string
	for _, m := range regexp.MustCompile(`(?m)^Tag: (.+)$`).FindAllSubmatch(files[info+"WHEEL"], -1) {
		tagged = append(tagged, string(m[1]))
	}
	slices.Sort(tags)
	slices.Sort(tagged)
	if meta := string(files[info+"METADATA"]); !slices.Equal(tagged, tags) || !strings.Contains(meta, "\nRequires-Python: >=3.9\n") || strings.Contains(meta, "\nRequires-Dist:") {
		t.Errorf("its tags are %q and not %q, or it needs what it should not:\n%s", tagged, tags, tail(meta))
	}
	var sbom struct{ Components []struct{ Name string } }
	inside := files[info+"sboms/mlflowfs-"+wheelVersion+"-linux-"+runtime.GOARCH+".cdx.json"]
	if json.Unmarshal(inside, &sbom) != nil || len(sbom.Components) < 20 || !bytes.Contains(inside, []byte("github.com/hanwen/go-fuse/v2")) {
		t.Errorf("its SBOM has %d components", len(sbom.Components))
	}
	for _, f := range []string{"mlflowfs/py.typed", info + "licenses/LICENSE"} {
		if _, ok := files[f]; !ok {
			t.Errorf("it has no %s", f)
		}
	}
	static(t, files[program])
	if sums := readFile(filepath.Join(filepath.Dir(name), "SHA256SUMS")); !strings.Contains(sums, sumOf(t, name)+"  "+filepath.Base(name)+"\n") {
		t.Errorf("the sum of the wheel is not among\n%s", sums)
	}
}

// wheelRecord compares what a wheel has with what its RECORD says.
func wheelRecord(t *testing.T, files map[string][]byte, name string) {
	t.Helper()
	recorded := lines(files[name])
	if len(recorded) != len(files) {
		t.Errorf("RECORD has %d lines for %d files", len(recorded), len(files))
	}
	for _, l := range recorded {
		f := strings.Split(l, ",")
		b, ok := files[f[0]]
		sum := sha256.Sum256(b)
		want := fmt.Sprintf("%s,sha256=%s,%d", f[0], base64.RawURLEncoding.EncodeToString(sum[:]), len(b))
		if f[0] == name {
			want = name + ",,"
		}
		if !ok || l != want {
			t.Errorf("RECORD says %q and not %q", l, want)
		}
	}
}

// static fails where a program is not static, or not stripped.
func static(t *testing.T, program []byte) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	if libs, _ := f.ImportedLibraries(); len(libs) > 0 || f.Section(".interp") != nil {
		t.Errorf("the program needs %q", libs)
	}
	if f.Section(".symtab") != nil || f.Section(".debug_info") != nil || f.Section(".zdebug_info") != nil {
		t.Error("the program is not stripped")
	}
}

// TestTwoCommandsReadAModel fails when somebody with a new virtual environment and without
// Go needs more than pip and a line of Python to read a model of a server; or when what
// pip has brought is not whole, or does not go again.
func TestTwoCommandsReadAModel(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17")
	dist, venv, tmp := filepath.Dir(builtWheel(t)), filepath.Join(t.TempDir(), "venv"), t.TempDir()
	if _, err := output("python3", "-m", "venv", venv); err != nil {
		t.Fatal(err)
	}
	before := pathsBelow(t, venv)
	env := []string{"MLFLOW_TRACKING_URI=" + s.uri, "PIP_NO_INDEX=1", "PIP_FIND_LINKS=" + dist}
	said(t, inVenv(venv, tmp, env, "pip", "install", "mlflowfs"))
	got := said(t, inVenv(venv, tmp, env, "python", "-c", `import mlflowfs; print((mlflowfs.mount().path / "models/echo@champion/MLmodel").read_text(), end="")`))
	model, err := mlflowfs(t, nil, "cat", "--tracking-uri", s.uri, "models:/echo@champion/MLmodel").Output()
	if err != nil || got != string(model) || !strings.Contains(got, "model_uuid") {
		t.Errorf("%v\n%q\n%q", err, got, model)
	}

	for _, command := range [][]string{{"mlflowfs"}, {"python", "-m", "mlflowfs"}} {
		if out := said(t, inVenv(venv, tmp, env, command[0], append(command[1:], "--version")...)); !strings.Contains(out, wheelVersion) {
			t.Errorf("%v: %s", command, out)
		}
		c := inVenv(venv, tmp, env, command[0], append(command[1:], "cat", "models:/none/1")...)
		if out, err := c.CombinedOutput(); c.ProcessState.ExitCode() != 3 || !strings.HasPrefix(string(out), "mlflowfs: ") {
			t.Errorf("%v ends with %v: %s", command, err, out)
		}
	}
	if out := said(t, inVenv(venv, tmp, env, "python", "-c", "import mlflowfs; print(mlflowfs.__version__)")); out != wheelVersionInPython+"\n" {
		t.Error(out)
	}
	said(t, inVenv(venv, tmp, env, "pip", "check"))
	said(t, inVenv(venv, tmp, env, "pip", "uninstall", "--yes", "mlflowfs"))
	if after := pathsBelow(t, venv); !slices.Equal(before, after) {
		t.Errorf("uninstalled, it leaves %d files, and not %d", len(after), len(before))
	}
}

// pathsBelow are the names of all files below a directory, but for compiled Python.
func pathsBelow(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "__pycache__" {
			return filepath.SkipDir
		}
		names = append(names, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestProgramIsFoundWhereverItIsInstalled fails when the package does not find its own
// program, or does not run, however it was installed: by pip into a directory, below a
// prefix, or for a user who is not root; by pipx, or by uv; or when another program on
// PATH goes before its own.
func TestProgramIsFoundWhereverItIsInstalled(t *testing.T) {
	t.Parallel()
	wheel, venv, tmp := builtWheel(t), wheelVenv(t), t.TempDir()
	const where = "import mlflowfs; print(mlflowfs.executable())"
	pip := func(args ...string) {
		t.Helper()
		said(t, inVenv(venv, tmp, nil, "pip", append([]string{"install", "--no-index", "--ignore-installed", "--no-warn-script-location"}, append(args, wheel)...)...))
	}
	python, err := output("readlink", "-f", filepath.Join(venv, "bin", "python"))
	if err != nil {
		t.Fatal(err)
	}
	bare := strings.TrimSpace(string(python)) // without what the environment has
	version := strings.TrimSpace(said(t, exec.Command(bare, "-c", "import sys; print('python%d.%d' % sys.version_info[:2])")))
	target, prefix := filepath.Join(tmp, "target"), filepath.Join(tmp, "prefix")
	pip("--target", target)
	pip("--prefix", prefix)
	for path, want := range map[string]string{target: target + "/bin/mlflowfs", filepath.Join(prefix, "lib", version, "site-packages"): prefix + "/bin/mlflowfs"} {
		if got := strings.TrimSpace(said(t, inVenv(venv, tmp, []string{"PYTHONPATH=" + path}, bare, "-c", where))); got != want {
			t.Errorf("of %s the program is %s", path, got)
		}
	}
	other := filepath.Join(tmp, "other")
	if err := errors.Join(os.Mkdir(other, 0o755), os.Symlink("/bin/false", filepath.Join(other, "mlflowfs"))); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(said(t, inVenv(venv, tmp, []string{"PATH=" + other}, "python", "-c", where))); got != filepath.Join(venv, "bin", "mlflowfs") {
		t.Errorf("of a virtual environment the program is %s", got)
	}
	if got := strings.TrimSpace(said(t, inVenv(venv, tmp, []string{"MLFLOWFS_PROGRAM=" + target + "/bin/mlflowfs"}, "python", "-c", where))); got != target+"/bin/mlflowfs" {
		t.Errorf("where one is named the program is %s", got)
	}
	tools := filepath.Join(testenv(), "wheel", "bin")
	for _, run := range [][]string{
		{"pipx", "run", "--spec", wheel, "mlflowfs", "--version"},
		{"uvx", "--offline", "--no-index", "--no-config", "--python", bare, "--from", wheel, "mlflowfs", "--version"},
	} {
		env := []string{"PATH=" + tools + ":/usr/bin:/bin", "PIP_NO_INDEX=1", "PIPX_HOME=" + tmp + "/pipx", "XDG_CACHE_HOME=" + tmp + "/cache"}
		if out := said(t, inVenv(venv, tmp, env, filepath.Join(tools, run[0]), run[1:]...)); !strings.Contains(out, wheelVersion) {
			t.Errorf("%v: %s", run, out)
		}
	}
}

// TestUserInstallsAndMounts fails when a user who is not root can't install for himself, on
// Debian's own Python, and mount: by fusermount3, which must be used for the end, too.
func TestUserInstallsAndMounts(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17")
	wheel, name := builtWheel(t), newUser(t)
	pip, err := filepath.Glob("/usr/share/python-wheels/pip-*.whl")
	if err != nil || len(pip) != 1 {
		t.Fatal(pip, err)
	}
	for d := filepath.Dir(wheel); d != work; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	as := func(command string) string {
		t.Helper()
		out, err := output("su", "-", name, "-c", "export "+allowLoopback+"; "+command)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	as("PYTHONPATH=" + pip[0] + " /usr/bin/python3 -m pip install --quiet --user --break-system-packages --no-warn-script-location --no-index " + wheel)
	out := strings.Fields(as(`MLFLOW_TRACKING_URI=` + s.uri + ` /usr/bin/python3 -c '
import hashlib, mlflowfs, os
print(mlflowfs.executable())
with mlflowfs.mount() as root:
    print(hashlib.sha256((root / "runs/` + s.Wide + `/big.bin").read_bytes()).hexdigest(), root)
print(os.path.exists(root))
'`))
	if want := sumOf(t, filepath.Join(s.server.artifacts(), experimentOf(t, s), s.Wide, "artifacts", "big.bin")); len(out) != 4 || !strings.HasSuffix(out[0], name+"/.local/bin/mlflowfs") || out[1] != want || out[3] != "False" {
		t.Errorf("%q, want the sum %s", out, want)
	}
	if b := readFile("/proc/self/mounts"); len(out) == 4 && strings.Contains(b, out[2]) {
		t.Error("it is still mounted")
	}
}

// TestPythonTypesAreWhole fails when a type checker finds fault with the package, or with a
// program that uses it as its pages say.
func TestPythonTypesAreWhole(t *testing.T) {
	t.Parallel()
	venv, tmp := wheelVenv(t), t.TempDir()
	mypy := filepath.Join(testenv(), "wheel", "bin", "mypy")
	program := filepath.Join(tmp, "uses.py")
	const uses = `
from pathlib import Path
import mlflowfs

with mlflowfs.mount("http://localhost:5000", cache_size="20GiB", allow_other=True, parallelism=8, mount_uris=["s3://a", "s3://b"]) as root:
    text: str = (root / "models").read_text()
where: Path = mlflowfs.path("models:/fraud@champion")
one: float = mlflowfs.status(where)["uptime_seconds"]
all: list[str] = [s["mountpoint"] for s in mlflowfs.status()]
mlflowfs.mount(mountpoint=1)  # type: ignore[arg-type]
`
	if err := os.WriteFile(program, []byte(uses), 0o644); err != nil {
		t.Fatal(err)
	}
	source, err := filepath.Abs("../packaging/python")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{source + "/src/mlflowfs", source + "/src/mlflowfs_plugin.py"}, {source + "/hatch_build.py"}, {"--python-executable", venv + "/bin/python", program}} {
		c := exec.Command(mypy, append([]string{"--strict", "--cache-dir", tmp + "/cache"}, args...)...)
		c.Dir = tmp
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v: %s, %v", args, out, err)
		}
	}
}
