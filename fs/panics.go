package fs

import (
	"fmt"
	"log/slog"
	"runtime/debug"
)

// contain runs f on a goroutine that answers no request, where nothing else keeps
// a panic from ending the daemon.
func contain(log *slog.Logger, what string, f func()) {
	defer func() {
		if r := recover(); r != nil {
			logPanic(log, what, r)
		}
	}()
	f()
}

// logPanic is called while the goroutine that has panicked recovers.
func logPanic(log *slog.Logger, what string, r any) {
	log.Error(what+" failed by a panic, which is a bug", "panic", fmt.Sprint(r), "goroutines", string(debug.Stack()))
}
