package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// pagesCommand writes what a package has beside the program: a man page for each
// command, and completions for shells. It is the packager's.
func (p *process) pagesCommand() *cobra.Command {
	c := &cobra.Command{
		Use:    "__pages DIR",
		Hidden: true,
		Short:  "Write man pages and completions below DIR",
		Args:   exactly(1, "one DIR"),
	}
	return p.command(c, nothing, func(_ context.Context, _ *options, args []string) error { return writePages(c.Root(), args[0]) })
}

func writePages(root *cobra.Command, dir string) error {
	for _, sub := range []string{"man", "completions"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	root.DisableAutoGenTag = true
	root.InitDefaultCompletionCmd()
	date := time.Unix(0, 0) // the same pages are the same bytes
	header := &doc.GenManHeader{Section: "1", Source: "mlflowfs " + version(), Manual: "mlflowfs", Date: &date}
	if err := doc.GenManTree(root, header, filepath.Join(dir, "man")); err != nil {
		return err
	}
	for name, write := range map[string]func(string) error{
		"mlflowfs.bash": func(f string) error { return root.GenBashCompletionFileV2(f, true) },
		"_mlflowfs":     root.GenZshCompletionFile,
		"mlflowfs.fish": func(f string) error { return root.GenFishCompletionFile(f, true) },
	} {
		if err := write(filepath.Join(dir, "completions", name)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
