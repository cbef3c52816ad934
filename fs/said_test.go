package fs

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLogSaysWhatToDo fails when the line of an error does not say which artifact
// it is about, what the server answered, or what the user can do about it.
func TestLogSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for e, want := range map[syscall.Errno]string{
		syscall.ENOENT: "list its directory", syscall.EACCES: "credentials", syscall.EOPNOTSUPP: "--serve-artifacts", syscall.ESTALE: "open it again", syscall.EIO: "mlflowfs doctor",
	} {
		var out bytes.Buffer
		newSaidOnce().log(slog.New(slog.NewTextHandler(&out, nil)), reading, "/runs/r/f", e, errors.New("GET artifact: 418 teapot"))
		for _, w := range []string{"read failed", "path=/runs/r/f", "418 teapot", e.Error(), "mend=", want} {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%v: no %q in %s", e, w, &out)
			}
		}
	}
}

// TestLogIsBounded fails when a path that fails again and again, or many paths that
// fail at once, fill the log: one path has a line every 10 s, all of them 5 lines
// a second, and the lines left out are counted.
func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	s := newSaidOnce()
	now := time.Now()
	said, left := 0, 0
	for i := range 10_000 { // in 10 s
		for range 3 {
			if say, out := s.may(fmt.Sprint(i/2), now.Add(time.Duration(i)*time.Millisecond)); say {
				said++
				left += out
			}
		}
	}
	if said < 40 || said > 11*linesASecond {
		t.Errorf("%d lines in 10 s", said)
	}
	if left < 4000 {
		t.Errorf("%d are said to be left out", left)
	}
}
