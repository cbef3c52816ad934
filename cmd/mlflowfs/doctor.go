package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// finding is what a check of doctor's found.
type finding struct {
	what  string
	state int
	words string
	mend  string // what to do; empty where nothing is
}

// States of a finding: it is well; a mount works, and could do better; a mount
// does not work.
const (
	well = iota
	lesser
	broken
)

func (p *process) doctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor [flags of mount] [URI]",
		Short: "Check what a mount needs here, and say how to mend it",
		Long: `Doctor checks what a mount needs of this machine, of the tracking server at URI
(as for --tracking-uri) and of where the experiments' artifacts lie, and says for
each thing that is missing what to do. It names the variables of MLflow's that are
set and not honoured. It changes nothing. It ends with 1 where a
mount would not work.`,
		Args: between(0, 1, "one URI, or none"),
	}
	return p.command(c, mounting, func(ctx context.Context, o *options, args []string) error {
		if len(args) == 1 {
			o.Server.TrackingURI = args[0]
		}
		return o.doctor(ctx, o.stdout)
	})
}

func (o *options) doctor(ctx context.Context, out io.Writer) error {
	failed := 0
	tell := func(x finding) {
		mark := [...]string{"ok    ", "better", "BROKEN"}[x.state]
		fmt.Fprintf(out, "%s  %-12s %s\n", mark, x.what, x.words)
		if x.mend != "" {
			fmt.Fprintf(out, "%22s-> %s\n", "", x.mend)
		}
		if x.state == broken {
			failed++
		}
	}
	for _, check := range []func() finding{checkFUSE, checkFusermount, checkKernel, checkReadAhead, func() finding { return checkUpdatedb(updatedbConf) }, o.checkDescriptors, o.checkCache} {
		tell(check())
	}
	for _, x := range append(checkVariables(o.getenv), o.checkServer(ctx)...) {
		tell(x)
	}
	if failed > 0 {
		return fmt.Errorf("%d things keep a mount from working", failed)
	}
	return nil
}

func checkFUSE() finding {
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return finding{"/dev/fuse", broken, "the kernel offers no FUSE here", "load the module with `modprobe fuse`, or give the container --device /dev/fuse"}
	case err != nil:
		return finding{"/dev/fuse", broken, err.Error(), "let root run `chmod 666 /dev/fuse`, as udev does"}
	}
	dev.Close()
	return finding{"/dev/fuse", well, "can be opened", ""}
}

func checkFusermount() finding {
	path, err := exec.LookPath("fusermount3")
	switch {
	case os.Geteuid() == 0:
		return finding{"fusermount3", well, "not needed by root", ""}
	case err != nil:
		return finding{"fusermount3", broken, "is not installed, and users other than root need it", "Debian: apt install fuse3"}
	}
	st, err := os.Stat(path)
	if err == nil && st.Mode()&os.ModeSetuid == 0 {
		return finding{"fusermount3", broken, path + " can't mount: it is not setuid", "let root run `chmod u+s " + path + "`, or install fuse3 anew"}
	}
	return finding{"fusermount3", well, path, ""}
}

// kernelVersion is of uname(2): 6.18 is 6, 18.
func kernelVersion() (major, minor int, release string) {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return 0, 0, "unknown"
	}
	release = unix.ByteSliceToString(u.Release[:])
	fmt.Sscanf(release, "%d.%d", &major, &minor)
	return major, minor, release
}

func checkKernel() finding {
	major, minor, release := kernelVersion()
	at := func(a, b int) bool { return major > a || major == a && minor >= b }
	switch {
	case !at(5, 15):
		return finding{"kernel", lesser, "Linux " + release + " is older than what mlflowfs is tried on (5.15)", "use a newer one"}
	case !at(6, 9):
		return finding{"passthrough", lesser, "Linux " + release + " can't read files of the cache by itself", "Linux 6.9 can"}
	case os.Geteuid() != 0:
		return finding{"passthrough", lesser, "only mounts of root's have the kernel read files of the cache by itself", "mount as root with --allow-other, where that may be"}
	}
	return finding{"passthrough", well, "Linux " + release + " reads complete files of the cache by itself, if they are on an ordinary disk", ""}
}

func checkReadAhead() finding {
	if os.Geteuid() != 0 {
		return finding{"read-ahead", lesser, "stays at 128 KiB: only root may raise it", ""}
	}
	if err := unix.Access("/sys/class/bdi", unix.W_OK); err != nil {
		return finding{"read-ahead", lesser, "can't be raised: /sys can't be written to", "give the container /sys, or do without"}
	}
	return finding{"read-ahead", well, "is raised to 256 KiB", ""}
}

func (o *options) checkCache() finding {
	if o.Cache.Dir == noCache {
		return finding{"cache", lesser, "nothing is kept on disk (--cache-dir none)", ""}
	}
	d, err := o.openDisk(slog.New(slog.DiscardHandler))
	if err != nil {
		return finding{"cache", lesser, err.Error(), "name another by --cache-dir; without one, what is read is kept in memory alone"}
	}
	defer d.Close()
	var st unix.Statfs_t
	if err := unix.Statfs(o.Cache.Dir, &st); err != nil {
		return finding{"cache", lesser, err.Error(), ""}
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	words := fmt.Sprintf("%s holds %s of %s; %s of the disk are free", o.Cache.Dir, humanize.IBytes(uint64(d.Used())), &o.Cache.Size, humanize.IBytes(uint64(free)))
	if free < int64(o.Cache.Size)-d.Used() {
		return finding{"cache", lesser, words, "free some, or name a smaller --cache-size: a twentieth of the disk is left free in any case"}
	}
	return finding{"cache", well, words, ""}
}

// doctorWait is how long a server may take for one answer.
const doctorWait = 10 * time.Second

// checkServer checks the tracking server, and where artifacts lie.
func (o *options) checkServer(ctx context.Context) []finding {
	quiet := slog.New(slog.DiscardHandler)
	s, err := o.open(openOptions{ttl: o.Mount.MetadataTTL, needed: true}, quiet)
	if err != nil {
		return []finding{{"server", broken, err.Error(), "give the tracking URI: `mlflowfs doctor http://host:5000`"}}
	}
	defer s.close()
	shown := rest.Redact(o.Server.TrackingURI)
	actx, cancel := context.WithTimeout(ctx, doctorWait)
	defer cancel()
	begin := time.Now()
	_, err = s.tracking.Ping(actx)
	took := time.Since(begin).Round(time.Millisecond)
	var refusal *rest.Error
	switch {
	case err == nil:
	case errors.Is(err, os.ErrPermission):
		return []finding{{"server", well, shown + " answers", ""},
			{"credentials", broken, err.Error(), s.mend()}}
	case errors.As(err, &refusal) && refusal.NoSuchEndpoint():
		return []finding{{"server", broken, shown + " answers, and is no MLflow tracking server", "check the tracking URI's port and path"}}
	case meta.Refused(err):
		return []finding{{"server", broken, err.Error(), "check the database's name and schema in the tracking URI"}}
	case errors.As(err, &refusal) && refusal.Final():
		return []finding{{"server", broken, shown + " refuses what it is asked: " + err.Error(), "check MLFLOW_WORKSPACE, if it is set"}}
	default:
		return []finding{{"server", broken, shown + " does not answer: " + err.Error(), "check the address, and that the server runs; a mount comes up without it, and shows what is known"}}
	}
	out := []finding{{"server", well, fmt.Sprintf("%s answers in %v", shown, took), ""}}
	if s.client != nil {
		out = append(out, finding{"credentials", well, "are taken, or none are asked for", ""})
		out = append(out, checkVersion(actx, s.client)...)
	}
	out = append(append(out, checkArtifacts(ctx, s)...), checkLeftOut(ctx, s)...)
	return append(append(out, checkClocks(s.clocks)...), checkStore(s)...)
}

// checkStore says what the stores of this machine tell of themselves.
func checkStore(s *stores) (out []finding) {
	for _, r := range s.remarks() {
		x := finding{r.What, well, r.Words, r.Mend}
		if r.Lesser {
			x.state = lesser
		}
		out = append(out, x)
	}
	return out
}

// checkVersion asks for the server's version.
func checkVersion(ctx context.Context, c *rest.Client) []finding {
	if c.Databricks() {
		return []finding{{"version", well, "a Databricks workspace at " + c.Base().Host, ""}}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL("/version", nil).String(), nil)
	if err != nil {
		return nil
	}
	resp, err := c.Do(req)
	if err != nil {
		return []finding{{"version", lesser, "is not told: " + err.Error(), ""}}
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 100))
	version := strings.TrimSpace(string(b))
	out := []finding{{"version", well, "MLflow " + version, ""}}
	switch {
	case resp.StatusCode != http.StatusOK || version == "" || version[0] < '0' || version[0] > '9':
		out[0] = finding{"version", lesser, "is not told", ""}
	case strings.HasPrefix(version, "1.") || strings.HasPrefix(version, "0."):
		out[0] = finding{"version", lesser, "MLflow " + version + " is older than what mlflowfs is tried on (2.22)", "use a newer one"}
	case strings.HasPrefix(version, "2."):
		out[0].words += ": through it, files come whole, in one stream"
	}
	return out
}
