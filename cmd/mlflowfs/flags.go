package main

import (
	"fmt"
	"strconv"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"
)

// size is a flag's number of bytes: 512MiB, 2GB, 1048576.
type size int64

var _ pflag.Value = (*size)(nil)

// String writes it so that Set takes it back.
func (s *size) String() string {
	short := humanize.IBytes(uint64(*s))
	if n, err := humanize.ParseBytes(short); err != nil || n != uint64(*s) {
		return strconv.FormatInt(int64(*s), 10)
	}
	return short
}

func (s *size) Type() string { return "size" }

func (s *size) Set(v string) error {
	n, err := humanize.ParseBytes(v)
	if err != nil || n > 1<<62 {
		return fmt.Errorf("%q is no size: write it like 512MiB or 20GiB", v)
	}
	*s = size(n)
	return nil
}
