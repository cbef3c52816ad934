// Command mlflowfs shows an MLflow server's runs and models as a directory
// tree:
//
//	mlflowfs mount /mnt/mlflow
//	mlflowfs unmount /mnt/mlflow
//	mlflowfs demo
//
// This package has the flags, the wiring and the signals; what the mount shows
// is in package fs, what a name means in package resolve.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a command line that can't be taken.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	if err := rootCommand().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "mlflowfs:", err)
		var usage usageError
		if errors.As(err, &usage) {
			os.Exit(exitUsage)
		}
		os.Exit(exitFailed)
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "mlflowfs",
		Short: "Show an MLflow server's runs and models as ordinary files",
		Long: `mlflowfs mounts an MLflow server's runs and models as a directory tree, read-only
and read lazily: nothing is downloaded before a program reads it.

  runs/<run_id>/…              what runs:/<run_id>/… means
  models/<name>/<version>/…    what models:/<name>/<version>/… means
  models/<name>@<alias>        a link to the version
  experiments/<name>/<run>/    artifacts, a link to the run, and run.json`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see `%s --help`)", err, c.CommandPath())}
	})
	root.AddCommand(mountCommand(), unmountCommand(), demoCommand())
	return root
}

// exactly is cobra.ExactArgs with an error that counts as usage.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("%s takes %s: `%s`", c.Name(), what, c.UseLine())}
		}
		return nil
	}
}
