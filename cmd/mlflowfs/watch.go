package main

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/mlflowfs/mlflowfs/resolve"
)

// watchFlags are the flags of watch.
type watchFlags struct {
	connection
	every time.Duration
	run   string
}

func watchCommand() *cobra.Command {
	var f watchFlags
	var set *settings
	c := &cobra.Command{
		Use:   "watch [flags] models:/NAME@ALIAS",
		Short: "Tell when an alias, a stage or the latest version moves",
		Long: `Watch prints a line each time that models:/NAME@ALIAS (or models:/NAME/STAGE, or
models:/NAME/latest) means another version: the time, the URI, the old version,
the new one. The first line is what it means now. "none" is said where it means
nothing.

With --exec it runs a command by the shell at each later move, with
MLFLOWFS_URI, MLFLOWFS_OLD_VERSION and MLFLOWFS_VERSION in its environment, and
waits for it; its failure is said and ends nothing. While the server can't be
asked nothing has moved. SIGINT or SIGTERM ends it.`,
		Args: exactly(1, "one URI such as models:/fraud@champion"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := set.apply(); err != nil {
				return err
			}
			u, named, err := resolve.ParseURI(args[0])
			if err != nil || !named || u.Name == "" || u.Version != "" || u.Path != "" {
				return usageError{fmt.Errorf("%q names nothing that moves: write it like models:/fraud@champion or models:/fraud/latest", args[0])}
			}
			if f.every <= 0 {
				return usageError{fmt.Errorf("--every %v: it must be more than 0", f.every)}
			}
			return f.watch(u)
		},
	}
	set = newSettings(c.Flags())
	f.bind(set, "warn")
	c.Flags().DurationVar(&f.every, "every", 5*time.Second, "how often the server is asked")
	c.Flags().StringVar(&f.run, "exec", "", "command for the shell at each move")
	return c
}

const noVersion = "none"

func (f *watchFlags) watch(u resolve.URI) error {
	log, err := f.log()
	if err != nil {
		return err
	}
	s, err := f.open(f.every/2, true, nil, log)
	if err != nil {
		return err
	}
	defer s.close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
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
			fmt.Println(time.Now().Format(time.RFC3339), u, orNone(old), now)
			if old != "" && f.run != "" {
				f.moved(ctx, u, old, now, log)
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
func (f *watchFlags) moved(ctx context.Context, u resolve.URI, old, now string, log *slog.Logger) {
	c := exec.CommandContext(ctx, "/bin/sh", "-c", f.run)
	c.Env = append(os.Environ(), "MLFLOWFS_URI="+u.String(), "MLFLOWFS_OLD_VERSION="+old, "MLFLOWFS_VERSION="+now)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		log.Error("the command of --exec failed", "command", f.run, "err", err)
	}
}
