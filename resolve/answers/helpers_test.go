package answers

import (
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// TestMain fails the package when a test leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs test beside others, with a clock of its own (testing/synctest).
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, test)
}

func diskAt(t *testing.T, dir string, bound int64) *disk.Dir {
	t.Helper()
	d, err := disk.Open(dir, disk.Options{
		Bound: bound, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Patience: time.Minute, // a busy test machine is no broken disk
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// flipBit turns a bit of the byte at off.
func flipBit(path string, off int64) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[off] ^= 16
	return os.WriteFile(path, b, 0o600)
}
