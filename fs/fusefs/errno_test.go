package fusefs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"testing"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestErrorsHaveTheirErrno fails when a program gets another errno than the one that
// says what is wrong, for instance EIO for a file that does not exist.
func TestErrorsHaveTheirErrno(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"no such file or directory": fmt.Errorf("x: %w", iofs.ErrNotExist),
		"permission denied":         &rest.Error{Status: 403},
		"operation not supported":   fmt.Errorf("x: %w", errors.ErrUnsupported),
		"stale file handle":         fmt.Errorf("x: %w", cache.ErrChanged),
		"interrupted system call":   fmt.Errorf("x: %w", errInterrupted),
		"input/output error":        context.Canceled,
	} {
		if got := errno(err).Error(); got != want {
			t.Errorf("%v is %s", err, got)
		}
	}
	if errno(nil) != 0 {
		t.Error("no error has an errno")
	}
}
