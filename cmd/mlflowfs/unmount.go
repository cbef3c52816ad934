package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/mlflowfs/mlflowfs/fs/fusefs"
)

func (p *process) unmountCommand() *cobra.Command {
	var lazy bool
	c := &cobra.Command{
		Use:     "unmount [--lazy] MOUNTPOINT",
		Aliases: []string{"umount"},
		Short:   "Unmount what mlflowfs mounted",
		Args:    exactly(1, "one MOUNTPOINT"),
	}
	c.Flags().BoolVar(&lazy, "lazy", false, "detach it at once; programs that use it keep what they have")
	return p.command(c, nothing, func(_ context.Context, _ *options, args []string) error { return unmount(args[0], lazy) })
}

func unmount(point string, lazy bool) error {
	point, err := fusefs.ResolvePoint(point)
	if err != nil {
		return err
	}
	mounted, ours, err := fusefs.FindMount(point)
	switch {
	case err != nil:
		return err
	case !mounted:
		return fmt.Errorf("%s is no mount point", point)
	case !ours:
		return fmt.Errorf("%s is a mount of something else than mlflowfs: use umount", point)
	}
	if err := fusefs.Unmount(point, lazy); errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("%s is in use: end the programs that have files open in it or stand in it (`fuser -m %s` shows them), or use --lazy", point, point)
	} else if err != nil {
		return fmt.Errorf("%s can't be unmounted: %w", point, err)
	}
	return nil
}
