package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// TestLogIsBounded fails when many names or failures of one kind, or one of them
// again and again, fill the log; when they keep another kind out of it; when it is
// not said how many lines were left out; or when nothing is said any more a minute
// later.
func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out count.Log
		log := slog.New(newLogLimiter(slog.NewTextHandler(&out, nil)))
		for i := range 100_000 {
			log.Warn("a name is left out", "name", fmt.Sprint("a/", i))
			log.Error("read failed", "path", "/one", "err", fmt.Errorf("try %d", i))
		}
		log.Error("read failed", "path", "/two", "err", errors.New("once"))
		for what, n := range map[string]int{"a name is left out": maxLines, "read failed": 2, "path=/two": 1, "\n": maxLines + 2} {
			if got := strings.Count(out.String(), what); got != n {
				t.Errorf("%q stands there %d times, want %d:\n%s", what, got, n, out.String())
			}
		}
		time.Sleep(logMinute + time.Second)
		synctest.Wait()
		for _, want := range []string{`like="a name is left out" lines=99980`, `like="read failed" lines=99999`} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %s in %s", want, out.String())
			}
		}
		log.Error("read failed", "path", "/one")
		if strings.Count(out.String(), "path=/one") != 2 {
			t.Errorf("nothing is said of what fails a minute later:\n%s", out.String())
		}
		time.Sleep(2 * logMinute)
	})
}

// TestLogLinesAreShort fails when a server's words make a line of the log of any
// length, or when the goroutines' stacks, which we write, are cut.
func TestLogLinesAreShort(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	long := strings.Repeat("x", 1<<20)
	slog.New(newLogLimiter(slog.NewTextHandler(&out, nil))).Error("read failed", "path", long, "err", errors.New(long))
	if n := out.Len(); n > 3*maxValue {
		t.Errorf("a line of %d bytes", n)
	}
	out.Reset()
	slog.New(newLogLimiter(slog.NewTextHandler(&out, nil))).Error("stuck", goroutines, long)
	if n := out.Len(); n < len(long) {
		t.Errorf("%d bytes of the goroutines' stacks", n)
	}
}

// TestDebugLogIsWhole fails when lines are left out that somebody has asked for by
// --log-level debug.
func TestDebugLogIsWhole(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(newLogLimiter(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	for range 1000 {
		log.Debug("read", "offset", 0)
	}
	if n := strings.Count(out.String(), "\n"); n != 1000 {
		t.Errorf("%d of 1000 lines", n)
	}
}

// stopped is a terminal that takes no more until it goes on.
type stopped struct {
	goOn chan struct{}
	count.Log
}

func (s *stopped) Write(p []byte) (int, error) {
	<-s.goOn
	return s.Log.Write(p)
}

// TestLogNobodyReadsKeepsNobodyWaiting fails when a line of the log waits for longer
// than a moment for a terminal that is stopped, or a pipe that nobody reads; when
// each of many does; or when it is not said, later, how many lines were lost.
func TestLogNobodyReadsKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &stopped{goOn: make(chan struct{})}
		w := newLogWriter(out, func(lost int64) { fmt.Fprintf(&out.Log, "%d were lost\n", lost) })
		begin := time.Now()
		for i := range 2 * logWaits {
			fmt.Fprintln(w, "line", i)
		}
		if d := time.Since(begin); d > logPatience {
			t.Errorf("%d lines took %v", 2*logWaits, d)
		}
		close(out.goOn)
		synctest.Wait()
		if got := out.String(); !strings.HasPrefix(got, "line 0\nline 1\n") || !strings.HasSuffix(got, fmt.Sprintf("\n%d were lost\n", logWaits-1)) {
			t.Errorf("%d lines, and at the end %q", strings.Count(got, "\n"), got[max(0, len(got)-40):])
		}
		fmt.Fprintln(w, "again")
		if !strings.HasSuffix(out.String(), "\nagain\n") {
			t.Error("a line is not there when its Write returns")
		}
		close(w.lines)
	})
}
