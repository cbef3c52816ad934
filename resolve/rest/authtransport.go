package rest

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// authTransport adds the credentials to requests for the tracking server, and
// to no others: neither another host named by an artifact URI nor the target
// of a redirect gets them. Of its redirects the target is told the workspace, which is
// no secret, as by Python's requests: it would answer from another one else.
type authTransport struct {
	next  http.RoundTripper
	base  *url.URL
	creds *renewable
	sigV4 *sigV4 // nil: no signature
	oauth *oauthTokens
}

func (t *authTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	c := t.creds.get()
	if !sameServer(t.base, req.URL) {
		if c.workspace != "" && sameServer(t.base, firstOf(req).URL) {
			req = req.Clone(req.Context())
			req.Header.Set("X-MLFLOW-WORKSPACE", c.workspace)
		}
		return t.next.RoundTrip(req)
	}
	req = req.Clone(req.Context())
	if c.oauth != (oauthClient{}) {
		token, err := t.oauth.get(req.Context(), c.oauth)
		if err != nil {
			return nil, err
		}
		c = c.token(token)
	}
	if c.authorization != "" {
		req.Header.Set("Authorization", c.authorization)
	}
	if c.workspace != "" {
		req.Header.Set("X-MLFLOW-WORKSPACE", c.workspace)
	}
	for _, line := range strings.Split(c.own, "\n") {
		if key, value, ok := strings.Cut(line, ": "); ok {
			req.Header.Set(key, value)
		}
	}
	if t.sigV4 != nil { // takes the place of any other Authorization
		req.Header.Del("Authorization")
		if err := t.sigV4.sign(req); err != nil {
			return nil, &noRetry{fmt.Errorf("MLFLOW_TRACKING_AWS_SIGV4: %w", err)}
		}
	}
	return t.next.RoundTrip(req)
}

// firstOf is the request whose redirects led to req; req itself where none did.
func firstOf(req *http.Request) *http.Request {
	for req.Response != nil && req.Response.Request != nil {
		req = req.Response.Request
	}
	return req
}

// sameServer tells whether u is the tracking server's, which may get its credentials:
// at the same scheme, host and port, or at https where the tracking URI says http,
// both at their standard ports (requests' should_strip_auth).
func sameServer(base, u *url.URL) bool {
	if !strings.EqualFold(base.Hostname(), u.Hostname()) {
		return false
	}
	port := func(u *url.URL) string {
		return cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	}
	if base.Scheme == "http" && u.Scheme == "https" {
		return port(base) == "80" && port(u) == "443"
	}
	return base.Scheme == u.Scheme && port(base) == port(u)
}

var _ http.RoundTripper = (*authTransport)(nil)
