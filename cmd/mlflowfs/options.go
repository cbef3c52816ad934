package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	yaml "go.yaml.in/yaml/v4"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// options are what a command runs with: the configuration, and its process.
type options struct {
	ClientConfig
	*process
	takes  scope
	flags  *pflag.FlagSet
	from   map[string]string // by setting: who gave its value; nothing where it is the default
	level  slog.LevelVar     // of the log, now
	logger *slog.Logger      // made once
	flush  func()            // has the log say what it has left out
}

const commandLine = "the command line"

// command makes c a command that takes the settings of a scope beside its own flags.
func (p *process) command(c *cobra.Command, takes scope, run func(context.Context, *options, []string) error) *cobra.Command {
	o := p.flagged(takes, c.Flags())
	c.RunE = func(c *cobra.Command, args []string) error {
		o.defaults()
		if err := o.read(); err != nil {
			return err
		}
		defer func() { o.flush() }()
		return run(c.Context(), o, args)
	}
	for _, s := range taken(takes) {
		if s.words != nil {
			c.RegisterFlagCompletionFunc(s.name, cobra.FixedCompletions(s.words, cobra.ShellCompDirectiveNoFileComp))
		}
	}
	return c
}

// options are the defaults, with flags for the settings of a scope.
func (p *process) options(takes scope, flags *pflag.FlagSet) *options {
	o := p.flagged(takes, flags)
	o.defaults()
	return o
}

// flagged are options without their defaults, some of which ask the machine: of many
// commands one runs.
func (p *process) flagged(takes scope, flags *pflag.FlagSet) *options {
	o := &options{process: p, takes: takes, flags: flags, from: map[string]string{}, flush: func() {}}
	o.Env = o.variable
	for _, s := range taken(takes) {
		flags.AddFlag(s.flag(&o.ClientConfig, takes))
	}
	return o
}

// defaults gives each setting that the command line does not name its default.
func (o *options) defaults() {
	for _, s := range settings {
		usual := s.fallback(o.takes, o.getenv)
		if usual == "" || s.takes <= o.takes && o.flags.Changed(s.name) {
			continue
		}
		if err := o.value(s).Set(usual); err != nil {
			panic(fmt.Sprintf("the default of %s: %v", s.name, err))
		}
	}
}

func (o *options) value(s *setting) *value { return &value{field: s.field(&o.ClientConfig)} }

// read takes the values of variables and of the file: what the command line says goes
// before a variable, that before the file, and that before the default.
func (o *options) read() error {
	if o.takes == nothing {
		return nil
	}
	var errs []error
	give := func(s *setting, value, from string) {
		if o.from[s.name] == "" {
			if err := o.value(s).Set(value); err != nil {
				errs = append(errs, usageError{fmt.Errorf("%s: %w", from, err)})
			}
			o.from[s.name] = from
		}
	}
	for _, s := range taken(o.takes) {
		if o.flags.Lookup(s.name).Changed {
			o.from[s.name] = commandLine
		}
		for _, variable := range s.variables() {
			if v := o.getenv(variable); v != "" {
				give(s, v, "the variable "+variable)
			}
		}
	}
	path := o.configFile()
	keys, err := readConfig(path)
	if err != nil {
		return err
	}
	for _, s := range taken(o.takes) {
		if v, ok := keys[s.name]; ok {
			give(s, v, path+", "+s.name)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if uri, ok := keys["tracking-uri"]; ok && absoluteStore(uri) != absoluteStore(o.Server.TrackingURI) {
		for _, name := range []string{"token-file", "header-file"} {
			if from := path + ", " + name; o.from[name] == from {
				o.value(settingOf(name)).Set("")
				o.from[name] = from + ", which is for another tracking URI"
			}
		}
	}
	return o.check()
}

// variable is a variable as the settings have it, else as the environment.
func (o *options) variable(name string) string {
	for _, s := range settings {
		if s.variables()[0] == name {
			return o.value(s).String()
		}
	}
	return o.getenv(name)
}

// environment is the settings of the command line as variables, for a process of the
// same command: what they say is then on no command line.
func (o *options) environment() (env []string) {
	for _, s := range settings {
		if o.from[s.name] == commandLine {
			env = append(env, s.variables()[0]+"="+o.value(s).String())
		}
	}
	return env
}

// yaml is what is in force, and where each value came from, as a file of
// settings; it holds no password.
func (o *options) yaml() []byte {
	var b bytes.Buffer
	for _, name := range settingNames() {
		s := settingOf(name)
		line, err := yaml.Marshal(map[string]string{name: rest.Redact(o.value(s).String())})
		if err != nil {
			continue // a map of strings can be marshalled
		}
		from := o.from[name]
		if from == "" {
			from = "the default"
		}
		fmt.Fprintf(&b, "%s  # %s\n", bytes.TrimSpace(line), from)
	}
	return b.Bytes()
}
