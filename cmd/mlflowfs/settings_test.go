package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write docs/configuration.md")

// TestConfigurationPageIsUpToDate fails when docs/configuration.md is not the table of
// settings as the code has it. (-update writes the page.)
func TestConfigurationPageIsUpToDate(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	b.WriteString(`# Configuration

Each setting of ` + "`mlflowfs mount`" + ` is a flag, a variable, and a key of a file of settings; it is taken from the first of these that has it, and from the default else. The other commands take those that they have
(where the server is, and where the cache). ` + "`mlflowfs config show`" + ` prints what is in force, and where each value came from; a mount shows its own in ` + "`.mlflowfs/config.yaml`" + `.

The file is the one that ` + "`--config`" + ` or ` + "`" + configVariable + "`" + ` names, else ` + "`mlflowfs/config.yaml`" + ` below your configuration directory (` + "`$XDG_CONFIG_HOME`, `~/.config`" + `), else ` + "`" + systemConfig + "`" + `. It is YAML; what a flag takes with commas may be a list:

    tracking-uri: http://mlflow.example:5000
    cache-size: 50GiB
    mount-uris:
    - s3://bucket
    - gs://bucket/dir

A key that is none is an error, which names the nearest one. Credentials do not belong in it: MLflow's own variables and files hold them, or ` + "`token-file` and `header-file`" + `.

| setting | variable | default | what |
|---|---|---|---|
`)
	_, s := newMount()
	s.fl.VisitAll(func(f *pflag.Flag) {
		variable := s.variables[f.Name]
		if variable == "" || f.Name == "config" {
			return
		}
		fallback := f.DefValue
		switch {
		case f.Name == "cache-dir":
			fallback = "`~/.cache/mlflowfs`"
		case f.Name == "memory-limit":
			fallback = "a quarter of the machine, at most 1 GiB"
		case fallback == "[]":
			fallback = ""
		case fallback != "":
			fallback = "`" + fallback + "`"
		}
		what := strings.ReplaceAll(strings.TrimSuffix(f.Usage, " [$"+variable+"]"), "|", "\\|")
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", f.Name, variable, fallback, what)
	})
	b.WriteString("\nMLflow's own variables for its client are followed, too ([using.md](using.md)), but for these, which `mlflowfs doctor` names with the reason where they are set:\n")
	for i, v := range unhonoured {
		end := ","
		if i == len(unhonoured)-1 {
			end = "."
		}
		fmt.Fprintf(&b, "`%s`%s\n", v.name, end)
	}
	const file = "../../docs/configuration.md"
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, b.Bytes()) {
		t.Errorf("%s is not what the code has, %v: go test ./cmd/mlflowfs -run ConfigurationPage -update", file, err)
	}
}

// TestNearestKeyIsNamed fails when the error about a mistyped key of the configuration
// file does not suggest the key that was meant.
func TestNearestKeyIsNamed(t *testing.T) {
	t.Parallel()
	known := configKeys()
	if len(known) < 20 || !slices.Contains(known, "cache-size") {
		t.Fatal(known)
	}
	for word, want := range map[string]string{"cache-sise": "cache-size", "cachesize": "cache-size", "token": "token-file", "log-levl": "log-level", "alow-other": "allow-other"} {
		if got := nearest(word, known); got != want {
			t.Errorf("%s: %s, and not %s", word, got, want)
		}
	}
}

// TestSizeIsTakenBack fails when a size that `mlflowfs config show` prints means another
// number of bytes when it is given as a setting.
func TestSizeIsTakenBack(t *testing.T) {
	t.Parallel()
	for _, n := range []size{0, 1, 1023, 1 << 20, 20_000_000, 3 << 30, 1<<40 + 1} {
		var back size
		if err := back.Set(n.String()); err != nil || back != n {
			t.Errorf("%d is written %s and read as %d, %v", n, &n, back, err)
		}
	}
}

// TestMountHelperTakesFstabOptions fails when a line of fstab or of `mount -t` mounts
// with other options than it names, or when a wrong option is taken or its error does
// not help.
func TestMountHelperTakesFstabOptions(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"http://h:5000 /mnt -o rw,allow_other,cache_size=20G,_netdev": "mount --daemon --allow-other --cache-size=20G --tracking-uri=http://h:5000 -- /mnt",
		"mlflowfs /mnt -s -o config=/etc/x.yaml,x-systemd.automount":  "mount --daemon --config=/etc/x.yaml -- /mnt",
		"http://h /mnt -o allow-other=false":                          "mount --daemon --allow-other=false --tracking-uri=http://h -- /mnt",
		"http://h":                                                    "takes a tracking URI and a directory",
		"http://h /mnt -o":                                            "takes a value",
		"http://h /mnt -o alow_othr":                                  `do you mean "allow_other"`,
		"http://h /mnt -o daemon":                                     "there is no option",
		"http://h /mnt -o timeout":                                    "takes a value",
	} {
		out, _, err := helperArgs(strings.Fields(in))
		got := strings.Join(out, " ")
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, cmp.Or(want, "\x00")) {
			t.Errorf("%s: %s, and not %s", in, got, want)
		}
	}
}

// TestDoctorNamesWhatIsNotHonoured fails when a variable that is set and not honoured is
// not named by doctor, when one is named that is honoured, or with its value, which may be
// a secret, or when the code reads a variable that it says it does not honour.
func TestDoctorNamesWhatIsNotHonoured(t *testing.T) {
	for _, v := range unhonoured {
		t.Setenv(v.name, "s3cret")
		out := checkVariables()
		if len(out) != 1 || !strings.HasPrefix(out[0].words, v.name+" ") || strings.Contains(out[0].words, "s3cret") {
			t.Errorf("%s: %+v", v.name, out)
		}
		for _, value := range append(v.but, "") {
			t.Setenv(v.name, value)
			if out := checkVariables(); len(out) != 0 {
				t.Errorf("%s=%s: %+v", v.name, value, out)
			}
		}
		if len(v.but) > 0 {
			continue // it is read
		}
		for _, pattern := range []string{"*.go", "../../resolve/*.go", "../../resolve/*/*.go", "../../resolve/*/*/*.go"} {
			files, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range files {
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if bytes.Contains(b, []byte(`"`+v.name+`"`)) && filepath.Base(name) != "unhonoured.go" {
					t.Errorf("%s reads %s", name, v.name)
				}
			}
		}
	}
}
