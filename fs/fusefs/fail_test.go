package fusefs

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/test/count"
)

// TestLogSaysWhatToDo fails when the line of an error does not say which artifact
// it is about, what the server answered, or what the user can do about it.
func TestLogSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for cause, want := range map[error]string{
		iofs.ErrNotExist: "list its directory", iofs.ErrPermission: "credentials", errors.ErrUnsupported: "--serve-artifacts",
		cache.ErrChanged: "open it again", fs.ErrTooLarge: "look at the artifact there", os.ErrDeadlineExceeded: "mlflowfs doctor",
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			var out count.Log
			failing := &eager{fails: fmt.Errorf("GET artifact: 418 teapot: %w", cause)}
			point, m := mounted(t, &fs.Node{Dir: failing}, MountOptions{Log: slog.New(slog.NewTextHandler(&out, nil))})
			if _, err := os.ReadFile(filepath.Join(point, "f")); err == nil {
				t.Error("it is read")
			}
			unmount(t, m)
			for _, w := range []string{"open failed", "path=/f", "418 teapot", errno(cause).Error(), "mend=", want} {
				if !strings.Contains(out.String(), w) {
					t.Errorf("no %q in %s", w, out.String())
				}
			}
		})
	}
}
