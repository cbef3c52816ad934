package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// Where there is no terminal, a line now and then says how far it is.
func TestProgressLines(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p := newProgress(out, false)
	p.every = 20 * time.Millisecond
	p.start()
	p.more(100 << 20)
	p.add(25 << 20)
	time.Sleep(100 * time.Millisecond)
	p.stop(nil)
	got, err := os.ReadFile(name)
	if want := regexp.MustCompile(`^(mlflowfs: 25 MiB of 100 MiB, [\d.]+ [MG]iB/s, \d+(\.\d+)?m?s left\n)+$`); err != nil || !want.Match(got) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAccessFlag(t *testing.T) {
	var a accessFlag
	for _, ok := range []string{"auto", "direct", "presigned", "server"} {
		if err := a.Set(ok); err != nil || a.String() != ok {
			t.Error(ok, err)
		}
	}
	if a.Set("") == nil || a.Set("Direct") == nil {
		t.Error("nonsense was taken")
	}
}
