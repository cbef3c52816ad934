package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// word is what a mount tells its parent (readyFD).
type word struct {
	Said string // on a mount that answers
	Err  string
	Code int // of the exit, with Err

	NoMount bool // with Err: the kernel, or fusermount3, has refused to mount
}

// inBackground mounts in a process of its own, and returns when the mount
// answers, or with why it does not. The process writes its log to a file.
func (o *options) inBackground(ctx context.Context, point string) error {
	logFile := cmp.Or(o.Log.File, o.getenv("MLFLOWFS_LOG_FILE")) // of a command that has no log of its own
	if logFile == "" {
		var err error
		if logFile, err = defaultLogFile(o.getenv, point); err != nil {
			return err
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	cmd := exec.Command("/proc/self/exe", "mount", point)
	cmd.Env = append(slices.Clone(o.environ), o.environment()...)
	cmd.Env = append(cmd.Env, "MLFLOWFS_LOG_FILE="+logFile, readyFD+"=3")
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, null, null
	if err := cmd.Start(); err != nil {
		return err
	}
	w.Close()
	defer context.AfterFunc(ctx, func() { r.Close() })()
	var said word
	if err := json.NewDecoder(r).Decode(&said); ctx.Err() != nil {
		return errors.New("interrupted: the mount may come up all the same")
	} else if err != nil {
		return fmt.Errorf("the daemon ended before the mount answered; %s may say why", logFile)
	}
	if said.Err != "" {
		cmd.Wait()
		return exitError{errors.New(said.Err), said.Code}
	}
	fmt.Fprintf(o.stderr, "mlflowfs: %s; `mlflowfs unmount %s` ends it, %s is its log\n", said.Said, point, logFile)
	return cmd.Process.Release()
}

// exitError is an error with an exit code of its own.
type exitError struct {
	error
	code int
}

// tellParent tells the process that waits for this mount how it went, if there is one.
//
// Only now does the daemon leave its parent's session: where an automount waits
// for the mount, all others than the automounter's own process group wait with
// it when they so much as look at the place (autofs_oz_mode in the kernel).
func (p *process) tellParent(said word) (told bool) {
	if p.parent == nil {
		return false
	}
	syscall.Setsid()
	err := json.NewEncoder(p.parent).Encode(said)
	p.parent.Close()
	p.parent = nil
	return err == nil
}

// defaultLogFile is below the user's state directory (XDG), and has the mount
// point's name.
func defaultLogFile(env rest.Env, point string) (string, error) {
	dir := userDir(env, "XDG_STATE_HOME", ".local/state")
	switch {
	case os.Geteuid() == 0 && env("XDG_STATE_HOME") == "":
		dir = "/var/log"
	case dir == "":
		return "", usageError{errors.New("there is no place for a log, since HOME is not set: name one by --log-file")}
	}
	name := strings.ReplaceAll(strings.Trim(point, "/"), "/", "-")
	return filepath.Join(dir, "mlflowfs", name+".log"), nil
}

// rotated is a log file that is kept to a size, with the ones before it.
func rotated(name string) (*lumberjack.Logger, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, fmt.Errorf("--log-file: %w", err)
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--log-file: %w", err)
	}
	f.Close()
	return &lumberjack.Logger{Filename: name, MaxSize: 10 /* MiB */, MaxBackups: 3}, nil
}

// notify tells systemd that the mount answers (sd_notify(3)), and then, as often
// as it wants to hear that, that no request of the kernel waits for longer than
// patience.
func (d *daemon) notify(o *options, log *slog.Logger) {
	server, patience := rest.Redact(d.server), o.stuck()
	if ok, err := o.notify(systemd.SdNotifyReady + "\nSTATUS=shows " + server); err != nil || !ok {
		if err != nil {
			log.Warn("systemd can't be told that the mount answers", "err", err)
		}
		return
	}
	every := o.watchdog()
	if every <= 0 {
		return
	}
	go func() {
		for range time.Tick(every / 2) {
			if d.mounted().LongestWait < patience.Seconds() {
				o.notify(systemd.SdNotifyWatchdog)
			}
		}
	}()
}

// notify tells systemd something; ok says that it wants to be told. It listens to the
// process that it has started.
func (p *process) notify(words string) (ok bool, err error) {
	if p.held != nil {
		return p.held.notify(words)
	}
	return systemd.SdNotify(false, words)
}

// watchdog is within what time systemd wants to hear that the mount answers; 0: it does not.
func (p *process) watchdog() time.Duration {
	if p.held != nil {
		return p.held.Watchdog
	}
	every, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		return 0
	}
	return every
}
