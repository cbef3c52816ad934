package artifact

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Signed is a directory whose files are read from the object store itself,
// with URLs that the tracking server signs, and listed by another store. A URL
// is renewed before its time is over, and when the object store says that it
// is.
type Signed struct {
	Store              // lists
	web   *rest.Client // has no credentials
	sign  Signer
	urls  *cache.Memo[string, SignedURL]
}

// Signer is what a tracking server's API for presigned URLs offers.
type Signer interface {
	// Offers says in an error why there are none here.
	Offers(ctx context.Context) error
	// Sign gives a URL for a file.
	Sign(ctx context.Context, path string) (SignedURL, error)
}

var (
	_ Store   = (*Signed)(nil)
	_ stater  = (*Signed)(nil)
	_ checker = (*Signed)(nil)
)

// NewSigned makes a store that lists as list does. web must send no
// credentials: the URLs lead to another host.
func NewSigned(list Store, sign Signer, web *rest.Client) *Signed {
	return &Signed{
		Store: list, web: web, sign: sign,
		// A fifth of its life before its end, no request begins with a URL any more.
		urls: cache.NewMemo[string](10_000, nil, func(u SignedURL) time.Duration { return u.Lifetime * 4 / 5 }),
	}
}

func (s *Signed) check(ctx context.Context) error { return s.sign.Offers(ctx) }

// Stat asks the store that lists.
func (s *Signed) Stat(ctx context.Context, path string) (Entry, error) {
	return stat(ctx, s.Store, path)
}

// ReadRange asks the object store, once more with a new URL where the one that
// was there is refused.
func (s *Signed) ReadRange(ctx context.Context, path string, off, n int64, validator string) (*cache.Body, error) {
	for try := 0; ; try++ {
		u, err := s.urls.Get(ctx, path, func(ctx context.Context) (SignedURL, error) { return s.sign.Sign(ctx, path) })
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(rest.WithSigned(ctx), http.MethodGet, u.URL, nil)
		if err != nil {
			return nil, fmt.Errorf("the URL that the tracking server signed for %s can't be parsed", path)
		}
		for k, v := range u.Header {
			req.Header.Set(k, v)
		}
		body, err := readHTTP(s.web, req, off, n, validator)
		if err == nil {
			return body, nil
		}
		var refusal *rest.Error
		if errors.As(err, &refusal) && refusal.NoSuchEndpoint() {
			refusal.Code = "no such object" // the object store's word, and not that of a server without this API
		}
		if try > 0 || !expired(err) {
			return nil, fmt.Errorf("%s, by a presigned URL: %w", path, err)
		}
		s.urls.Drop(path)
	}
}
