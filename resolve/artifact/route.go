package artifact

import (
	"context"
	"errors"
	"os"
	"path/filepath"
)

// Access is a kind of route to an artifact's bytes.
type Access string

// The routes, in the order in which they are tried.
const (
	Direct    Access = "direct"    // with the client's own credentials, or as a local file
	Presigned Access = "presigned" // with URLs that the tracking server signs
	Server    Access = "server"    // through the tracking server
)

// Route is one route to a directory of artifacts.
type Route struct {
	Access Access
	Says   string // what it is, for a person
	Store  Store

	// Elsewhere says that where nothing is found by this route, it may lie on
	// another machine: an absent directory is no answer.
	Elsewhere bool
}

// RouteStatus is how a route was found to be. Err nil and Chosen false is a route that
// nobody had to try.
type RouteStatus struct {
	Route
	Err    error
	Chosen bool
	// Stream says that the route brings whole files in one stream; it is known
	// once a file was read (Read).
	Stream, Read bool
}

func (r Route) check(ctx context.Context) error {
	if ck, ok := r.Store.(checker); ok {
		return ck.check(ctx)
	}
	return nil
}

// Local tells whether the files of the route are files of this machine.
func (r Route) Local() bool {
	_, ok := r.Store.(opener)
	return ok
}

// ByPath tells whether a path names the directory, of this machine or of the server's.
func (c *Router) ByPath() bool {
	for _, r := range c.routes {
		if _, ok := r.Store.(*Local); ok {
			return true
		}
	}
	return false
}

// Local is that of the route that is chosen.
func (c *Router) Local() bool { return c.Route().Local() }

// Open opens a file of this machine for reading; errors.ErrUnsupported where the
// files are none: see [Router.Local].
func (c *Router) Open(path string) (*os.File, error) {
	if o, ok := c.Route().Store.(opener); ok {
		return o.Open(path)
	}
	return nil, errors.ErrUnsupported
}

// OwnPath is the path on this machine of what lies at p; errors.ErrUnsupported
// where that lies elsewhere.
func (c *Router) OwnPath(p string) (string, error) {
	l, ok := c.Route().Store.(*Local)
	if !ok {
		return "", errors.ErrUnsupported
	}
	own := filepath.Join(l.dir, clean(p))
	_, err := os.Stat(own)
	return own, err
}

// Elsewhere says why the directory, of this machine by its name, is not on it;
// empty where it is, or may come, or is no directory of this machine.
func (c *Router) Elsewhere() string {
	if l, ok := c.Route().Store.(*Local); ok {
		return l.elsewhere()
	}
	return ""
}
