package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"github.com/mlflowfs/mlflowfs/resolve"
)

// target is what a command of artifacts is about: a URI, or a run and a path
// in it, as the functions of mlflow.artifacts take them.
type target struct {
	uri   string
	runID string
	path  string
}

// bind gives c the flags and the argument of a target.
func (t *target) bind(c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&t.runID, "run-id", "", "the run, in the place of a URI")
	c.Flags().StringVar(&t.path, "path", "", "with --run-id: the path in the run's artifacts; all of them without it")
	c.Args = func(c *cobra.Command, args []string) error {
		switch {
		case len(args) > 1:
			return usageError{fmt.Errorf("%s takes one URI: `%s`", c.Name(), c.UseLine())}
		case (len(args) == 1) == (t.runID != ""):
			return usageError{fmt.Errorf("%s takes exactly one of a URI and --run-id: `%s`", c.Name(), c.UseLine())}
		case len(args) == 1 && t.path != "":
			return usageError{errors.New("--path goes with --run-id: a URI holds its path itself")}
		case len(args) == 1 && args[0] == "":
			return usageError{errors.New("the URI is empty")}
		}
		if len(args) == 1 {
			t.uri = args[0]
		}
		return nil
	}
	return c
}

// find opens the stores and goes to the target, for f.
func (t *target) find(ctx context.Context, o *options, f func(*stores, resolve.Found) error) error {
	log, err := o.log()
	if err != nil {
		return err
	}
	s, err := o.open(openOptions{ttl: time.Minute, needed: isNamed(t.uri) || t.runID != ""}, log)
	if err != nil {
		return fmt.Errorf("the tracking store: %w", err)
	}
	defer s.close()
	var found resolve.Found
	if t.runID != "" {
		found, err = s.ResolveRun(ctx, t.runID, t.path)
	} else {
		found, err = s.Resolve(ctx, t.uri)
	}
	if err == nil {
		err = f(s, found)
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w (`mlflowfs resolve` shows which ways were tried)", err)
	}
	return err
}
