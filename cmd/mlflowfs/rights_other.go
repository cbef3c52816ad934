//go:build !linux

package main

import "log/slog"

// dropRights has nothing to drop: capabilities are Linux's.
func dropRights(*slog.Logger) {}
