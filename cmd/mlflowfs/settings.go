package main

import (
	"bytes"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	yaml "go.yaml.in/yaml/v4"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// settings are a command's flags, each of which has a variable and a key in the
// configuration file: its own name. The command line goes before the variable,
// that before the file, and that before the default. The flags of mount are the
// one table of all settings: help, the file's keys, docs/configuration.md and
// the man pages come from them.
type settings struct {
	fl        *pflag.FlagSet
	variables map[string]string // by flag
	from      map[string]string // by flag: where its value came from; the default where it is not there
	file      string            // --config
}

const (
	configVariable = "MLFLOWFS_CONFIG"
	systemConfig   = "/etc/mlflowfs/config.yaml"
)

func newSettings(fl *pflag.FlagSet) *settings {
	s := &settings{fl: fl, variables: map[string]string{}, from: map[string]string{}}
	fl.StringVar(&s.file, "config", "", "file of settings (default: mlflowfs/config.yaml below your configuration directory, else "+systemConfig+")")
	s.bind("config", configVariable)
	return s
}

// bind names the variable of a flag, in its help too.
func (s *settings) bind(flag, variable string) {
	s.fl.Lookup(flag).Usage += " [$" + variable + "]"
	s.variables[flag] = variable
}

// set tells whether somebody gave the flag a value.
func (s *settings) set(flag string) bool { return s.from[flag] != "" }

// apply takes the values of variables and of the file. It is called once, when
// the command line is read.
func (s *settings) apply() error {
	var errs []error
	give := func(f *pflag.Flag, value, from string) {
		if s.from[f.Name] == "" {
			if err := f.Value.Set(value); err != nil {
				errs = append(errs, usageError{fmt.Errorf("%s: %w", from, err)})
			}
			s.from[f.Name] = from
		}
	}
	s.fl.VisitAll(func(f *pflag.Flag) {
		variable := s.variables[f.Name]
		if f.Changed {
			s.from[f.Name] = "the command line"
		} else if v := os.Getenv(variable); variable != "" && v != "" {
			give(f, v, "the variable "+variable)
		}
	})
	path, keys, err := readConfig(s.file)
	if err != nil {
		return err
	}
	for key, value := range keys {
		if f := s.fl.Lookup(key); f != nil && s.variables[key] != "" {
			give(f, value, path+", "+key)
		}
	}
	return errors.Join(errs...)
}

// environment is the flags of the command line as variables, for a process of
// the same command: what they say is then on no command line.
func (s *settings) environment() (env []string) {
	s.fl.VisitAll(func(f *pflag.Flag) {
		variable := s.variables[f.Name]
		if !f.Changed {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok && variable != "" {
			env = append(env, variable+"="+strings.Join(list.GetSlice(), ","))
		} else if variable != "" {
			env = append(env, variable+"="+f.Value.String())
		}
	})
	return env
}

// configFile is the file of settings; empty where there is none.
func configFile(named string) string {
	if named != "" {
		return named
	}
	var files []string
	if dir, err := os.UserConfigDir(); err == nil {
		files = append(files, filepath.Join(dir, "mlflowfs", "config.yaml"))
	}
	for _, f := range append(files, systemConfig) {
		if _, err := os.Stat(f); err == nil {
			return f
		}
	}
	return ""
}

// readConfig reads the file of settings, if there is one: a map from flags'
// names to values. A list is what a flag takes with commas.
func readConfig(named string) (path string, keys map[string]string, err error) {
	path = configFile(named)
	if path == "" {
		return "", nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", nil, fmt.Errorf("the configuration file: %w", err)
	}
	var doc map[string]any
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return "", nil, usageError{fmt.Errorf("%s is no YAML of the form `name: value`: %w", path, err)}
	}
	known := configKeys()
	keys = map[string]string{}
	for key, v := range doc {
		if !slices.Contains(known, key) {
			return "", nil, usageError{fmt.Errorf("%s: there is no setting %q; do you mean %q? (docs/configuration.md has all)", path, key, nearest(key, known))}
		}
		switch v := v.(type) {
		case nil:
			keys[key] = ""
		case []any:
			var list []string
			for _, x := range v {
				list = append(list, fmt.Sprint(x))
			}
			keys[key] = strings.Join(list, ",")
		case map[string]any:
			return "", nil, usageError{fmt.Errorf("%s: %s must be one value, or a list", path, key)}
		default:
			keys[key] = fmt.Sprint(v)
		}
	}
	return path, keys, nil
}

// configKeys are the settings that a file may hold, sorted.
func configKeys() (keys []string) {
	_, s := newMount()
	for flag := range s.variables {
		if flag != "config" {
			keys = append(keys, flag)
		}
	}
	slices.Sort(keys)
	return keys
}

// nearest is the name of names that begins with the word, or that takes the
// fewest changes to become.
func nearest(word string, names []string) (best string) {
	least := 1 << 30
	for _, n := range names {
		d := distance(word, n)
		if strings.HasPrefix(n, word) {
			d = 1
		}
		if d < least {
			least, best = d, n
		}
	}
	return best
}

// distance is Levenshtein's: how many letters are to be put in, taken out or
// changed.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := last
			if a[i] != b[j] {
				change++
			}
			last = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// yaml is what is in force, and where each value came from, as a file of
// settings; it holds no password.
func (s *settings) yaml() []byte {
	var b bytes.Buffer
	s.fl.VisitAll(func(f *pflag.Flag) {
		if s.variables[f.Name] == "" || f.Name == "config" {
			return
		}
		value := rest.Redact(f.Value.String())
		if list, ok := f.Value.(pflag.SliceValue); ok {
			value = strings.Join(list.GetSlice(), ",")
		}
		line, err := yaml.Marshal(map[string]string{f.Name: value})
		if err != nil {
			return // a map of strings can be marshalled
		}
		from := s.from[f.Name]
		if from == "" {
			from = "the default"
		}
		fmt.Fprintf(&b, "%s  # %s\n", bytes.TrimSpace(line), from)
	})
	return b.Bytes()
}

func configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Show the settings"}
	f, s := newMount()
	show := &cobra.Command{
		Use:   "show [flags of mount]",
		Short: "Show what is in force, and where each value came from",
		Args:  exactly(0, "nothing but the flags of mount"),
		RunE: func(*cobra.Command, []string) error {
			if err := s.apply(); err != nil {
				return err
			}
			if err := f.check(); err != nil {
				return err
			}
			if file := configFile(s.file); file != "" {
				if _, err := os.Stat(file); errors.Is(err, iofs.ErrNotExist) {
					return err
				}
				fmt.Println("#", file)
			}
			_, err := os.Stdout.Write(s.yaml())
			return err
		},
	}
	show.Flags().AddFlagSet(s.fl)
	c.AddCommand(show)
	return c
}
