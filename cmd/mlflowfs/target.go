package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/mlflowfs/mlflowfs/resolve"
)

// target is what a command of artifacts is about: a URI, or a run and a path
// in it, as the functions of mlflow.artifacts take them.
type target struct {
	connection
	runID string
	path  string
	set   *settings
	uri   string
}

// bind gives c the flags and the argument of a target.
func (t *target) bind(c *cobra.Command) {
	t.set = newSettings(c.Flags())
	t.connection.bind(t.set, "warn")
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
}

// find opens the stores and goes to the target, for f. A signal ends f's
// context.
func (t *target) find(f func(ctx context.Context, s *stores, found resolve.Found, log *slog.Logger) error) error {
	if err := t.set.apply(); err != nil {
		return err
	}
	log, err := t.log()
	if err != nil {
		return err
	}
	_, named, _ := resolve.ParseURI(t.uri)
	s, err := t.open(time.Minute, named || t.runID != "", nil, log)
	if err != nil {
		return fmt.Errorf("the tracking store: %w", err)
	}
	defer s.close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var found resolve.Found
	if t.runID != "" {
		found, err = s.FindRun(ctx, t.runID, t.path)
	} else {
		found, err = s.Find(ctx, t.uri)
	}
	if err == nil {
		err = f(ctx, s, found, log)
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w (`mlflowfs resolve` shows which ways were tried)", err)
	}
	return err
}
