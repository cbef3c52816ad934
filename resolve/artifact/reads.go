package artifact

import (
	"context"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// How a [Router] reads.

// ReadRange reads by the route that is chosen. The first read proves the route.
func (c *Router) ReadRange(ctx context.Context, file string, off, n int64, validator string) (*cache.Body, error) {
	return c.ReadVia(ctx, "", file, off, n, validator)
}

// ReadVia is ReadRange of a file that was listed by the route via. Where an
// earlier route has been taken since, the file is read by its own all the same:
// its validator is of that.
func (c *Router) ReadVia(ctx context.Context, via Access, file string, off, n int64, validator string) (*cache.Body, error) {
	begin := time.Now()
	for {
		c.mu.Lock()
		at, proven := len(c.left), c.proven
		own := c.index(via)
		moved, held := own >= 0 && own < at, ""
		if moved && c.left[own].had {
			held = validator // bytes of it may have come by its own route
		}
		c.mu.Unlock()
		if own > at {
			return c.routes[own].Store.ReadRange(ctx, file, off, n, validator)
		}
		asked := validator
		if moved {
			asked = "" // of another route, another kind
		}
		last := at == len(c.routes)-1
		body, err := c.read(ctx, c.routes[at], c.patienceFor(proven || last, begin), file, off, n, asked)
		c.mu.Lock()
		switch {
		case err == nil:
			if at == len(c.left) {
				c.listed, c.proven, c.stream = true, true, body.Whole
			}
			c.mu.Unlock()
			return heldToValidator(body, held)
		case at != len(c.left): // somebody else has left this route meanwhile
		case ctx.Err() == nil && last && !c.proven && tryNext(err) && len(c.left) > 0:
			// No route has held so far: none is left for good. The next one tries them all.
			err := c.none(err)
			c.mu.Unlock()
			return nil, err
		case proven || c.proven:
			c.mu.Unlock()
			body, err := c.instead(ctx, at, begin, leftRoute{err: err, file: file, had: true}, func(ctx context.Context, r Route, patience time.Duration) (*cache.Body, error) {
				return c.read(ctx, r, patience, file, off, n, "")
			})
			if err != nil {
				return nil, err
			}
			return heldToValidator(body, validator)
		case ctx.Err() != nil || !tryNext(err) || last:
			c.mu.Unlock()
			return nil, err
		default:
			c.left, c.since = append(c.left, leftRoute{err: err, file: file}), time.Now()
		}
		if own < 0 {
			validator = "" // of another route, another kind
		}
		c.mu.Unlock()
	}
}

// none forgets what was found of the routes, of which the last failed by err.
// c.mu is held.
func (c *Router) none(err error) error {
	c.failed = nil
	for _, l := range c.left {
		c.failed = append(c.failed, l.err)
	}
	c.failed = append(c.failed, err)
	c.left, c.listed = nil, false
	return &noRoute{c.words(c.failed), []error{err}}
}

// read asks one route, which must begin to answer within patience, if that is
// not 0.
func (c *Router) read(ctx context.Context, w Route, patience time.Duration, file string, off, n int64, validator string) (*cache.Body, error) {
	if patience == 0 {
		return w.Store.ReadRange(ctx, file, off, n, validator)
	}
	watch := rest.Settings{Silence: patience}.Watch(ctx, "reading "+file)
	body, err := w.Store.ReadRange(watch.Context(), file, off, n, validator)
	if err != nil {
		return nil, watch.End(err)
	}
	body.ReadCloser = watch.Body(body.ReadCloser)
	return body, nil
}
