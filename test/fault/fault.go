// Package fault breaks, on command, what a mount stands on:
//
//   - an origin: the requests and answers that pass a [count.Origin], by a seed
//     ([Chaos]), one by one (the functions that change an answer), or below TLS
//     ([OverTLS]);
//   - a disk: a filesystem with its files in another directory, each operation
//     of which fails, or hangs, by a [Rule] ([Disk]);
//   - a process: what it may open, write and map ([Limited]).
//
// Faults are counted by their names in a [count.Tally], so that a test can tell
// that they came: a test that met no fault has tested nothing. Nothing here
// lies about bytes in a way against which no reader could do anything.
package fault

import (
	"cmp"
	"fmt"
	"os/exec"
	"slices"
)

// Limit is a resource limit of a process (getrlimit(2)), by the name that
// prlimit(1) has for it, such as nofile (descriptors), fsize (bytes of a file)
// or as (bytes of memory).
type Limit struct {
	Resource string
	Most     uint64
	Soft     uint64 // what it may have until it raises that; 0: Most
}

// Limited has a command run with limits, soft and hard: Go's runtime raises a
// soft limit on descriptors at its start.
func Limited(c *exec.Cmd, limits ...Limit) *exec.Cmd {
	args := []string{"prlimit"}
	for _, l := range limits {
		args = append(args, fmt.Sprintf("--%s=%d:%d", l.Resource, cmp.Or(l.Soft, l.Most), l.Most))
	}
	limited := exec.Command(args[0], slices.Concat(args[1:], []string{c.Path}, c.Args[1:])...)
	limited.Env, limited.Dir, limited.Stdin, limited.Stdout, limited.Stderr, limited.SysProcAttr = c.Env, c.Dir, c.Stdin, c.Stdout, c.Stderr, c.SysProcAttr
	return limited
}
