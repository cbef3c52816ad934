package artifact

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Router is a directory that several routes may lead to. Which one is decided
// by what answers, in their order, when the directory is first asked for, and
// remembered: a route is left for the next one where it has no credentials, is
// refused, is not offered, or can't be reached. Its first read may still show
// that a route does not hold what its listing promised (a URL signed for a host
// that only the server reaches), and it is left then, too. Where none has held
// yet, all of them are tried again; those that were left are, every [RetryRoutes].
type Router struct {
	Where string // the directory's URI, as it may be shown

	id       string
	routes   []Route
	patience time.Duration // for a route that has another behind it
	total    time.Duration // for all routes together; 0: each has its own

	mu     sync.Mutex  // guards what follows
	left   []leftRoute // before the one that is chosen, in order
	since  time.Time   // when it was chosen, or those before it were tried again
	again  bool        // they are being tried again
	failed []error     // of the last attempt that found no route at all
	listed bool        // the route is decided, as far as listing goes
	proven bool        // and a read has succeeded
	stream bool
	trying chan struct{} // closed when the trial that is running ends
}

var (
	_ Store  = (*Router)(nil)
	_ stater = (*Router)(nil)
)

// NewRouter makes a store of routes, which are not empty, to the directory at
// where, which id identifies. silence is how long all of them together may be
// silent; 0: each has its own patience.
func NewRouter(id, where string, routes []Route, silence time.Duration) *Router {
	c := &Router{Where: where, id: id, routes: routes, patience: 20 * time.Second, total: silence}
	if silence > 0 {
		c.patience = min(c.patience, silence/3)
	}
	return c
}

// ID is that of the directory, whatever the route.
func (c *Router) ID() string { return c.id }

// Presume takes the route of a kind as the one that is chosen, where none is: it
// was when the directory was listed last. Its first read may still leave it.
func (c *Router) Presume(a Access) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, w := range c.routes {
		if !c.listed && w.Access == a {
			for range i {
				c.left = append(c.left, leftRoute{err: errPresumed})
			}
			c.listed, c.since = true, time.Now()
		}
	}
}

var errPresumed = errors.New("not tried: it was left when the directory was listed last")

// Statuses says how each route was found.
func (c *Router) Statuses() []RouteStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]RouteStatus, len(c.routes))
	for i, w := range c.routes {
		out[i] = RouteStatus{Route: w}
		switch {
		case i < len(c.left):
			out[i].Err = c.left[i].err
		case i == len(c.left) && c.listed:
			out[i].Chosen, out[i].Stream, out[i].Read = true, c.stream, c.proven
		case !c.listed && i < len(c.failed):
			out[i].Err = c.failed[i]
		}
	}
	return out
}

// List lists by the route that is chosen, or chooses.
func (c *Router) List(ctx context.Context, dir string) (tree Tree, err error) {
	err = c.ask(ctx, func(ctx context.Context, s Store) (bool, error) {
		tree, err = s.List(ctx, dir)
		return len(tree[dir]) > 0, err
	})
	return tree, err
}

// Stat asks for one name by the route that is chosen, or chooses.
func (c *Router) Stat(ctx context.Context, p string) (e Entry, err error) {
	err = c.ask(ctx, func(ctx context.Context, s Store) (bool, error) {
		e, err = stat(ctx, s, p)
		return err == nil, err
	})
	return e, err
}

// ask asks the route that is chosen by f, which tells whether it found anything, or
// the next ones where that fails. Where none is chosen, it tries one after another,
// one caller at a time.
func (c *Router) ask(ctx context.Context, f func(context.Context, Store) (bool, error)) error {
	for {
		c.mu.Lock()
		if at := len(c.left); c.listed {
			c.retryLater()
			c.mu.Unlock()
			begin := time.Now()
			_, err := f(ctx, c.routes[at].Store)
			if err == nil {
				return nil
			}
			_, err = c.instead(ctx, at, begin, leftRoute{err: err}, func(ctx context.Context, r Route, patience time.Duration) (*cache.Body, error) {
				if lister(c.routes[at].Store) == lister(r.Store) {
					return nil, err // it has been asked for that
				}
				ctx, cancel := untilAnswered(ctx, patience)
				defer cancel()
				_, err := f(ctx, r.Store)
				return nil, err
			})
			return err
		}
		trying := c.trying
		if trying == nil {
			c.trying = make(chan struct{})
			c.mu.Unlock()
			return c.try(ctx, f)
		}
		c.mu.Unlock()
		select {
		case <-trying:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// lister is what a route's listings come from.
func lister(s Store) Store {
	if signed, ok := s.(*Signed); ok {
		return signed.Store
	}
	return s
}

func (c *Router) try(ctx context.Context, f func(context.Context, Store) (bool, error)) error {
	var errs []error
	var err error
	var found, absent bool
	begin := time.Now()
	for i, w := range c.routes {
		last := i == len(c.routes)-1
		tctx, cancel := ctx, context.CancelFunc(func() {})
		if d := c.patienceFor(last, begin); d > 0 {
			tctx, cancel = untilAnswered(ctx, d)
		}
		err = w.check(tctx)
		if err == nil {
			found, err = f(tctx, w.Store)
		}
		cancel()
		if err == nil || !tryNext(err) && (last || !w.Elsewhere) {
			break // it answered, be it that nothing is there
		}
		absent = absent || !tryNext(err)
		if ctx.Err() != nil {
			errs = nil // the caller went: nothing was found out
			break
		}
		errs = append(errs, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.trying)
	c.trying = nil
	switch {
	case len(errs) == len(c.routes):
		c.failed = errs
		return c.noRoute(errs)
	case ctx.Err() == nil && (found || !absent):
		c.left = nil
		for _, err := range errs {
			c.left = append(c.left, leftRoute{err: err})
		}
		c.listed, c.since = true, time.Now() // else nothing is anywhere yet
	}
	return err
}

// patienceFor is how long a route may take to begin its answer, where the first
// was asked at begin; 0: as long as it likes.
func (c *Router) patienceFor(last bool, begin time.Time) time.Duration {
	if !last {
		return c.patience
	}
	if waited := time.Since(begin); c.total > 0 && waited > time.Millisecond {
		return max(c.total-waited, time.Second)
	}
	return 0
}

// untilAnswered is ctx, but that it ends after patience unless a first answer
// has come by then: a listing of many pages may take its time.
func untilAnswered(ctx context.Context, patience time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(patience, func() { cancel(fmt.Errorf("no answer for %v", patience)) })
	ctx = context.WithValue(ctx, answerKey{}, func() { timer.Stop() })
	return ctx, func() {
		timer.Stop()
		cancel(nil)
	}
}

type answerKey struct{}

// answered is called by a store for the first answer of its listing.
func answered(ctx context.Context) {
	if f, ok := ctx.Value(answerKey{}).(func()); ok {
		f()
	}
}

// noRoute is the error where each route failed. One that is a refusal or knows
// nothing of the place hides none of the others' words; that one is not offered
// is the answer only where all of them are not.
func (c *Router) noRoute(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	words := c.words(errs)
	offered := slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return errors.Is(err, errors.ErrUnsupported) })
	if len(offered) > 0 {
		errs = offered
	}
	return &noRoute{words, errs}
}

// words are those of the errors of the routes, in order.
func (c *Router) words(errs []error) string {
	var words []string
	for i, err := range errs {
		words = append(words, fmt.Sprintf("%s: %v", c.routes[i].Access, err))
	}
	return strings.Join(words, "; ")
}

type noRoute struct {
	words string
	errs  []error
}

func (n *noRoute) Error() string   { return n.words }
func (n *noRoute) Unwrap() []error { return n.errs }

var _ error = (*noRoute)(nil)

// tryNext tells whether err leads on to the next route: there are no credentials,
// or they are refused; it is not offered, or can't be reached. What says that
// the place or the content is not there is an answer and does not.
func tryNext(err error) bool {
	var refusal *rest.Error
	if errors.As(err, &refusal) && refusal.NoSuchEndpoint() {
		return true
	}
	return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, cache.ErrChanged)
}
