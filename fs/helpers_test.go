package fs

import (
	"log/slog"
	"os"
	"testing"
	"time"
)

// soak reports whether the long form of a test is asked for.
func soak() bool { return os.Getenv("MLFLOWFS_SOAK") != "" }

// eventually waits until cond holds. It ends the test if that takes more than a
// minute; what names the condition.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// mounted mounts a tree for one test and returns the mount point.
func mounted(t *testing.T, root *Node, opt MountOptions) (string, *Mounted) {
	t.Helper()
	point := t.TempDir()
	if opt.Log == nil {
		opt.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	m, err := Mount(point, root, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, m) })
	return point, m
}

// unmount takes the mount away and waits for the end of what it started.
func unmount(t *testing.T, m *Mounted) {
	t.Helper()
	if _, err := m.Unmount(); err != nil {
		t.Error(err)
	}
	m.Wait()
}
