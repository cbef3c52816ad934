// Package test holds the black-box tests: real MLflow servers from PyPI (3.17
// and 2.22, in a soak 1.30, too, installed by setup.sh below .testenv), runs and
// models logged by the real Python client, real mounts, and ordinary programs
// that read them.
//
// A test gets a server from shared.get, newBytesOf or newS3Run, which all share,
// or one of its own from startServer; a mount from mountAt or mountRaced; where it
// counts, a count.Origin before the server from proxyTo; and its faults from
// package fault. Tests that call t.Parallel run beside each other, after those
// that measure. They begin in the order of their files' names: those of a_*_test.go
// take the longest, and would run on alone if they began last. Each takes as long as
// length says, which in a soak is long.
//
// What the tests share is made before the first one where all run (prepare). A Python
// script is forked from a process that has MLflow imported (fork.py).
//
// Nothing is skipped: what is missing fails. Nothing is left behind: TestMain fails
// when a mount or a process of ours outlives the tests. See docs/contributing.md.
package test
