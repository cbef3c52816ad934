package fs

import (
	"context"
	"fmt"
	"hash/maphash"
	"io"
)

// text is a file, and its own handle, whose content is known.
type text string

var (
	_ File       = text("")
	_ Handle     = text("")
	_ Identified = text("")
)

func (s text) Open(context.Context) (Handle, error) { return s, nil }
func (s text) Close() error                         { return nil }

// Identity is two hashes of the text, and no copy of it: an inode keeps what it
// was opened with for as long as the kernel knows it.
func (s text) Identity() string {
	return fmt.Sprintf("text %x %x", maphash.String(textSeeds[0], string(s)), maphash.String(textSeeds[1], string(s)))
}

var textSeeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

func (s text) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	if off >= int64(len(s)) {
		return 0, io.EOF
	}
	n := copy(p, s[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// sized is a node of a text.
func sized(s string) *Node { return &Node{File: text(s), Size: int64(len(s))} }
