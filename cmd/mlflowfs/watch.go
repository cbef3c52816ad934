package main

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"os/exec"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/mlflowfs/mlflowfs/resolve"
)

// watchFlags are the flags of watch.
type watchFlags struct {
	every time.Duration
	exec  string
}

func (p *process) watchCommand() *cobra.Command {
	var f watchFlags
	c := &cobra.Command{
		Use:   "watch [flags] models:/NAME@ALIAS",
		Short: "Tell when an alias, a stage or the latest version moves",
		Long: `Watch prints a line each time that models:/NAME@ALIAS (or models:/NAME/STAGE, or
models:/NAME/latest, or a prompt's prompts:/NAME@ALIAS) means another version: the time, the URI, the old version,
the new one. The first line is what it means now. "none" is said where it means
nothing.

With --exec it runs a command by the shell at each later move, with
MLFLOWFS_URI, MLFLOWFS_OLD_VERSION and MLFLOWFS_VERSION in its environment, and
waits for it; its failure is said and ends nothing. While the server can't be
asked nothing has moved. SIGINT or SIGTERM ends it.`,
		Args: exactly(1, "one URI such as models:/fraud@champion"),
	}
	c.Flags().DurationVar(&f.every, "every", 5*time.Second, "how often the server is asked")
	c.Flags().StringVar(&f.exec, "exec", "", "command for the shell at each move")
	return p.command(c, client, f.run)
}

func (f *watchFlags) run(ctx context.Context, o *options, args []string) error {
	u, named, err := resolve.ParseURI(args[0])
	if err != nil || !named || u.Name == "" || u.Version != "" || u.Path != "" {
		return usageError{fmt.Errorf("%q names nothing that moves: write it like models:/fraud@champion or models:/fraud/latest", args[0])}
	}
	if f.every <= 0 {
		return usageError{fmt.Errorf("--every %v: it must be more than 0", f.every)}
	}
	log, err := o.log()
	if err != nil {
		return err
	}
	s, err := o.open(openOptions{ttl: f.every / 2, needed: true}, log)
	if err != nil {
		return err
	}
	defer s.close()
	return f.watch(ctx, o.process, s, u, log)
}

const noVersion = "none"

// watch looks at what u means until ctx ends.
func (f *watchFlags) watch(ctx context.Context, p *process, s *stores, u resolve.URI, log *slog.Logger) error {
	tick := time.NewTicker(f.every)
	defer tick.Stop()
	for old := ""; ; {
		now, err := s.Number(ctx, u)
		if errors.Is(err, iofs.ErrNotExist) {
			now, err = noVersion, nil
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, iofs.ErrPermission), err != nil && old == "":
			return err
		case err != nil:
			log.Warn("the server can't be asked", "err", err)
		case now != old:
			fmt.Fprintln(p.stdout, time.Now().Format(time.RFC3339), u, orNone(old), now)
			if old != "" && f.exec != "" {
				f.moved(ctx, p, u, old, now, log)
			}
			old = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func orNone(version string) string {
	if version == "" {
		return noVersion
	}
	return version
}

// moved runs the command for a move.
func (f *watchFlags) moved(ctx context.Context, p *process, u resolve.URI, old, now string, log *slog.Logger) {
	c := exec.CommandContext(ctx, "/bin/sh", "-c", f.exec)
	c.Env = append(slices.Clone(p.environ), "MLFLOWFS_URI="+u.String(), "MLFLOWFS_OLD_VERSION="+old, "MLFLOWFS_VERSION="+now)
	c.Stdout, c.Stderr = p.stdout, p.stderr
	if err := c.Run(); err != nil {
		log.Error("the command of --exec failed", "command", f.exec, "err", err)
	}
}
