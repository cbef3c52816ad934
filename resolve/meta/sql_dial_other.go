//go:build !linux

package meta

import "syscall"

// endUnacknowledged does nothing: only Linux has TCP_USER_TIMEOUT.
func endUnacknowledged(string, string, syscall.RawConn) error { return nil }
