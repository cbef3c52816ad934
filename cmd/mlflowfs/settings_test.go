package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

var update = flag.Bool("update", false, "write docs/configuration.md")

// TestConfigurationPageIsUpToDate fails when docs/configuration.md is not the table of
// settings as the code has it. (-update writes the page.)
func TestConfigurationPageIsUpToDate(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	b.WriteString(`# Configuration

Each setting is a flag, a variable, a key of a file of settings, and an option of mount(8); it is taken from the first of these that has it, and from the default else. Which commands take it: *all* that ask a server, those that use the *cache* (` + "`warm`, `evict`, `pin`, `unpin`" + `) and those of a mount,
or those of a *mount* alone (` + "`mount`, `exec`, `doctor`, `config show`" + `). ` + "`mlflowfs config show`" + ` prints what is in force, and where each value came from; a mount shows its own in ` + "`.mlflowfs/config.yaml`" + `.

The file is the one that ` + "`--config` or `MLFLOWFS_CONFIG`" + ` names, else ` + "`mlflowfs/config.yaml`" + ` below your configuration directory (` + "`$XDG_CONFIG_HOME`, `~/.config`" + `), else ` + "`" + systemConfig + "`" + `. It is YAML; what a flag takes with commas may be a list:

    tracking-uri: http://mlflow.example:5000
    cache-size: 50GiB
    mount-uris:
    - s3://bucket
    - gs://bucket/dir

A key that is none is an error, which names the nearest one, and so is a value that can't be. Credentials do not belong in it: MLflow's own variables and files hold them, or ` + "`token-file` and `header-file`" + `, which a file that has a ` + "`tracking-uri`" + ` names for that one alone.

| setting | variable | default | commands | what |
|---|---|---|---|---|
`)
	for _, name := range settingNames() {
		s := settingOf(name)
		usual := s.usual
		if s.isSwitch() {
			usual = "false"
		}
		if usual != "" && !strings.Contains(usual, ",") { // which is a description
			usual = "`" + usual + "`"
		}
		if s.brief != "" && s.takes < mounting {
			usual += ", of commands `" + s.brief + "`"
		}
		variables := "`" + strings.Join(s.variables(), "`, else `") + "`"
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", name, variables, usual, scopes[s.takes], strings.ReplaceAll(s.help, "|", "\\|"))
	}
	b.WriteString("\n## Variables of MLflow and of its libraries\nThese are followed as MLflow's client follows them ([using.md](using.md)); the SDKs of AWS, Google and Azure read more of their own.\n\n| variables | for |\n|---|---|\n")
	for _, v := range followed {
		fmt.Fprintf(&b, "| `%s` | %s |\n", strings.Join(v.names, "`, `"), v.what)
	}
	b.WriteString("\nThese are not, and `mlflowfs doctor` names them with the reason where they are set:\n")
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

// sample is a value of a setting that is not the default, and one that can't be; empty: each
// text can be.
func sample(s *setting) (good, bad string) {
	switch p := s.field(&ClientConfig{}).(type) {
	case *bool:
		return "true", "maybe"
	case *int:
		return "5", "many"
	case *time.Duration:
		return "7s", "soon"
	case *slog.Level:
		return "error", "loud"
	case *size, *sizeOrAuto:
		return "200 MiB", "large"
	case choice[string]:
		return p.of[1], "other"
	case choice[artifact.Access]:
		return string(p.of[1]), "other"
	}
	switch s.name {
	case "webhdfs":
		return "hdfs://x=webhdfs://y", ""
	case "allow-store", "mount-uris":
		return "s3://a,gs://b/c", "bucket"
	case "metrics-addr":
		return ":9420", "9420"
	case "cache-dir":
		return "/x", ""
	}
	return "x:1", ""
}

// TestSettingsComeFromEachPlace fails when a setting is not taken from its flag, its
// variables, the file of settings or an option of mount(8), when its source is not said, or
// when a value that can't be is taken from one of them: that is a sentence that says from
// where it is, and the exit code 2.
func TestSettingsComeFromEachPlace(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.yaml")
	show := func(env []string, args ...string) (string, string, int) {
		return runIn(t.Context(), append(env, "HOME=/nowhere", "MLFLOWFS_METRICS_ADDR=:1"), append([]string{"config", "show"}, args...)...)
	}
	for _, name := range settingNames() {
		s := settingOf(name)
		good, bad := sample(s)
		type place struct {
			from string
			give func(value string) (string, string, int)
		}
		places := []place{
			{"the command line", func(v string) (string, string, int) { return show(nil, "--"+name+"="+v) }},
			{file, func(v string) (string, string, int) {
				if err := os.WriteFile(file, []byte(name+": "+strconv.Quote(v)+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				return show([]string{"MLFLOWFS_CONFIG=" + file})
			}},
			{"the command line", func(v string) (string, string, int) {
				args, _, err := helperArgs([]string{"none", "/mnt", "-o", strings.ReplaceAll(name, "-", "_") + "=" + v})
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				return show(nil, args[2:len(args)-2]...)
			}},
		}
		for _, variable := range s.variables() {
			places = append(places, place{"the variable " + variable, func(v string) (string, string, int) { return show([]string{variable + "=" + v}) }})
		}
		for _, p := range places {
			if name == "metrics-addr" && p.from == file {
				continue // the variable that is set here goes before it
			}
			if strings.Contains(good, ",") && !strings.HasPrefix(p.from, "the variable") {
				continue // commas of mount(8) are between options
			}
			out, errs, code := p.give(good)
			if line := name + ": " + good; code != 0 || !strings.Contains(strings.ReplaceAll(out, `"`, ""), line+"  # "+p.from) {
				t.Errorf("%s from %s: %d %s%s", line, p.from, code, out, errs)
			}
			if bad == "" {
				continue
			}
			says := p.from
			if p.from == "the command line" || bad == "bucket" || bad == "9420" { // which is found wanting later
				says = "--" + name
			}
			if _, errs, code := p.give(bad); code != exitUsage || !strings.Contains(errs, says) || !strings.Contains(errs, bad) || strings.Contains(errs, "strconv") {
				t.Errorf("%s=%s from %s: %d %s", name, bad, p.from, code, errs)
			}
		}
	}
}

// TestSettingsAreWellFormed fails when two settings share a name, a variable or a field,
// when a field of the configuration has no setting, or when a default, or a value that
// `config show` prints, is not taken back.
func TestSettingsAreWellFormed(t *testing.T) {
	t.Parallel()
	o := (&process{environ: []string{"HOME=/nowhere"}}).options(mounting, pflag.NewFlagSet("", pflag.ContinueOnError))
	seen := map[any]string{}
	for _, s := range settings {
		field := s.field(&o.ClientConfig)
		switch c := field.(type) {
		case choice[string]:
			field = c.is
		case choice[artifact.Access]:
			field = c.is
		}
		for _, key := range []any{s.name, s.variables()[0], s.also, reflect.ValueOf(field).Pointer()} {
			if seen[key] != "" && key != "" {
				t.Errorf("%s and %s share %v", s.name, seen[key], key)
			}
			seen[key] = s.name
		}
		v := o.value(s)
		before := v.String()
		if err := o.value(s).Set(before); (before != "" && err != nil) || v.String() != before {
			t.Errorf("%s: %q is taken back as %q, %v", s.name, before, v, err)
		}
		if good, _ := sample(s); o.value(s).Set(good) != nil || v.String() == before {
			t.Errorf("%s: %q gives %q", s.name, good, v)
		}
	}
	var each func(v reflect.Value, path string)
	each = func(v reflect.Value, path string) {
		for i := range v.NumField() {
			f, name := v.Field(i), path+v.Type().Field(i).Name
			if _, leaf := f.Addr().Interface().(fmt.Stringer); f.Kind() == reflect.Struct && !leaf {
				each(f, name+".")
			} else if seen[f.Addr().Pointer()] == "" && name != "Env" {
				t.Errorf("%s is no setting's", name)
			}
		}
	}
	each(reflect.ValueOf(&o.ClientConfig).Elem(), "")
}

// TestNearestKeyIsNamed fails when the error about a mistyped key of the configuration
// file does not suggest the key that was meant.
func TestNearestKeyIsNamed(t *testing.T) {
	t.Parallel()
	known := settingNames()
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

// TestTimeoutIsOneSetting fails when a mount does not give a request with its retries the
// time that --timeout or MLflow's variable says, or when a command, which waits as MLflow's
// client does, takes the mount's.
func TestTimeoutIsOneSetting(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		takes   scope
		env     string
		silence time.Duration
		whole   bool
	}{
		{mounting, "", 30 * time.Second, true},
		{mounting, "MLFLOW_HTTP_REQUEST_TIMEOUT=60", time.Minute, true},
		{mounting, "MLFLOWFS_TIMEOUT=5s", 5 * time.Second, true},
		{mounting, "MLFLOWFS_TIMEOUT=0", 2 * time.Minute, false},
		{client, "", 2 * time.Minute, false},
		{client, "MLFLOW_HTTP_REQUEST_TIMEOUT=60", time.Minute, false},
		{client, "MLFLOWFS_TIMEOUT=5s", 2 * time.Minute, false},
	} {
		o := (&process{environ: []string{"HOME=/nowhere", c.env}}).options(c.takes, pflag.NewFlagSet("", pflag.ContinueOnError))
		if err := o.read(); err != nil {
			t.Fatal(err)
		}
		if s, err := rest.ReadSettings(o.Env); err != nil || s.Silence != c.silence || s.Whole != c.whole {
			t.Errorf("%v %s: %v %v %v", scopes[c.takes], c.env, s.Silence, s.Whole, err)
		}
	}
	for _, bad := range []string{"MLFLOW_HTTP_REQUEST_TIMEOUT=0", "MLFLOW_HTTP_REQUEST_MAX_RETRIES=many", "MLFLOWFS_ALLOW_ADDRESS=http://x/"} {
		variable, _, _ := strings.Cut(bad, "=")
		if _, errs, code := runIn(t.Context(), []string{bad, "HOME=/nowhere"}, "ls", "/tmp"); code != exitUsage || !strings.Contains(errs, variable) {
			t.Errorf("%s: %d %s", bad, code, errs)
		}
	}
}
