package cache

import (
	"fmt"
	"runtime/debug"
)

// Guard runs f and turns a panic into an error: what runs on a goroutine of its
// own must not take the process with it.
func Guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return f()
}
