package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// badPrograms are programs in the place of mlflowfs, by what is wrong with them: shell
// scripts. They show that they live as mlflowfs does.
var badPrograms = map[string]string{
	"old":             `echo 'mlflowfs: "path" is no command' >&2; exit 2`,
	"killed":          `printf /half; kill -9 $$`,
	"failing":         `echo 'mlflowfs: the disk is on fire' >&2; exit 1`,
	"silent":          `exec sleep 1000`,
	"stopped":         `eval "printf . >&$MLFLOWFS_BEAT_FD"; kill -STOP $$`,
	"stopped at once": `kill -STOP $$`,
	"mute":            `exit 0`,
	"garbage":         `echo '\303\050 \377 {'`,
	"other JSON":      `echo '[1]'`,
	"no path":         `echo '{"path": 7, "how": "mount"}'`,
	"relative":        `echo '{"path": "x", "how": "mount"}'`,
	"not there":       `echo '{"path": "/nowhere/MLmodel", "how": "mount"}'`,
	"other file":      `echo '{"path": "/etc/passwd", "how": "mount"}'`,
	"talkative":       `yes >&2 & yes | head -c 10000000; kill $!`,
}

// faultCase is what plugin_faults.py prints of a case.
type faultCase struct {
	Case, Function string
	Met            bool
	Wrong          any
	Warned         []string
	Seconds        float64
}

// TestPluginFaultsEndAsMLflow fails when, whatever is raised in any function of the plug-in,
// MLflow's client does not give what it gives without the plug-in; or when the user isn't
// told once, and no more.
func TestPluginFaultsEndAsMLflow(t *testing.T) {
	t.Parallel()
	pluginFaults(t, "functions", func(t *testing.T, cases []faultCase) {
		met := map[string]bool{}
		for _, c := range cases {
			met[c.Function] = met[c.Function] || c.Met
			holdFault(t, c, time.Minute) // the machine is busy
		}
		for f, was := range met {
			if !was {
				t.Errorf("no fault was met in %s", f)
			}
		}
		if len(met) < 30 || len(cases) < 100 {
			t.Errorf("%d functions, %d cases", len(met), len(cases))
		}
		figure(t, "%d cases, %d functions of the plug-in", len(cases), len(met))
	})
}

// TestPluginOutlivesBadPrograms fails when, whatever is wrong with the program, MLflow's
// client does not give what it gives without the plug-in, within 5 s more; or when the
// user isn't told once, and no more.
func TestPluginOutlivesBadPrograms(t *testing.T) {
	pluginFaults(t, "programs", func(t *testing.T, cases []faultCase) {
		stock := time.Duration(cases[0].Seconds * float64(time.Second))
		for _, c := range cases {
			holdFault(t, c, stock+5*time.Second)
		}
		if len(cases) < len(badPrograms) {
			t.Errorf("%d cases", len(cases))
		}
		figure(t, "%d bad programs; without the plug-in %v", len(cases), stock)
	})
}

// pluginFaults runs the cases of a kind with both releases.
func pluginFaults(t *testing.T, kind string, hold func(*testing.T, []faultCase)) {
	plugin := withPlugin(t)
	dir := t.TempDir()
	programs := []string{filepath.Join(dir, "missing"), filepath.Join(dir, "no program"), dir}
	if err := os.WriteFile(programs[1], []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, script := range badPrograms {
		programs = append(programs, filepath.Join(dir, name))
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	notText := filepath.Join(dir, "not for this machine")
	if err := os.WriteFile(notText, []byte("\x7fELF\x02\x01\x01"), 0o755); err != nil {
		t.Fatal(err)
	}
	programs = append(programs, notText)
	for r, server := range map[release]string{"mlflow3": "server 3.17", "mlflow2": "server 2.22"} {
		t.Run(string(r), func(t *testing.T) {
			if kind == "functions" {
				t.Parallel()
			}
			u := newPluginUser(t, r, "", "MLFLOW_TRACKING_URI="+shared.get(t, server).uri)
			defer mountAt(t, "", append(slices.Clone(u.env), "MLFLOWFS_CACHE_DIR="+t.TempDir())).stop()
			out, _ := u.script(plugin, "plugin_faults.py", append([]string{u.seed, kind}, programs...)...)
			var cases []faultCase
			for l := range strings.Lines(out) {
				var c faultCase
				if !strings.HasPrefix(l, `{"case"`) {
					continue
				}
				if err := json.Unmarshal([]byte(l), &c); err != nil {
					t.Fatal(err, l)
				}
				cases = append(cases, c)
			}
			if len(cases) < 2 || cases[0].Case != "off" {
				t.Fatalf("%s", tail(out))
			}
			hold(t, cases)
		})
	}
}

// holdFault holds one case against what is promised.
func holdFault(t *testing.T, c faultCase, limit time.Duration) {
	t.Helper()
	name := fmt.Sprintf("%s in %s", c.Case, c.Function)
	wrong := fmt.Sprint(c.Wrong)
	if c.Case == "KeyboardInterrupt" {
		if wrong != "map[raised:KeyboardInterrupt: ]" {
			t.Errorf("%s: %s", name, wrong)
		}
		return
	}
	warnings := 0
	if c.Met && c.Function != "" || strings.HasPrefix(c.Case, "program ") || strings.Contains(c.Case, "old program") {
		warnings = 1
	}
	if strings.HasSuffix(c.Function, "._warn") {
		warnings = min(warnings, len(c.Warned)) // where it fails nobody is told
	}
	if wrong != "map[]" || len(c.Warned) != warnings {
		t.Errorf("%s: %s is wrong, and it warns %q", name, wrong, c.Warned)
	}
	if took := time.Duration(c.Seconds * float64(time.Second)); took > limit {
		t.Errorf("%s: it takes %v, and may take %v", name, took, limit)
	}
}

// TestPluginCannotBreakTheImport fails when MLflow can't be imported, or loads otherwise,
// because what it imports of mlflowfs raises, or is not there.
func TestPluginCannotBreakTheImport(t *testing.T) {
	t.Parallel()
	plugin, err := thePlugin()
	if err != nil {
		t.Fatal(err)
	}
	u := newPluginUser(t, "mlflow3", "", "MLFLOW_TRACKING_URI="+shared.get(t, "server 3.17").uri)
	for name, c := range map[string]struct {
		file, text string // what is in it instead; no text: there is no such file
		by         string // what is said, once; empty: MLflow's own warning
	}{
		"runtime error":  {"mlflowfs/__init__.py", "raise RuntimeError('broken')\n", "without mlflowfs"},
		"memory":         {"mlflowfs/_mlflow.py", "raise MemoryError\n", "without mlflowfs"},
		"no import":      {"mlflowfs/_mlflow.py", "import nothing_of_that_name\n", "without mlflowfs"},
		"no Python":      {"mlflowfs/_program.py", "def ::\n", "without mlflowfs"},
		"no module":      {"mlflowfs/_mlflow.py", "", "without mlflowfs"},
		"no package":     {"mlflowfs/__init__.py", "", "without mlflowfs"},
		"not the plugin": {"mlflowfs_plugin.py", "raise ImportError('broken')\n", ""},
		"no plugin":      {"mlflowfs_plugin.py", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "site")
			if out, err := exec.Command("cp", "-r", plugin, dir).CombinedOutput(); err != nil {
				t.Fatal(string(out), err)
			}
			file := filepath.Join(dir, c.file)
			err := os.Remove(file)
			if c.text != "" {
				err = os.WriteFile(file, []byte(c.text), 0o644)
			}
			if name == "no package" {
				err = os.RemoveAll(filepath.Dir(file))
			}
			if err != nil {
				t.Fatal(err)
			}
			out, errs := u.script([]string{"PYTHONPATH=" + dir, "PYTHONWARNINGS=default"}, "plugin_calls.py", "load", u.seed)
			if !strings.Contains(out, `"[0, 1]"`) || c.by != "" && strings.Count(errs, c.by) != 1 {
				t.Errorf("it gives %s\nand warns %s", out, tail(errs))
			}
		})
	}
}

// TestPluginPassesOverDeadMounts fails when a mount that is dead, or hangs, keeps a model
// from being loaded, by the plug-in or, within 5 s more, by MLflow itself.
func TestPluginPassesOverDeadMounts(t *testing.T) {
	plugin := withPlugin(t)
	u := newPluginUser(t, "mlflow3", "", "MLFLOW_TRACKING_URI="+shared.get(t, "server 3.17").uri)
	load := func(what string, limit time.Duration) time.Duration {
		t.Helper()
		begin := time.Now()
		c, warned, _ := u.calls("load", plugin...)
		took := time.Since(begin)
		if c.Calls["sklearn"] != "[0, 1]" || len(warned) > 1 || limit > 0 && took > limit {
			t.Errorf("%s: %v, it warns %q, after %v", what, c.Calls, warned, took)
		}
		return took
	}
	plugin = append(plugin, "MLFLOWFS_PLUGIN=off")
	load("the first", 0)
	stock := load("without the plug-in", 0)
	plugin = plugin[:len(plugin)-1]
	for what, signal := range map[string]syscall.Signal{"it hangs": syscall.SIGSTOP, "it is dead": syscall.SIGKILL} {
		m := mountAt(t, "", slices.Concat(u.env, []string{"MLFLOWFS_CACHE_DIR=" + t.TempDir()}))
		load("a mount", 0)
		daemon := m.daemon()
		if signal == syscall.SIGKILL {
			m.kill()
		} else {
			syscall.Kill(daemon, signal)
		}
		load(what, stock+5*time.Second)
		syscall.Kill(daemon, syscall.SIGCONT)
		m.stop()
	}
}
