package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/mlflowfs/mlflowfs/resolve"
)

// visitor is shown what a walk finds. Its methods are called by many at once, but of
// a directory before what is in it.
type visitor interface {
	dir(at string) error
	file(ctx context.Context, it resolve.Item, name string) error // an error is that file's
}

// walker goes through all that is below a place.
type walker struct {
	s            *stores
	v            visitor
	g            *errgroup.Group
	lists, files chan struct{}
	progress     *progress

	mu     sync.Mutex // guards failed
	failed []error    // of single files
}

// walk shows v all of what was found, under the paths that download_artifacts gives it.
// A file that can't be had keeps no other from coming, until they are many.
func walk(ctx context.Context, s *stores, found resolve.Found, v visitor, p *progress) error {
	w := &walker{s: s, v: v, lists: make(chan struct{}, parallelLists), files: make(chan struct{}, parallelFiles), progress: p}
	var gctx context.Context
	w.g, gctx = errgroup.WithContext(ctx)
	for _, found := range found.Parted() {
		if dir := path.Dir(found.Path); found.Path != "" && dir != "." {
			if err := v.dir(dir); err != nil {
				return errors.Join(err, w.g.Wait())
			}
		}
		if found.Dir == nil {
			p.more(found.Size)
			w.g.Go(func() error { return w.file(gctx, found.Item, found.Path) })
		} else {
			w.dir(gctx, found.Dir, found.Path)
		}
	}
	return errors.Join(w.g.Wait(), w.failures())
}

const maxFailures = 20

func (w *walker) fail(name string, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = append(w.failed, fmt.Errorf("%s: %w", name, err))
	if len(w.failed) < maxFailures {
		return nil
	}
	return errors.New("too many files failed: the rest was left")
}

// failures are the errors of the files that failed.
func (w *walker) failures() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.failed...)
}

// take waits for a place in slots.
func take(ctx context.Context, slots chan struct{}) bool {
	select {
	case slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (w *walker) dir(ctx context.Context, o *resolve.Dir, at string) {
	w.g.Go(func() error {
		if !take(ctx, w.lists) {
			return ctx.Err()
		}
		list, err := w.s.List(ctx, o)
		<-w.lists
		if err != nil {
			return err
		}
		for _, left := range list.LeftOut() {
			if err := w.fail(cmp.Or(at, "."), left); err != nil {
				return err
			}
		}
		items := slices.Collect(list.All())
		if at != "" {
			if err := w.v.dir(at); err != nil {
				return err
			}
		}
		for _, it := range items {
			if it.Dir == nil {
				w.progress.more(it.Size)
			}
		}
		for _, it := range items {
			if name := path.Join(at, it.Name); it.Dir != nil {
				w.dir(ctx, it.Dir, name)
			} else if !take(ctx, w.files) {
				return ctx.Err()
			} else {
				w.g.Go(func() error {
					defer func() { <-w.files }()
					return w.file(ctx, it, name)
				})
			}
		}
		return nil
	})
}

func (w *walker) file(ctx context.Context, it resolve.Item, name string) error {
	if err := w.v.file(ctx, it, name); err != nil {
		return w.fail(name, err)
	}
	return nil
}
