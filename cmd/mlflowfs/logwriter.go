package main

import (
	"bytes"
	"io"
	"os"
	"sync/atomic"
	"time"
)

// logWriter writes the log's lines, and keeps nobody waiting for who reads them:
// standard error may be a terminal that is stopped, or a pipe of a parent that
// does not read, and what waits for a line holds up each failing read.
type logWriter struct {
	lines chan logLine
	stuck atomic.Bool // nobody waits for a line
	lost  atomic.Int64
	told  func(lost int64) // is called when lines can be written again
}

type logLine struct {
	text    []byte
	written chan struct{}
}

const (
	logPatience = 100 * time.Millisecond // for a line
	logWaits    = 1000                   // lines wait, and the rest are lost
)

func newLogWriter(out io.Writer, told func(lost int64)) *logWriter {
	w := &logWriter{lines: make(chan logLine, logWaits), told: told}
	go w.work(out)
	return w
}

func (w *logWriter) work(out io.Writer) {
	for l := range w.lines {
		out.Write(l.text)
		close(l.written)
		if len(w.lines) == 0 {
			w.stuck.Store(false)
			if n := w.lost.Swap(0); n > 0 {
				w.told(n)
			}
		}
	}
}

// Write has a line written, and waits for that where it does not take long.
func (w *logWriter) Write(p []byte) (int, error) {
	l := logLine{bytes.Clone(p), make(chan struct{})}
	select {
	case w.lines <- l:
	default:
		w.lost.Add(1)
		return len(p), nil
	}
	if !w.stuck.Load() {
		w.wait(l.written)
	}
	return len(p), nil
}

func (w *logWriter) wait(written chan struct{}) {
	late := time.NewTimer(logPatience)
	defer late.Stop()
	select {
	case <-written:
	case <-late.C:
		w.stuck.Store(true)
	}
}

var _ io.Writer = (*logWriter)(nil)

// appended is a file of which each line is written to what has its name then: the daemon
// rotates its log.
type appended string

func (a appended) Write(line []byte) (int, error) {
	f, err := os.OpenFile(string(a), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Write(line)
}
