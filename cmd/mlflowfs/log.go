package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// log is the log that the settings ask for.
func (o *options) log() (*slog.Logger, error) {
	if o.logger != nil {
		return o.logger, nil
	}
	o.level.Set(o.Log.Level)
	out := o.stderr
	if o.Log.File != "" {
		var err error
		if out, err = rotated(o.Log.File); err != nil {
			return nil, err
		}
		o.crashTo(o.Log.File)
	}
	opt := &slog.HandlerOptions{Level: &o.level}
	log, flush := newLog(out, func(w io.Writer) slog.Handler {
		if o.Log.Format == "json" {
			return slog.NewJSONHandler(w, opt)
		}
		return slog.NewTextHandler(w, opt)
	})
	o.logger, o.flush = log, flush
	return log, nil
}

// crashTo has a daemon that ends by a fault say where in its log file, too: in the background
// nobody sees its standard error.
func (o *options) crashTo(file string) {
	if o.held == nil {
		return
	}
	if f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0); err == nil {
		debug.SetCrashOutput(f, debug.CrashOptions{})
		f.Close() // there is a copy
	}
}

// levels has SIGUSR1 make the log tell more, by a level each time, and when it tells all what
// the settings ask for. SIGUSR2 is the holder's.
func (o *options) levels(log *slog.Logger) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	signal.Ignore(syscall.SIGUSR2)
	go func() {
		for range signals {
			if more := o.level.Level() - (slog.LevelInfo - slog.LevelDebug); more >= slog.LevelDebug {
				o.level.Set(more)
			} else {
				o.level.Set(o.Log.Level)
			}
			log.Log(context.Background(), o.level.Level(), "the log's level was changed by a signal", "now", o.level.Level())
		}
	}()
}
