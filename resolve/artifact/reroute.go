package artifact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
)

// RetryRoutes is how often the routes that a directory's [Router] has left are
// tried again, as long as the directory is asked for.
const RetryRoutes = 5 * time.Minute

// leftRoute is a route that was left, and why: the directory could not be listed,
// or a file not read.
type leftRoute struct {
	err  error
	file string // empty: it was the listing
	had  bool   // files had come by it before
}

// instead asks the routes behind at, which is chosen and failed as left says, then those
// before it that held once, and takes the first that does better: those before it are
// left for the time being. Where none does better, the failure is none of the route's, or
// of no use to be left for.
func (c *Router) instead(ctx context.Context, at int, begin time.Time, left leftRoute, ask func(context.Context, Route, time.Duration) (*cache.Body, error)) (*cache.Body, error) {
	failed := []leftRoute{left}
	if ctx.Err() != nil || !tryNext(left.err) {
		return nil, left.err
	}
	patience := cmp.Or(c.patienceFor(true, begin), c.patience) // what led here may have waited already
	for _, k := range c.others(at) {
		r := c.routes[k]
		err := r.check(ctx)
		var body *cache.Body
		if err == nil {
			body, err = ask(ctx, r, patience)
		}
		if err != nil {
			failed = append(failed, leftRoute{err: err, file: left.file})
			continue
		}
		c.mu.Lock()
		if len(c.left) == at && c.listed {
			failed[0].had = left.had || c.proven
			c.left, c.since = append(c.left, failed...)[:k], time.Now()
			c.proven, c.stream = body != nil, body != nil && body.Whole
		}
		c.mu.Unlock()
		return body, nil
	}
	return nil, left.err
}

// others are the routes to ask in the place of at, the first one first.
func (c *Router) others(at int) (out []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := at + 1; k < len(c.routes); k++ {
		out = append(out, k)
	}
	for k, l := range c.left {
		if l.had && k < at {
			out = append(out, k)
		}
	}
	return out
}

// heldToValidator holds a body that came by another route than the file's own against
// the validator of what may have come by that, if it is not empty: two routes to one
// object give one validator, or nothing tells that they lead to one content.
func heldToValidator(body *cache.Body, validator string) (*cache.Body, error) {
	if validator == "" || body.Validator == validator {
		return body, nil
	}
	body.Close()
	return nil, fmt.Errorf("%w, as far as can be told: its route was left for another, which gives no such validator", cache.ErrChanged)
}

// Route is the route that is chosen; zero while none is.
func (c *Router) Route() Route {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.listed {
		return Route{}
	}
	return c.routes[len(c.left)]
}

// RouteOf is the route that holds what was listed by the route via: that one, or
// where it was left since, the one that is chosen now; empty while none is.
func (c *Router) RouteOf(via Access) Access {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.listed {
		return ""
	}
	if c.index(via) > len(c.left) {
		return via
	}
	return c.routes[len(c.left)].Access
}

// index is the place of a route among all; -1 where there is none.
func (c *Router) index(a Access) int {
	return slices.IndexFunc(c.routes, func(r Route) bool { return r.Access == a })
}

// retryLater has the routes that were left tried again, where that is due. No
// caller waits for it: a route that is silent is so for its whole patience. c.mu
// is held.
func (c *Router) retryLater() {
	if len(c.left) == 0 || c.again || time.Since(c.since) < RetryRoutes {
		return
	}
	c.again = true
	left := slices.Clone(c.left)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(len(left))*c.patience)
		defer cancel()
		c.retry(ctx, left)
	}()
}

// retry tries the routes that were left, in order, and takes the first that does
// now what it did not do then.
func (c *Router) retry(ctx context.Context, left []leftRoute) {
	back, read, whole := -1, false, false
	for i := range left {
		tctx, cancel := context.WithTimeout(ctx, c.patience)
		body, err := c.probe(tctx, c.routes[i], left[i].file)
		if body != nil {
			read, whole = true, body.Whole
			body.Close()
		}
		cancel()
		if err == nil {
			back = i
			break
		}
		left[i].err = err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.again, c.since = false, time.Now()
	switch {
	case len(c.left) != len(left): // it was decided anew meanwhile
	case back < 0:
		c.left = left
	default:
		c.left, c.proven, c.stream = left[:back], read, whole
	}
}

// probe lists the directory by a route, and reads the first byte of the file at
// which it was left. The body is to be closed.
func (c *Router) probe(ctx context.Context, r Route, file string) (*cache.Body, error) {
	if err := r.check(ctx); err != nil {
		return nil, err
	}
	tree, err := r.Store.List(ctx, "")
	switch {
	case err != nil:
		return nil, err
	case r.Elsewhere && len(tree[""]) == 0:
		return nil, errNothingHere
	case file == "":
		return nil, nil
	}
	return r.Store.ReadRange(ctx, file, 0, 1, "")
}

var errNothingHere = errors.New("nothing is there")
