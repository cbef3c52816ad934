package cache

import (
	"fmt"
	"runtime/debug"
)

// guard runs f and turns a panic into an error: what runs on a goroutine of
// the cache's own must not take the process with it.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return f()
}
