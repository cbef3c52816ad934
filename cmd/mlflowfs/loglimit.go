package main

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// logLimiter is a slog.Handler that bounds what reaches another one. A server can
// send any number of names that can't be shown, and a program can try any number
// of times what fails: of one message there are maxLines lines in a minute, no two
// of them alike but for the error's words, and then one that says how many more
// there were. Lines below the level info have no bound: who asks for them wants
// all.
type logLimiter struct {
	slog.Handler

	mu     *sync.Mutex // guards recent, and what is in it
	recent map[string]*recentLines
}

// recentLines are the lines of one message in the minute since the first of them.
type recentLines struct {
	said    map[string]bool
	leftOut int
	level   slog.Level
	over    *time.Timer
}

const (
	maxLines   = 20
	logMinute  = time.Minute
	maxValue   = 2 << 10      // bytes of a value that are said
	goroutines = "goroutines" // the value that is said whole: their stacks
)

// newLog makes the log of a command, in the form of a handler; flush counts what it has
// left out, when the command ends.
func newLog(out io.Writer, form func(io.Writer) slog.Handler) (log *slog.Logger, flush func()) {
	direct := slog.New(form(out))
	l := newLogLimiter(form(newLogWriter(out, func(lost int64) {
		direct.Warn("lines of the log were lost: nobody took them", "lines", lost)
	})))
	return slog.New(l), l.flush
}

func newLogLimiter(h slog.Handler) *logLimiter {
	return &logLimiter{h, new(sync.Mutex), map[string]*recentLines{}}
}

var _ slog.Handler = (*logLimiter)(nil)

func (l *logLimiter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logLimiter{l.Handler.WithAttrs(attrs), l.mu, l.recent}
}

func (l *logLimiter) WithGroup(name string) slog.Handler {
	return &logLimiter{l.Handler.WithGroup(name), l.mu, l.recent}
}

func (l *logLimiter) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelInfo {
		return l.Handler.Handle(ctx, r)
	}
	short := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	alike := "" // what lines that are alike have in common
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != goroutines {
			a.Value = shortValue(a.Value)
		}
		if a.Key != "err" {
			alike += a.String() + "\x00"
		}
		short.AddAttrs(a)
		return true
	})
	if !l.may(r, alike) {
		return nil
	}
	return l.Handler.Handle(ctx, short)
}

// shortValue is a value of which no more than maxValue bytes are said.
func shortValue(v slog.Value) slog.Value {
	v = v.Resolve()
	if k := v.Kind(); k != slog.KindString && k != slog.KindAny {
		return v
	}
	if s := v.String(); len(s) > maxValue {
		return slog.StringValue(s[:maxValue] + "…")
	}
	return v
}

// may tells whether a line is to be said.
func (l *logLimiter) may(r slog.Record, alike string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.recent[r.Message]
	if m == nil {
		m = &recentLines{said: map[string]bool{}}
		m.over = time.AfterFunc(logMinute, func() { l.end(r.Message, m) })
		l.recent[r.Message] = m
	}
	if m.said[alike] || len(m.said) == maxLines {
		m.leftOut++
		m.level = r.Level
		return false
	}
	m.said[alike] = true
	return true
}

// end says how many lines of a message were left out; the next one is said again.
func (l *logLimiter) end(message string, m *recentLines) {
	l.mu.Lock()
	if l.recent[message] == m {
		delete(l.recent, message)
	}
	n := m.leftOut
	m.leftOut = 0
	l.mu.Unlock()
	if n == 0 {
		return
	}
	r := slog.NewRecord(time.Now(), m.level, "more lines like others were left out", 0)
	r.AddAttrs(slog.String("like", message), slog.Int("lines", n))
	l.Handler.Handle(context.Background(), r)
}

// flush ends the minute of each message.
func (l *logLimiter) flush() {
	l.mu.Lock()
	var all []func()
	for message, m := range l.recent {
		m.over.Stop()
		all = append(all, func() { l.end(message, m) })
	}
	l.mu.Unlock()
	for _, end := range all {
		end()
	}
}
