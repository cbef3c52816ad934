//go:build !linux

package disk

import (
	"errors"
	"os"
)

func willNeed(*os.File, int64, int64) {}

func readNow(*os.File, []byte, int64) int { return 0 }

func writev(*os.File, [][]byte, int64) int { return 0 }

func takesPlace(*os.File) bool { return false }

func takePlace(*os.File, int64, int64) {}

func cloneFile(*os.File, *os.File) error { return errors.ErrUnsupported }

func linkFile(*os.File, *os.File, string) error { return errors.ErrUnsupported }

func boot() string { return "" }
