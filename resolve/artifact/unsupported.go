package artifact

import (
	"context"
	"errors"
	"fmt"

	"github.com/mlflowfs/mlflowfs/cache"
)

// Unsupported is the store of artifacts that nothing here can read. Its value
// says why, with the scheme's name and without credentials.
type Unsupported string

var _ Store = Unsupported("")

func (u Unsupported) err() error { return fmt.Errorf("%s: %w", string(u), errors.ErrUnsupported) }

// ID is unique to the reason.
func (u Unsupported) ID() string { return "unsupported:" + string(u) }

// List fails with errors.ErrUnsupported.
func (u Unsupported) List(context.Context, string) (Tree, error) { return nil, u.err() }

// ReadRange fails with errors.ErrUnsupported.
func (u Unsupported) ReadRange(context.Context, string, int64, int64, string) (*cache.Body, error) {
	return nil, u.err()
}
