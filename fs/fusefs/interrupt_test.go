package fusefs

import (
	"fmt"
	"testing"
)

// FuzzFatalTakesAnyBytes fails when an unexpected /proc/PID/status ends the daemon.
func FuzzFatalTakesAnyBytes(f *testing.F) {
	f.Add([]byte("State:\tS (sleeping)\nSigPnd:\t0000000000000100\nSigBlk:\tffffffffffffffff\n"))
	f.Fuzz(func(t *testing.T, b []byte) { fatal(b) })
}

// TestOnlyFatalSignalsInterrupt fails when a read ends with EINTR although the
// program will live on (a timer's tick, an ignored or a blocked signal), or when a
// killed program stays until the server answers.
func TestOnlyFatalSignalsInterrupt(t *testing.T) {
	t.Parallel()
	status := func(pending, blocked, ignored, caught uint64) []byte {
		return fmt.Appendf(nil, "Name:\tcat\nState:\tD (disk sleep)\nSigPnd:\t0\nShdPnd:\t%016x\nSigBlk:\t%016x\nSigIgn:\t%016x\nSigCgt:\t%016x\n", pending, blocked, ignored, caught)
	}
	const term, alarm, urg, kill = 15, 14, 23, 9
	for name, c := range map[string]struct {
		status []byte
		want   bool
	}{
		"nothing":       {status(0, 0, 0, 0), false},
		"kill":          {status(mask(kill), ^uint64(0), 0, 0), true},
		"term":          {status(mask(term), 0, 0, 0), true},
		"caught alarm":  {status(mask(alarm), 0, 0, mask(alarm)), false},
		"ignored term":  {status(mask(term), 0, mask(term), 0), false},
		"blocked term":  {status(mask(term), mask(term), 0, 0), false},
		"urg":           {status(mask(urg), 0, 0, 0), false},
		"caught + kill": {status(mask(alarm, kill), 0, 0, mask(alarm)), true},
		"zombie":        {[]byte("State:\tZ (zombie)\n"), true},
	} {
		if got := fatal(c.status); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
