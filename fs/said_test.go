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

// The line of an error says which artifact, what the server said, and what to do.
func TestLogSaysWhatToDo(t *testing.T) {
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

// A path that fails again and again is said once in a while, and many paths are
// so many lines a second; what was left out is counted.
func TestLogIsBounded(t *testing.T) {
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
