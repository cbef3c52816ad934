// Command mlflowfs shows an MLflow server's runs and models as a directory
// tree:
//
//	mlflowfs mount /mnt/mlflow
//	mlflowfs unmount /mnt/mlflow
//	mlflowfs demo
//
// and does, without a mount, what mlflow.artifacts does:
//
//	mlflowfs download models:/fraud@champion
//	mlflowfs ls runs:/<run_id>/model
//	mlflowfs cat runs:/<run_id>/metrics.json
//	mlflowfs resolve models:/fraud@champion
//
// This package has the commands, their settings and the wiring; what the mount shows
// is in package fs, how the kernel asks for it in fs/fusefs, what a name means in package
// resolve.
//
// A command is a function run(ctx, options, args): main cancels its context at the first
// signal ([process]), and its [options] hold a [ClientConfig], which [options.read] takes
// once from the one table of [settings].
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitNotFound = 3
	exitRefused  = 4
)

// usageError is a command line that can't be taken.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	if isHolder(os.Args) {
		if code, ok := hold(); ok {
			os.Exit(code)
		}
	}
	if len(os.Args) > 1 && os.Args[1] == stageCommand {
		os.Exit(thisProcess().stage(os.Args[2:]))
	}
	hidePasswords()
	p := thisProcess()
	p.exit(p.execute(p.interruptible(), os.Args))
}

// execute runs a command line, and gives its exit code.
func (p *process) execute(ctx context.Context, argv []string) int {
	args := argv[1:]
	if isHelper(argv[0]) {
		own, fake, err := helperArgs(args)
		switch {
		case err != nil:
			fmt.Fprintf(p.stderr, "%s: %v\n", helperName, err)
			return exitCode(err)
		case fake:
			return 0
		}
		args = own
	}
	root := p.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	code := exitCode(err)
	if exit, ok := err.(exitError); ok && exit.error == nil { // a command's own
		return code
	}
	if p.held.fails(err) {
		return code
	}
	var refused mountError
	if !p.tellParent(word{Err: err.Error(), Code: code, NoMount: errors.As(err, &refused)}) {
		fmt.Fprintf(p.stderr, "mlflowfs: %v\n", err)
	}
	return code
}

func exitCode(err error) int {
	var usage usageError
	var exit exitError
	switch {
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, fs.ErrNotExist):
		return exitNotFound
	case errors.Is(err, fs.ErrPermission):
		return exitRefused
	}
	return exitFailed
}

func (p *process) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "mlflowfs",
		Short: "Show an MLflow server's runs and models as ordinary files",
		Long: `mlflowfs mounts an MLflow server's runs and models as a directory tree, read-only
and read lazily: nothing is downloaded before a program reads it.

  runs/<run_id>/…              what runs:/<run_id>/… means
  models/<name>/<version>/…    what models:/<name>/<version>/… means
  models/<name>@<alias>        a link to the version
  prompts/<name>/<version>/    a prompt: template.txt or messages.json, and prompt.json
  experiments/<name>/<run>/    artifacts, a link to the run, and what was logged
  experiments/<name>/runs.csv  its runs as a table; beside it traces/ and traces.jsonl
  datasets/<name>.jsonl        an evaluation dataset, a record a line`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			why := fmt.Errorf("%q is no command (see `mlflowfs --help`)", args[0])
			if like := c.SuggestionsFor(args[0]); len(like) > 0 {
				why = fmt.Errorf("%q is no command: is %s meant?", args[0], strings.Join(like, " or "))
			}
			return usageError{why}
		},
		RunE:                       func(c *cobra.Command, _ []string) error { return c.Help() },
		SuggestionsMinimumDistance: 2,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see `%s --help`)", err, c.CommandPath())}
	})
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.AddCommand(p.mountCommand(), p.execCommand(), p.unmountCommand(), p.upgradeCommand(), p.listCommand(), p.statusCommand(), p.watchCommand(), p.doctorCommand(), p.configCommand(), p.pagesCommand(),
		p.downloadCommand(), p.lsCommand(), p.catCommand(), p.resolveCommand(), p.pathCommand(), p.demoCommand(), p.warmCommand(), p.evictCommand(), p.pinCommand(false), p.pinCommand(true))
	return root
}

// exactly is cobra.ExactArgs with an error that counts as usage.
func exactly(n int, what string) cobra.PositionalArgs { return between(n, n, what) }

// between is cobra.RangeArgs with such an error.
func between(least, most int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return usageError{fmt.Errorf("%s takes %s: `%s`", c.Name(), what, c.UseLine())}
		}
		return nil
	}
}
