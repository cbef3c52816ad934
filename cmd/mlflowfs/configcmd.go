package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func (p *process) configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Show the settings"}
	c.AddCommand(p.command(&cobra.Command{
		Use:   "show [flags of mount]",
		Short: "Show what is in force, and where each value came from",
		Args:  exactly(0, "nothing but the flags of mount"),
	}, mounting, func(_ context.Context, o *options, _ []string) error {
		if file := o.configFile(); file != "" {
			fmt.Fprintln(o.stdout, "#", file)
		}
		_, err := o.stdout.Write(o.yaml())
		return err
	}))
	return c
}
