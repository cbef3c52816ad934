package fusefs

import "sync/atomic"

// opens counts, since the mount.
type opens struct {
	passed, cached atomic.Int64 // opens of files that the kernel reads itself, or asks for
	pushed         atomic.Int64 // bytes
}

// Stats is what a mount knows and did.
type Stats struct {
	Names       int     `json:"names"`                // that the kernel knows
	Opens       int64   `json:"opens"`                // of files
	PassedOpens int64   `json:"passed_opens"`         // of these, those that the kernel reads itself (passthrough)
	PushedBytes int64   `json:"pushed_bytes"`         // that the kernel was given before it asked
	Waiting     int     `json:"waiting"`              // requests of the kernel that are not answered yet
	LongestWait float64 `json:"longest_wait_seconds"` // of these
}

// Stats says what the mount knows and did.
func (m *Mounted) Stats() Stats {
	passed := m.a.opens.passed.Load()
	waits, n := m.a.watchdog.oldest()
	return Stats{
		Opens: passed + m.a.opens.cached.Load(), PassedOpens: passed, PushedBytes: m.a.opens.pushed.Load(),
		Names: m.a.names.len(), Waiting: n, LongestWait: waits.Seconds(),
	}
}
