package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Web is an address of the web with nothing of MLflow's behind it: files can
// be read below it, and nothing can be listed.
type Web struct {
	c    *rest.Client
	base url.URL
}

var (
	_ Store  = (*Web)(nil)
	_ stater = (*Web)(nil)
)

// NewWeb makes a store of what is below base. Its query, if there is one, is
// sent with each request.
func NewWeb(c *rest.Client, base url.URL) *Web { return &Web{c, base} }

// ID is the address.
func (w *Web) ID() string { return "web:" + w.base.String() }

// List fails with errors.ErrUnsupported.
func (w *Web) List(context.Context, string) (Tree, error) {
	return nil, fmt.Errorf("%s is a plain web address, where nothing can be listed: name one file: %w", rest.Redact(w.base.String()), errors.ErrUnsupported)
}

func (w *Web) request(ctx context.Context, file string) (*http.Request, error) {
	u := w.base
	u.Path = strings.TrimRight(u.Path, "/") + "/" + file
	return http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
}

// Stat learns a file's size from the answer to a request for its first byte.
func (w *Web) Stat(ctx context.Context, file string) (Entry, error) {
	req, err := w.request(ctx, file)
	if err != nil {
		return Entry{}, err
	}
	body, err := readHTTP(w.c, req, 0, 1, "")
	if errors.Is(err, cache.ErrChanged) {
		return Entry{Name: path.Base(file)}, nil // 416: it has no first byte
	}
	if err != nil {
		return Entry{}, err
	}
	defer body.Close()
	e := Entry{Name: path.Base(file), Size: body.Total, Version: body.Validator}
	if body.Total < 0 { // only all of it tells how long it is
		e.Size, err = io.Copy(io.Discard, body)
	}
	return e, err
}

// ReadRange asks for a range of a file.
func (w *Web) ReadRange(ctx context.Context, file string, off, n int64, validator string) (*cache.Body, error) {
	req, err := w.request(ctx, file)
	if err != nil {
		return nil, err
	}
	return readHTTP(w.c, req, off, n, validator)
}
