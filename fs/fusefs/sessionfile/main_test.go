//go:build linux

package sessionfile

import (
	"fmt"
	"os"
	"testing"
)

// children are what this program does as another process: see child.
var children = map[string]func() error{"changes": changeForever, "limited": useLimited}

func TestMain(m *testing.M) {
	if child := children[os.Getenv("SESSIONFILE_CHILD")]; child != nil {
		if err := child(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}
