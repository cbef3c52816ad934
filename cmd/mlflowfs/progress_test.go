package main

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestProgressIsALineEveryTenSeconds fails when the log of a transfer without a
// terminal does not say how far it is, how fast, and how long it will take, or says it
// more often than every ten seconds.
func TestProgressIsALineEveryTenSeconds(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "out")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	synctest.Test(t, func(t *testing.T) {
		p := newProgress(out, false)
		p.start()
		p.more(100 << 20)
		p.add(25 << 20)
		time.Sleep(25 * time.Second)
		p.stop(nil)
	})
	got, err := os.ReadFile(name)
	const want = "mlflowfs: 25 MiB of 100 MiB, 2.5 MiB/s, 30s left\n" + // after 10 s
		"mlflowfs: 25 MiB of 100 MiB, 1.3 MiB/s, 1m0s left\n"
	if err != nil || string(got) != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}
