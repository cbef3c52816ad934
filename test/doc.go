// Package test holds the black-box tests: real MLflow servers from PyPI (3.17
// and 2.22, installed by setup.sh below .testenv), runs and models logged by
// the real Python client, real mounts, and ordinary programs that read them.
//
// A test gets a server from startServer or one of the shared, seeded ones, a mount
// from mountAt, and, where it counts requests or needs a fault, a proxy in
// between. Nothing is skipped: what is missing fails. Nothing is left behind:
// TestMain fails when a mount or a process of ours outlives the tests.
package test
