package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// helperName is the program's name when mount(8) calls it, for
// `mount -t mlflowfs URI DIR -o options` and for such lines of fstab(5).
const helperName = "mount.mlflowfs"

// mountOptions are options of mount(8) that say nothing to us: the mount is
// read-only, and its own programs are nobody's to run.
var mountOptions = []string{
	"ro", "rw", "defaults", "auto", "noauto", "user", "users", "nouser", "owner", "group", "nofail", "_netdev", "suid", "nosuid", "dev", "nodev", "exec", "noexec",
	"relatime", "atime", "noatime", "nodiratime", "sync", "async", "silent", "loud",
}

// isHelper tells whether mount(8) calls us.
func isHelper(argv0 string) bool { return filepath.Base(argv0) == helperName }

// helperArgs makes a command line of ours from mount(8)'s:
// URI DIR [-sfnv] [-N namespace] [-o options] [-t type]. An option is the name of
// a setting, with _ or -, and =value where it takes one. fake says that
// nothing is to be mounted (-f).
func helperArgs(args []string) (out []string, fake bool, err error) {
	var places, options []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "-o" || a == "-t" || a == "-N":
			if i++; i == len(args) {
				return nil, false, usageError{fmt.Errorf("%s takes a value", a)}
			}
			if a == "-o" {
				options = append(options, strings.Split(args[i], ",")...)
			}
		case strings.HasPrefix(a, "-o"):
			options = append(options, strings.Split(a[2:], ",")...)
		case strings.HasPrefix(a, "-") && len(a) > 1:
			fake = fake || strings.Contains(a, "f")
		default:
			places = append(places, a)
		}
	}
	if len(places) != 2 {
		return nil, false, usageError{fmt.Errorf("%s takes a tracking URI and a directory: `mount -t mlflowfs http://host:5000 /mnt/mlflow -o allow_other`", helperName)}
	}
	known := settingNames()
	out = []string{"mount", "--daemon"}
	for _, o := range options {
		key, value, has := strings.Cut(o, "=")
		flag := strings.ReplaceAll(key, "_", "-")
		switch s := settingOf(flag); {
		case o == "" || slices.Contains(mountOptions, key) || strings.HasPrefix(key, "x-") || key == "comment":
		case s == nil:
			return nil, false, usageError{fmt.Errorf("there is no option %q; do you mean %q?", key, strings.ReplaceAll(nearest(flag, known), "-", "_"))}
		case !has && !s.isSwitch():
			return nil, false, usageError{fmt.Errorf("the option %s takes a value: %s=…", key, key)}
		case !has:
			out = append(out, "--"+flag)
		default:
			out = append(out, "--"+flag+"="+value)
		}
	}
	// A source that is no URI has the settings' file say where the server is.
	if source := places[0]; source != "mlflowfs" && source != "none" {
		out = append(out, "--tracking-uri="+source)
	}
	return append(out, "--", places[1]), fake, nil
}
