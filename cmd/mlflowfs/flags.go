package main

import (
	"fmt"
	"os"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"
)

// size is a flag's number of bytes: 512MiB, 2GB, 1048576.
type size int64

var _ pflag.Value = (*size)(nil)

func (s *size) String() string { return humanize.IBytes(uint64(*s)) }
func (s *size) Type() string   { return "size" }

func (s *size) Set(v string) error {
	n, err := humanize.ParseBytes(v)
	if err != nil || n > 1<<62 {
		return fmt.Errorf("%q is no size: write it like 512MiB or 20GiB", v)
	}
	*s = size(n)
	return nil
}

// environment ties flags to variables: a flag that the command line leaves out
// is taken from its variable.
type environment map[*pflag.Flag]string

// bind names the variable of a flag, in its help too.
func (e environment) bind(flags *pflag.FlagSet, flag, variable string) {
	f := flags.Lookup(flag)
	f.Usage += " [$" + variable + "]"
	e[f] = variable
}

// apply takes the variables' values.
func (e environment) apply() error {
	for f, variable := range e {
		v := os.Getenv(variable)
		if v == "" || f.Changed {
			continue
		}
		if err := f.Value.Set(v); err != nil {
			return usageError{fmt.Errorf("the variable %s: %w", variable, err)}
		}
	}
	return nil
}
