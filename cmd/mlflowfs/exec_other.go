//go:build !linux

package main

import (
	"context"
	"errors"
)

func (*options) supervise(context.Context, string, []string) error {
	return errors.New("exec is there on Linux only: mount, and run the command then")
}

func (*process) stage([]string) int { return exitUsage }
