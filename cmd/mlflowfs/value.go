package main

import (
	"encoding/csv"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"
)

// size is a number of bytes: 512MiB, 2GB, 1048576.
type size int64

// String writes it so that Set takes it back.
func (s *size) String() string {
	short := humanize.IBytes(uint64(*s))
	if n, err := humanize.ParseBytes(short); err != nil || n != uint64(*s) {
		return strconv.FormatInt(int64(*s), 10)
	}
	return short
}

func (s *size) Set(v string) error {
	n, err := humanize.ParseBytes(v)
	if err != nil || n > 1<<62 {
		return fmt.Errorf("%q is no size: write it like 512MiB or 20GiB", v)
	}
	*s = size(n)
	return nil
}

// sizeOrAuto is a size, or what is chosen here where nobody says one.
type sizeOrAuto struct {
	size
	auto bool
}

const auto = "auto"

func (s *sizeOrAuto) String() string {
	if s.auto {
		return auto
	}
	return s.size.String()
}

func (s *sizeOrAuto) Set(v string) error {
	if s.auto = v == auto; s.auto {
		return nil
	}
	return s.size.Set(v)
}

// value is a setting's field of a configuration, as text; it is the value of a flag.
// The field is a pointer to a string, bool, int, time.Duration, slog.Level or []string,
// or has String and Set of its own.
type value struct {
	field any
	given bool // a list, which the next one is put behind
}

var _ pflag.Value = (*value)(nil)

// Type names what the value is, in the help.
func (v *value) Type() string {
	switch v.field.(type) {
	case *bool:
		return "bool"
	case *int:
		return "int"
	case *time.Duration:
		return "duration"
	case *slog.Level:
		return "level"
	case *[]string:
		return "stringSlice"
	case *size, *sizeOrAuto:
		return "size"
	}
	return "string"
}

// String writes it so that Set takes it back.
func (v *value) String() string {
	switch p := v.field.(type) {
	case *string:
		return *p
	case *bool:
		return strconv.FormatBool(*p)
	case *int:
		return strconv.Itoa(*p)
	case *slog.Level:
		return strings.ToLower(p.String())
	case *[]string:
		var b strings.Builder
		w := csv.NewWriter(&b)
		if len(*p) > 0 && w.Write(*p) == nil {
			w.Flush()
		}
		return strings.TrimSuffix(b.String(), "\n")
	case fmt.Stringer:
		return p.String()
	}
	return "" // of no field, as pflag makes one
}

// Set takes s, or says how it is written.
func (v *value) Set(s string) (err error) {
	form := ""
	switch p := v.field.(type) {
	case *string:
		*p = s
	case *bool:
		*p, err = strconv.ParseBool(s)
		form = "neither true nor false"
	case *int:
		*p, err = strconv.Atoi(s)
		form = "no whole number: write it like 8"
	case *time.Duration:
		*p, err = parseDuration(s)
		form = "no duration: write it like 30s or 5m"
	case *slog.Level:
		err = p.UnmarshalText([]byte(s))
		form = "no level: it must be debug, info, warn or error"
	case *[]string:
		return v.addList(p, s)
	case interface{ Set(string) error }:
		return p.Set(s)
	}
	if err != nil {
		return fmt.Errorf("%q is %s", s, form)
	}
	return nil
}

// addList puts what s lists, with commas, in the place of the default, or behind what
// was given before.
func (v *value) addList(p *[]string, s string) error {
	if !v.given {
		*p = nil
	}
	v.given = true
	if s == "" {
		return nil
	}
	list, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return fmt.Errorf("%q is no list: write it with commas, like a,b", s)
	}
	*p = append(*p, list...)
	return nil
}

// parseDuration reads 30s or 5m; of a number alone, as MLflow's variables have it, the
// unit is the second.
func parseDuration(s string) (time.Duration, error) {
	if n, err := strconv.ParseFloat(s, 64); err == nil && n >= 0 && n < 1e9 {
		return time.Duration(n * float64(time.Second)), nil
	}
	return time.ParseDuration(s)
}

// choice is one of a few words.
type choice[T ~string] struct {
	is *T
	of []T
}

func (c choice[T]) String() string { return string(*c.is) }

func (c choice[T]) Set(s string) error {
	if !slices.Contains(c.of, T(s)) {
		return fmt.Errorf("%q must be one of %s", s, strings.Join(texts(c.of), ", "))
	}
	*c.is = T(s)
	return nil
}
