package fs

import (
	"fmt"
	"log/slog"
	"runtime/debug"
)

// Contain runs f on a goroutine that answers no request, where nothing else keeps
// a panic from ending the daemon.
func Contain(log *slog.Logger, what string, f func()) {
	defer func() {
		if r := recover(); r != nil {
			LogPanic(log, what, r)
		}
	}()
	f()
}

// LogPanic is called while the goroutine that has panicked recovers.
func LogPanic(log *slog.Logger, what string, r any) {
	log.Error(what+" failed by a panic, which is a bug", "panic", fmt.Sprint(r), "goroutines", string(debug.Stack()))
}
