package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mlflowfs/mlflowfs/fs/fusefs"
)

// stageCommand is the first argument of a process that is to be a stage.
const stageCommand = "__stage"

// Exit codes of a command that can't be run, as shells have them.
const (
	exitNotExecutable = 126
	exitNoCommand     = 127
	exitSignal        = 128 // and the signal's number
)

// rootVariable tells a command where the mount is; in its arguments rootWord does.
const (
	rootVariable = "MLFLOWFS"
	rootWord     = "{}"
)

func (p *process) execCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "exec [flags] -- COMMAND [ARGS…]",
		Short: "Mount for the life of a command",
		Long: `Exec mounts at a directory of its own, runs the command, and unmounts when that
ends. {} in an argument of the command is the mount's root, and so is $MLFLOWFS in
its environment:

  mlflowfs exec --tracking-uri http://host:5000 -- python train.py {}/models/fraud@champion

Signals, standard streams and the exit code are the command's. Where neither root's
rights nor fusermount3 are there, the mount is in a user namespace of its own, which
only the command sees. Warnings go to standard error, or all of the log to --log-file.

Exit codes are the command's own; 127 and 126 where it is not found or can't be run;
those of mount where the mount fails, and the command is not started then.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] == "" {
				return usageError{fmt.Errorf("%s takes a command: `%s`", c.Name(), c.UseLine())}
			}
			return nil
		},
	}
	c.Flags().SetInterspersed(false)
	return p.command(c, mounting, func(ctx context.Context, o *options, command []string) error {
		if o.from["log-level"] == "" && o.Log.File == "" { // standard error is the command's
			o.Log.Level, o.from["log-level"] = slog.LevelWarn, commandLine
		}
		point, err := privatePoint(o.process)
		if err != nil {
			return err
		}
		defer os.Remove(point)
		return o.supervise(ctx, point, atRoot(command, point))
	})
}

// atRoot is a command with the mount's root in it.
func atRoot(command []string, root string) (out []string) {
	for _, arg := range command {
		out = append(out, strings.ReplaceAll(arg, rootWord, root))
	}
	return out
}

// withRoot is an environment with the mount's root in it.
func withRoot(environ []string, root string) []string {
	return append(withoutRoot(environ), rootVariable+"="+root)
}

func withoutRoot(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(v string) bool { return strings.HasPrefix(v, rootVariable+"=") })
}

// privatePoint names a directory that nobody has yet: below the user's directory for
// what lives as long as a session, else among temporary files.
func privatePoint(p *process) (string, error) {
	base := p.getenv("XDG_RUNTIME_DIR")
	if !filepath.IsAbs(base) || !writable(base) {
		base = p.getenv("TMPDIR")
		if base == "" {
			base = "/tmp"
		}
		if !writable(base) {
			return "", fmt.Errorf("no directory for the mount can be made in %s: have TMPDIR name one that you may write to", base)
		}
	}
	return fusefs.ResolvePoint(filepath.Join(base, fmt.Sprintf("mlflowfs-exec-%016x", rand.Uint64())))
}

// writable tells whether a directory can be made in dir.
func writable(dir string) bool {
	try, err := os.MkdirTemp(dir, "mlflowfs-try-")
	return err == nil && errors.Join(os.Remove(try)) == nil
}
