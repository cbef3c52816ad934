package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/fs/fusefs"
)

func (p *process) demoCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "demo [DIR]",
		Short: "Make a small store of runs and models, mount it, and show what to try",
		Long: `Demo makes a small MLflow store (a sqlite file and artifacts) in DIR/store, mounts it
at DIR/mnt, and stays until Ctrl-C. Nothing else needs to be installed. Without
DIR all of it lies in a temporary directory that goes at the end; a DIR is kept,
and its store is used again the next time.`,
		Args: between(0, 1, "one directory at most"),
	}
	return p.command(c, nothing, func(ctx context.Context, o *options, args []string) error {
		if len(args) == 1 {
			return demo(ctx, o, args[0])
		}
		dir, err := os.MkdirTemp("", "mlflowfs-demo-")
		if err != nil {
			return err
		}
		defer func() {
			os.Remove(filepath.Join(dir, "mnt")) // empty, or still mounted: then it stays
			os.RemoveAll(filepath.Join(dir, "store"))
			os.Remove(dir)
		}()
		return demo(ctx, o, dir)
	})
}

func demo(ctx context.Context, o *options, dir string) error {
	log, err := o.log()
	if err != nil {
		return err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return err
	}
	store, point := filepath.Join(dir, "store"), filepath.Join(dir, "mnt")
	db := filepath.Join(store, "mlflow.db")
	if err := prepareDemo(dir, store, db); err != nil {
		return err
	}
	if err := fusefs.CheckMountpoint(point, log); err != nil {
		// A mount point that is missing is made; a dead one was cleared.
		if _, serr := os.Lstat(point); !errors.Is(serr, os.ErrNotExist) {
			return err
		}
		if err := os.Mkdir(point, 0o755); err != nil {
			return err
		}
	}
	o.Server.TrackingURI, o.Cache.Dir, o.Cache.Memory = "sqlite:///"+db, noCache, leastMemory
	d, err := o.openDaemon(ctx, log)
	if err != nil {
		return err
	}
	defer d.close()
	fmt.Fprintln(o.stdout, point)
	if err := printTree(ctx, o.stdout, d.root.Dir, ""); err != nil {
		return err
	}
	fmt.Fprintf(o.stdout, `
Try, in another terminal:

  ls -l %[1]s/models/churn@champion/
  cat %[1]s/experiments/churn/tuned/artifacts/metrics.json
  MLFLOW_TRACKING_URI=%[2]s mlflow ui     # the same runs, if you have MLflow

`, point, o.Server.TrackingURI)
	return d.serve(ctx, o, point, log)
}

// prepareDemo makes the store, if it is not there.
func prepareDemo(dir, store, db string) error {
	if _, err := os.Stat(db); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := refuseFull(dir); err != nil {
		return err
	}
	if err := makeDemoStore(store, time.Now()); err != nil {
		return fmt.Errorf("the demo's store can't be made: %w", err)
	}
	return nil
}

// refuseFull keeps the demo from writing among somebody's files.
func refuseFull(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != "store" && e.Name() != "mnt" {
			return fmt.Errorf("%s is not empty: give the demo a directory of its own", dir)
		}
	}
	return nil
}

// printTree draws a directory as tree(1) does.
func printTree(ctx context.Context, w io.Writer, d fs.Dir, indent string) error {
	list, err := d.List(ctx)
	if err != nil {
		return err
	}
	e, err := list.Next(ctx)
	for err == nil {
		var next fs.Entry
		var nextErr error
		next, nextErr = list.Next(ctx)
		branch, below := "├── ", "│   "
		if nextErr == io.EOF {
			branch, below = "└── ", "    "
		}
		name := e.Name
		if e.Link != "" {
			name += " -> " + e.Link
		}
		if _, werr := fmt.Fprintln(w, indent+branch+name); werr != nil {
			return werr
		}
		if e.Dir != nil {
			if err := printTree(ctx, w, e.Dir, indent+below); err != nil {
				return err
			}
		}
		e, err = next, nextErr
	}
	if err == io.EOF {
		return nil
	}
	return err
}
