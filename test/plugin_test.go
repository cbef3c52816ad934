package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// thePlugin is a directory with what the wheel installs, for PYTHONPATH: it is beside any
// release of MLflow then, and in no environment.
var thePlugin = sync.OnceValues(func() (string, error) {
	wheel, err := theWheel()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(work, "plugin")
	_, err = output(release("mlflow3").bin("python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-index", "--no-deps", "--target", dir, wheel)
	return dir, err
})

// pluginUser is somebody who uses MLflow's client.
type pluginUser struct {
	t    *testing.T
	r    release
	env  []string // whom the client asks, and as whom
	seed string   // the file that plugin_seed.py's line is in

	cache, run string // directories of the program's
}

var pluginUsers atomic.Int64

// newPluginUser logs runs and models with a release's client; location is where the
// artifacts lie, if the server does not say that.
func newPluginUser(t *testing.T, r release, location string, env ...string) *pluginUser {
	t.Helper()
	return pluginUserOf(t, r, "few", location, env...)
}

// pluginUserOf is newPluginUser, with the models of all flavours, or of few.
func pluginUserOf(t *testing.T, r release, flavors, location string, env ...string) *pluginUser {
	t.Helper()

	u := &pluginUser{t: t, r: r, env: env, seed: filepath.Join(t.TempDir(), "seed.json"), cache: t.TempDir(), run: t.TempDir()}
	args := []string{flavors, fmt.Sprintf("plugin%d-", pluginUsers.Add(1))}
	if location != "" {
		args = append(args, location)
	}
	out, _ := u.script(nil, "plugin_seed.py", args...)
	if err := os.WriteFile(u.seed, []byte(lastLine(out)), 0o644); err != nil {
		t.Fatal(err)
	}
	return u
}

// turns are those of scripts that import MLflow, and what loads models besides: one has
// a core to itself, and tests of other things what is left.
var turns = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))

// script runs a script in a process of its own, and gives what it prints, and says.
func (u *pluginUser) script(env []string, name string, args ...string) (out, errs string) {
	u.t.Helper()
	path, err := filepath.Abs(name)
	if err != nil {
		u.t.Fatal(err)
	}
	c := exec.Command(u.r.bin("python"), append([]string{path}, args...)...)
	c.Dir = u.t.TempDir()
	c.Env = slices.Concat(pythonEnv(), []string{"PYTHONDONTWRITEBYTECODE=1", "OMP_NUM_THREADS=1", allowLoopback, "MLFLOWFS_CACHE_DIR=" + u.cache, "XDG_RUNTIME_DIR=" + u.run}, u.env, env)
	var said, warned strings.Builder
	c.Stdout, c.Stderr = &said, &warned
	turns <- struct{}{}
	defer func() { <-turns }()
	if err := c.Run(); err != nil {
		u.t.Fatalf("%s %s: %v\n%s%s", name, args, err, tail(said.String()), tail(warned.String()))
	}
	return said.String(), warned.String()
}

// withPlugin are the variables with which MLflow finds the plug-in.
func withPlugin(t *testing.T) []string {
	t.Helper()
	dir, err := thePlugin()
	if err != nil {
		t.Fatal(err)
	}
	return []string{"PYTHONPATH=" + dir}
}

// pluginCalls is what plugin_calls.py prints.
type pluginCalls struct{ Calls, Temporary map[string]string }

// calls does what plugin_calls.py has; warned are the plug-in's warnings, and written the
// files below the temporary directory that anybody wrote to.
func (u *pluginUser) calls(what string, env ...string) (c pluginCalls, warned, written []string) {
	u.t.Helper()
	tmp := u.t.TempDir()
	stop := watchWrites(u.t, tmp)
	out, errs := u.script(append([]string{"TMPDIR=" + tmp, "MLFLOW_HTTP_REQUEST_MAX_RETRIES=1"}, env...), "plugin_calls.py", what, u.seed)
	written = stop()
	if err := json.Unmarshal([]byte(lastLine(out)), &c); err != nil {
		u.t.Fatalf("%v\n%s", err, tail(out))
	}
	for l := range strings.Lines(errs) {
		if strings.Contains(l, "without mlflowfs") {
			warned = append(warned, strings.TrimSpace(l))
		}
	}
	return c, warned, written
}

// watchWrites makes dir a file system of its own, in which each write by anybody is
// noted: stop gives the names of the files.
func watchWrites(t *testing.T, dir string) (stop func() []string) {
	t.Helper()
	needsRoot(t, "it watches a file system")
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1g"); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_NONBLOCK|unix.FAN_CLOEXEC|unix.FAN_UNLIMITED_QUEUE, unix.O_RDONLY|unix.O_CLOEXEC)
	if err == nil {
		err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_MOUNT, unix.FAN_MODIFY, unix.AT_FDCWD, dir)
	}
	if err != nil {
		syscall.Unmount(dir, syscall.MNT_DETACH)
		t.Fatal(err)
	}
	return func() (names []string) {
		defer syscall.Unmount(dir, syscall.MNT_DETACH)
		defer unix.Close(fd)
		buf := make([]byte, 1<<16)
		for {
			n, err := unix.Read(fd, buf)
			if err != nil || n == 0 {
				slices.Sort(names)
				return slices.Compact(names)
			}
			for b := buf[:n]; len(b) >= 24; b = b[int(b[0])|int(b[1])<<8:] {
				event := int(int32(uint32(b[16]) | uint32(b[17])<<8 | uint32(b[18])<<16 | uint32(b[19])<<24))
				name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", event))
				if filepath.Dir(name) != dir { // MLflow downloads to directories; Python tries whether it may write
					names = append(names, strings.TrimSuffix(name, " (deleted)"))
				}
				unix.Close(event)
			}
		}
	}
}

// TestPluginIsMLflow fails when anything that MLflow's client does with artifacts gives
// another result, or another error, with the plug-in than without; when the plug-in
// warns; or when what it reads in its place is copied to the temporary directory.
func TestPluginIsMLflow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		r        release
		of       string // its server
		registry string
		s3       bool
		few      bool // its flavours are those of another case
		ways     []string
	}{
		"3.17":         {r: "mlflow3", of: "server 3.17", ways: []string{"mount", "shared"}},
		"2.22":         {r: "mlflow2", of: "server 2.22", ways: []string{"mount", "shared"}},
		"2.22 of 3.17": {r: "mlflow2", of: "server 3.17", ways: []string{"mount"}},
		"S3":           {r: "mlflow3", of: "server 3.17", s3: true, ways: []string{"automount", "shared"}},
		"S3 by 2.22":   {r: "mlflow2", of: "server 2.22", s3: true, few: true, ways: []string{"shared"}},
		// MLflow 3 can't register there what a run on another server has
		"registry apart": {r: "mlflow2", of: "server 2.22", registry: "server 3.17", s3: true, few: true, ways: []string{"mount"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			withPlugin(t)
			uri, location := shared.get(t, c.of).uri, ""
			env := []string{"MLFLOW_TRACKING_URI=" + uri}
			if c.registry != "" {
				env = append(env, "MLFLOW_REGISTRY_URI="+shared.get(t, c.registry).uri)
			}
			if c.s3 {
				env = append(env, s3Env(theObjects(t).s3)...)
				location = "s3://" + bucket + "/" + t.Name()[len("TestPluginIsMLflow/"):]
			}
			flavors := map[bool]string{false: "all", true: "few"}[c.few]
			u := pluginUserOf(t, c.r, flavors, strings.ReplaceAll(location, " ", "-"), env...)
			if name == "2.22 of 3.17" { // what the other release logged, it finds no logged model of
				u.logs(shared.get(t, c.of))
			}
			stock, _, _ := u.calls("reads")
			for _, way := range c.ways {
				holdPlugin(t, u, way, stock)
			}
		})
	}
}

// logs has MLflow 3's client log for a user of MLflow 2's.
func (u *pluginUser) logs(s *seeded) {
	u.t.Helper()
	u.seed = pluginUserOf(u.t, s.release, "all", "", u.env...).seed
	b, err := os.ReadFile(u.seed)
	var seed map[string]any
	if err == nil {
		err = json.Unmarshal(b, &seed)
	}
	if err == nil {
		seed["models"] = []string{} // it knows no URI for them
		b, _ = json.Marshal(seed)
		err = os.WriteFile(u.seed, b, 0o644)
	}
	if err != nil {
		u.t.Fatal(err)
	}
}

// holdPlugin holds the plug-in against what MLflow does without it.
func holdPlugin(t *testing.T, u *pluginUser, way string, stock pluginCalls) {
	t.Helper()
	env := withPlugin(t)
	switch way {
	case "mount":
		mountAt(t, "", u.env)
	case "automount":
		env = append(env, "MLFLOWFS_AUTOMOUNT=1")
		defer u.unmount()
	}
	ours, warned, written := u.calls("reads", env...)
	if d := gocmp.Diff(stock.Calls, ours.Calls); d != "" || len(stock.Calls) < 200 {
		t.Errorf("%s: of %d calls differ (without, with):\n%s", way, len(stock.Calls), d)
	}
	if len(warned) > 0 {
		t.Errorf("%s: it warns: %q", way, warned)
	}
	loads := 0
	for name, got := range stock.Calls {
		if flavor, _, _ := strings.Cut(name, " "); slices.Contains([]string{"pyfunc", "sklearn", "pytorch", "onnx", "transformers"}, flavor) && !strings.Contains(got, `{"error"`) {
			loads++
		}
	}
	if loads < 3 { // MLflow 2 finds no runs:/ of MLflow 3's models
		t.Errorf("%s: %d models are loaded", way, loads)
	}
	if name := t.Name(); strings.HasSuffix(name, "2.22_of_3.17") {
		return // which copies what MLflow 2 finds a part of
	}
	var copies []string
	for name, path := range ours.Temporary {
		switch {
		case strings.HasPrefix(name, "download runs:/") && strings.HasSuffix(name, "/doc/"):
		case strings.HasSuffix(name, "data/code"): // of which MLflow gives the run's part, and writes the logged model's beside it
			path = filepath.Dir(path)
		default:
			t.Errorf("%s: %s is copied to %s", way, name, path)
		}
		copies = append(copies, path)
	}
	for _, file := range written {
		if !slices.ContainsFunc(copies, func(dir string) bool { return strings.HasPrefix(file, dir) }) {
			t.Errorf("%s: %s is written", way, file)
		}
	}
	if len(stock.Temporary) < 30 {
		t.Errorf("without the plug-in there are %d copies", len(stock.Temporary))
	}
}

// unmount ends the mounts that the program made for the user.
func (u *pluginUser) unmount() {
	u.t.Helper()
	for _, point := range wheelMounts(u.run) {
		if _, err := output("umount", point); err != nil {
			u.t.Error(err)
		}
	}
	waitFor(u.t, "a mount stays", long, func() bool { return !strings.Contains(leftovers(), u.run) })
}

// TestPluginReadsEveryPlace fails when MLflow's client gives otherwise with the plug-in, or
// copies what it reads, where artifacts lie in GCS or Azure, or in a workspace.
func TestPluginReadsEveryPlace(t *testing.T) {
	t.Parallel()
	plugin := withPlugin(t)
	o := theObjects(t)
	for name, c := range map[string]struct {
		of, location string
		env          []string
	}{
		"GCS":       {"server 3.17", "gs://" + bucket + "/plugin", []string{"STORAGE_EMULATOR_HOST=http://" + o.gcs}},
		"Azure":     {"server 3.17", "wasbs://" + bucket + azureHost + "/plugin", o.azureEnv()},
		"workspace": {"server 3.17 with workspaces", "", []string{"MLFLOW_WORKSPACE=team-a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newPluginUser(t, "mlflow3", c.location, append(c.env, "MLFLOW_TRACKING_URI="+shared.get(t, c.of).uri)...)
			stock, _, _ := u.calls("some")
			for _, way := range []string{"mount", "shared"} {
				if way == "mount" {
					defer mountAt(t, "", u.env).stop()
				}
				ours, warned, written := u.calls("some", plugin...)
				if d := gocmp.Diff(stock.Calls, ours.Calls); d != "" || len(warned)+len(written)+len(ours.Temporary) > 0 {
					t.Errorf("%s (without, with): it warns %q and writes %q %q\n%s", way, warned, written, ours.Temporary, d)
				}
			}
			if stock.Calls["sklearn"] != "[0, 1]" || stock.Calls["logged model"] != "[0, 1]" || len(stock.Temporary) == 0 {
				t.Errorf("without the plug-in it is %q", stock)
			}
		})
	}
}

// TestPluginReadsOnce fails when a model that one process has loaded costs another one a
// byte of the origin, with a mount or without one; or when the plug-in does not bring it.
func TestPluginReadsOnce(t *testing.T) {
	t.Parallel()
	plugin := withPlugin(t)
	uri := shared.get(t, "server 3.17").uri
	for name, s3 := range map[string]bool{"served": false, "S3": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, env, location := proxyTo(t, uri), []string{}, ""
			env = append(env, "MLFLOW_TRACKING_URI="+p.URL)
			origin := p
			if s3 {
				origin = s3Proxy(t)
				env, location = append(env, s3Env(origin.Addr())...), "s3://"+bucket+"/once"
			}
			u := newPluginUser(t, "mlflow3", location, env...)
			for _, way := range []string{"mount", "shared"} {
				u := *u
				u.cache = t.TempDir()
				var m *mount
				if way == "mount" {
					m = mountAt(t, "", append(slices.Clone(u.env), "MLFLOWFS_CACHE_DIR="+u.cache))
				}
				first, second := loadCosts(&u, origin, plugin), loadCosts(&u, origin, plugin)
				if first == 0 || second != 0 {
					t.Errorf("%s: the first load costs %d bytes, and the second %d", way, first, second)
				}
				if m != nil {
					m.stop()
				}
			}
		})
	}
}

// loadCosts is how many bytes of artifacts a load moves in a process of its own.
func loadCosts(u *pluginUser, origin *count.Origin, env []string) int64 {
	u.t.Helper()
	origin.Reset()
	c, warned, written := u.calls("load", env...)
	if got := c.Calls["sklearn"]; got != "[0, 1]" || len(warned)+len(written) > 0 {
		u.t.Errorf("it gives %s, warns %q and writes %q", got, warned, written)
	}
	_, n := origin.Reset()
	return n
}

// TestPluginWritesAsMLflow fails when what MLflow writes to a run, or to what it has
// downloaded for that, has another end with the plug-in; or when what was just logged,
// or an alias that was just set, is not what is loaded next.
func TestPluginWritesAsMLflow(t *testing.T) {
	t.Parallel()
	plugin := withPlugin(t)
	for r, kind := range map[release]string{"mlflow3": "server 3.17", "mlflow2": "server 2.22"} {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			env := "MLFLOW_TRACKING_URI=" + shared.get(t, kind).uri
			stock, _, _ := newPluginUser(t, r, "", env).calls("writes")
			for _, way := range []string{"mount", "shared"} {
				u := newPluginUser(t, r, "", env)
				if way == "mount" {
					defer mountAt(t, "", u.env).stop()
				}
				ours, warned, _ := u.calls("writes", plugin...)
				if d := gocmp.Diff(stock.Calls, ours.Calls); d != "" || len(warned) > 0 || len(stock.Calls) < 20 {
					t.Errorf("%s: %d calls, %q\n%s", way, len(stock.Calls), warned, d)
				}
			}
		})
	}
}

// TestPluginLeavesServersAlone fails when, switched off, or in a process of MLflow's own
// server, the plug-in starts a process; or when MLflow works otherwise there.
func TestPluginLeavesServersAlone(t *testing.T) {
	t.Parallel()
	plugin := withPlugin(t)
	ran := filepath.Join(t.TempDir(), "ran")
	program := filepath.Join(t.TempDir(), "mlflowfs")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho ran >>"+ran+"\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	plugin = append(plugin, "MLFLOWFS_PROGRAM="+program)
	u := newPluginUser(t, "mlflow3", "", "MLFLOW_TRACKING_URI="+shared.get(t, "server 3.17").uri)
	for _, off := range []string{"MLFLOWFS_PLUGIN=off", "_MLFLOW_SERVER_ARTIFACT_ROOT=mlflow-artifacts:/", "_MLFLOW_SERVER_FILE_STORE=sqlite://"} {
		c, warned, _ := u.calls("load", append(slices.Clone(plugin), off)...)
		if c.Calls["sklearn"] != "[0, 1]" || len(warned) > 0 || readFile(ran) != "" {
			t.Errorf("%s: %q, it warns %q, and the program ran: %q", off, c.Calls, warned, readFile(ran))
		}
	}
	for _, r := range []release{"mlflow3", "mlflow2"} {
		s := startServer(t, r, append(slices.Clone(plugin), s3Env(theObjects(t).s3)...), "--default-artifact-root", "s3://"+bucket+"/server", "--no-serve-artifacts")
		u := newPluginUser(t, r, "", append(s3Env(theObjects(t).s3), "MLFLOW_TRACKING_URI="+s.url())...)
		var seed struct{ Run string }
		if err := json.Unmarshal([]byte(readFile(u.seed)), &seed); err != nil {
			t.Fatal(err)
		}
		// The server downloads what it serves.
		resp, err := http.Get(s.url() + "/get-artifact?run_id=" + seed.Run + "&path=top.txt")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || readFile(ran) != "" {
			t.Errorf("%s: %s, and the program ran: %q", r, resp.Status, readFile(ran))
		}
	}
	if c, _, _ := u.calls("load", plugin...); c.Calls["sklearn"] != "[0, 1]" || readFile(ran) == "" {
		t.Errorf("%q, and elsewhere it does not run", c.Calls)
	}
}
