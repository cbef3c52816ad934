package cache

import (
	"context"
	"errors"
	"io"
)

// ErrChanged says that the content behind a key is no longer what it was when
// the key was made: its size or its validator differs. The handle is of no
// more use; a new look-up gives the new content.
var ErrChanged = errors.New("content changed at its origin")

// Source is where a file's bytes come from.
type Source interface {
	// ReadRange asks for n bytes from offset off, 0 <= off < off+n <= size.
	// It returns when the origin has answered; the bytes then come through
	// Body, until ctx ends. Retries before the first byte are the source's own affair; a body
	// that breaks off is resumed by the cache with another ReadRange.
	//
	// validator, where it is not empty, is what the answer must be of: a
	// source that can asks its origin for that content and no other, and
	// answers with ErrChanged where it is gone.
	ReadRange(ctx context.Context, off, n int64, validator string) (*Body, error)
}

// A Source may have a method Origin() string, which names what its requests go
// to, as a host: each origin has its own share of the requests that run at once.
// Without one, all such are one origin.

// Body is an origin's answer to a ReadRange.
type Body struct {
	io.ReadCloser // Close may be called beside a Read, and ends it

	// Whole says that the body is the whole file from byte 0, whatever range
	// was asked for.
	Whole bool

	// Total is the file's size in bytes as the origin gives it with this
	// answer, or -1 where it does not say.
	Total int64

	// Validator identifies the content (a strong ETag), or is empty. Two
	// different validators are two different contents.
	Validator string

	Sums
}

// Sums are checksums of a whole file, as far as its origin gives any.
type Sums struct {
	MD5    []byte  // 16 bytes, or nil
	CRC32C *uint32 // Castagnoli
}
