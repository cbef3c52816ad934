package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
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

// levels has SIGUSR1 make the log tell more, by a level each time, and SIGUSR2
// bring back what the settings ask for.
func (o *options) levels(log *slog.Logger) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range signals {
			if s == syscall.SIGUSR2 {
				o.level.Set(o.Log.Level)
			} else {
				o.level.Set(max(o.level.Level()-(slog.LevelInfo-slog.LevelDebug), slog.LevelDebug))
			}
			log.Log(context.Background(), o.level.Level(), "the log's level was changed by a signal", "now", o.level.Level())
		}
	}()
}
