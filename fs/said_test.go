package fs

import (
	"fmt"
	"testing"
	"time"
)

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
