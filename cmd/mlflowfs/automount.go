package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/mlflowfs/mlflowfs/fs/fusefs"
)

// idleAutomount is after which time without use a mount ends that path made.
const idleAutomount = "12h"

// autoMount mounts in the background for a scope, unless another process just did, and
// gives the mount point.
func (o *options) autoMount(ctx context.Context, scope string, log *slog.Logger) (point string, err error) {
	dir, err := o.runtimeDir()
	if err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := lockWithin(ctx, lock); err != nil {
		return "", err
	}
	if point := findMount(ctx, scope, log); point != "" {
		return point, nil
	}
	sum := sha256.Sum256([]byte(scope)) // all users see mount points
	point = filepath.Join(dir, hex.EncodeToString(sum[:8]))
	if mounted, ours, err := fusefs.FindMount(point); err != nil || !mounted || !ours { // a dead one can't be made
		if err := os.MkdirAll(point, 0o700); err != nil {
			return "", err
		}
	}
	if err := fusefs.CheckMountpoint(point, log); err != nil {
		return "", err
	}
	if o.getenv("MLFLOWFS_IDLE_TIMEOUT") == "" {
		o.environ = append(o.environ, "MLFLOWFS_IDLE_TIMEOUT="+idleAutomount)
	}
	return point, o.inBackground(ctx, point)
}

// runtimeDir is the directory of this user's own mounts, which is open to nobody else.
func (o *options) runtimeDir() (string, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("mlflowfs-%d", os.Geteuid()))
	if run := o.getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(run) {
		dir = filepath.Join(run, "mlflowfs")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := ownDirectory(dir); err != nil {
		return "", fmt.Errorf("%w: set XDG_RUNTIME_DIR to one", err)
	}
	return dir, nil
}

// ownDirectory says why a directory is not this user's alone.
func ownDirectory(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if s, ok := st.Sys().(*syscall.Stat_t); !st.IsDir() || st.Mode().Perm() != 0o700 || !ok || int(s.Uid) != os.Geteuid() {
		return fmt.Errorf("%s must be a directory of this user's alone (mode 0700)", dir)
	}
	return nil
}

// lockWithin waits for a lock as long as another process may take to mount.
func lockWithin(ctx context.Context, f *os.File) error {
	_, err := within(ctx, time.Minute, func() (struct{}, error) {
		return struct{}{}, syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	})
	return err
}
