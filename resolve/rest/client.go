package rest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/mlflowfs/mlflowfs/cache"
)

// Client sends requests to a tracking server.
type Client struct {
	base  *url.URL // without user and password
	retry *retryablehttp.Client
	set   Settings
	log   *slog.Logger
	creds *renewable // nil where there are none
	sent  *counted
	most  int64 // bytes of an Answer

	oauth      *oauthTokens // nil where the client has no credentials
	databricks bool         // it is for a workspace of Databricks'

	info *cache.Memo[struct{}, offers]
}

// NewClient makes a client for the tracking server at uri, http:// or
// https://, configured by MLflow's environment variables.
func NewClient(uri string, env Env, log *slog.Logger) (*Client, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		// The parse error would quote the URI, which may hold a password.
		return nil, fmt.Errorf("the tracking URI is no http:// or https:// address with a host")
	}
	return newTrackingClient(u, env, kubernetes{serviceAccount, env}, log)
}

func newTrackingClient(u *url.URL, env Env, kube kubernetes, log *slog.Logger) (*Client, error) {
	creds, err := newRenewable(source{u, env, kube}, log)
	if err != nil {
		return nil, err
	}
	tlsConf, err := trackingTLS(u.Scheme, env, log)
	if err != nil {
		return nil, err
	}
	base := &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}
	var signer *sigV4
	if signs(env) {
		signer = &sigV4{signer: v4.NewSigner(), env: env}
	}
	return newAuthClient(base, creds, signer, tlsConf, env, log)
}

// newAuthClient makes a client that sends creds to the server at base, and to no other.
func newAuthClient(base *url.URL, creds *renewable, signer *sigV4, tlsConf *tls.Config, env Env, log *slog.Logger) (*Client, error) {
	set, err := ReadSettings(env)
	if err != nil {
		return nil, err
	}
	var tokens *oauthTokens
	c, err := newClient(base, env, log, tlsConf, func(t http.RoundTripper) http.RoundTripper {
		tokens = newOAuthTokens(base, t, set)
		return &authTransport{next: t, base: base, creds: creds, sigV4: signer, oauth: tokens}
	})
	if err == nil {
		c.creds, c.oauth = creds, tokens
	}
	return c, err
}

// Mend is what a user can do where the server refuses the credentials.
func (c *Client) Mend() string {
	if c == nil || c.creds == nil {
		return source{}.mend()
	}
	return c.creds.mend()
}

// MostAnswer is how many bytes an answer may have.
func (c *Client) MostAnswer() int64 { return c.most }

// NewWebClient makes a client for addresses that are not the tracking
// server's: it has no credentials, and of MLflow's variables it follows those
// on timeouts and retries.
func NewWebClient(env Env, log *slog.Logger) (*Client, error) {
	return newClient(&url.URL{}, env, log, WebTLS(env, log), func(t http.RoundTripper) http.RoundTripper { return t })
}

// NewStepClient makes a web client that follows no redirect and asks once: who asks looks
// where each leads, and asks again.
func NewStepClient(env Env, log *slog.Logger) (*Client, error) {
	c, err := NewWebClient(env, log)
	if err != nil {
		return nil, err
	}
	c.retry.HTTPClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.retry.RetryMax = 0
	return c, nil
}

func newClient(base *url.URL, env Env, log *slog.Logger, tlsConf *tls.Config, wrap func(http.RoundTripper) http.RoundTripper) (*Client, error) {
	set, err := ReadSettings(env)
	if err != nil {
		return nil, err
	}
	set.strangers = true
	set.Reach.Name(base.String())
	transport := set.Transport(env, tlsConf)
	c := &Client{base: base, set: set, log: log, most: mostOf(maxAnswer, answerPart), sent: &counted{next: noting{wrap(netrcTransport{transport, env}), set.Clocks}, conns: transport}}
	c.info = cache.NewMemo[struct{}](1, nil, func(offers) time.Duration { return 10 * time.Minute })
	c.retry = &retryablehttp.Client{
		HTTPClient:   &http.Client{Transport: c.sent, CheckRedirect: redirects(env)},
		RetryMax:     set.Retries,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
		Logger:       nil,
	}
	c.retry.CheckRetry = func(ctx context.Context, resp *http.Response, err error) (bool, error) {
		again, err := worthRetrying(ctx, resp, err)
		if w, ok := ctx.Value(watchKey{}).(*Watch); ok && again {
			w.timer.Stop() // the wait is none of the server's silence
		}
		return again, err
	}
	c.retry.Backoff = func(_, _ time.Duration, attempt int, resp *http.Response) time.Duration {
		c.sent.again[class(resp)].Add(1)
		wait := set.wait(attempt, resp)
		if wait > longestWait {
			c.log.Warn("the server is asked again later", "in", wait.Round(time.Second), "answer", status(resp))
		}
		return wait
	}
	c.retry.PrepareRetry = func(req *http.Request) error {
		c.log.Debug("asking again", "request", req.Method+" "+req.URL.EscapedPath())
		if w, ok := req.Context().Value(watchKey{}).(*Watch); ok {
			w.timer.Reset(w.silence)
		}
		return nil
	}
	return c, nil
}

// watchKey is the context's key of the Watch whose time does not run while a request
// waits to be sent again.
type watchKey struct{}

func status(resp *http.Response) string {
	if resp == nil {
		return "none"
	}
	return resp.Status
}

// redirects says what becomes of a request that is sent elsewhere. With
// MLFLOW_ALLOW_HTTP_REDIRECTS=false none is; one that would lose its method, and its
// body with it, is an error, too. Another host gets no header but what a range and a
// body need: a header that a presigned URL came with may hold a key.
func redirects(env Env) func(*http.Request, []*http.Request) error {
	const variable = "MLFLOW_ALLOW_HTTP_REDIRECTS"
	forbidden := env(variable) != "" && !Truthy(env(variable))
	return func(req *http.Request, via []*http.Request) error {
		first := via[0]
		what := fmt.Sprintf("%s %s was redirected to %s", first.Method, first.URL.EscapedPath(), Redact(req.URL.String()))
		switch {
		case forbidden:
			return &noRetry{fmt.Errorf("%s, and %s is false", what, variable)}
		case req.Method != first.Method:
			return &noRetry{fmt.Errorf("%s in a way (%s) that makes a %s of it: give that server's own address as the tracking URI", what, req.Response.Status, req.Method)}
		case len(via) >= 10:
			return errors.New("stopped after 10 redirects")
		}
		if req.URL.Host != first.URL.Host || req.URL.Scheme != first.URL.Scheme {
			kept := http.Header{}
			for _, h := range []string{"Range", "If-Match", "Content-Type"} {
				if v := first.Header.Get(h); v != "" {
					kept.Set(h, v)
				}
			}
			req.Header = kept
		}
		return nil
	}
}

// Reach is what the client may reach.
func (c *Client) Reach() *Reach { return c.set.Reach }

// CloseIdleConnections closes the connections that no request uses.
func (c *Client) CloseIdleConnections() { c.retry.HTTPClient.CloseIdleConnections() }

// Clocks are those of the servers that have answered the client.
func (c *Client) Clocks() *Clocks { return c.set.Clocks }

// Base is the tracking server's address, without credentials.
func (c *Client) Base() *url.URL { return c.base }

// worthRetrying follows MLflow's own list of transient answers
// (mlflow.utils.request_utils); network errors are transient, too, but for
// those that can't change: a certificate that does not fit, a redirect loop.
func worthRetrying(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if why := (*noRetry)(nil); errors.As(err, &why) {
		return false, why
	}
	if err != nil {
		return retryablehttp.DefaultRetryPolicy(ctx, resp, err)
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true, nil
	}
	return false, nil
}

// noRetry is an error that the same request would end in again.
type noRetry struct{ error }

func (e *noRetry) Unwrap() error { return e.error }

// Do sends req, again where that is worth it, and returns when the headers of
// an answer are there, be it one of success or not. When no headers have come
// after MLFLOW_HTTP_REQUEST_TIMEOUT, or no piece of the body for that long, the
// request ends with an error; retries, and the waits before them, are included
// where Settings.Whole is set. One that the tracking server
// refuses is sent once more where there are new credentials by now.
func (c *Client) Do(req *http.Request) (*http.Response, error) {
	if c.creds == nil || !sameServer(c.base, req.URL) {
		return c.send(req)
	}
	with := c.creds.get()
	resp, err := c.send(req)
	if err != nil || (resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden) {
		return resp, err
	}
	if better := resp.StatusCode == http.StatusUnauthorized && with.oauth != (oauthClient{}) && c.oauth.refused(with.oauth); !better && !c.creds.refused(with) {
		return resp, err
	}
	resp.Body.Close()
	again := req.Clone(req.Context())
	if req.GetBody != nil {
		if again.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	return c.send(again)
}

func (c *Client) send(req *http.Request) (*http.Response, error) {
	w := c.set.Watch(req.Context(), req.Method+" "+req.URL.Host)
	ctx := w.Context()
	if !c.set.Whole {
		ctx = context.WithValue(ctx, watchKey{}, w)
	}
	rreq, err := retryablehttp.FromRequest(req.WithContext(ctx))
	if err != nil {
		return nil, w.End(err)
	}
	resp, err := c.retry.Do(rreq)
	if err != nil {
		err = HideQuery(w.End(err))
		if inside := (*innerAddress)(nil); errors.As(err, &inside) {
			c.log.Warn("a URL or a redirect of a server is not followed", "err", inside)
		}
		if errors.Is(err, io.EOF) {
			// An io.EOF means the end of a file to those above.
			err = fmt.Errorf("%s %s: the server closed the connection without an answer: %w", req.Method, req.URL.EscapedPath(), io.ErrUnexpectedEOF)
		}
		return nil, err
	}
	resp.Body = w.Body(resp.Body)
	return resp, nil
}

// HideQuery takes the query out of the address that an error of net/http
// names: that of a presigned URL is a credential.
func HideQuery(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		u.URL = Redact(u.URL)
		if strings.HasPrefix(u.Err.Error(), "failed to parse Location header") { // which it quotes
			u.Err = errors.New("a redirect leads to what is no address")
		}
	}
	return err
}

// URL is the address of path, in which each segment is encoded, below the
// tracking server's.
func (c *Client) URL(path string, query url.Values) *url.URL {
	u := c.base.JoinPath(path)
	u.RawQuery = query.Encode()
	return u
}

// Answer is the body of an answer that is read into memory. One that is too long
// for that ends in an error.
func (c *Client) Answer(resp *http.Response) io.Reader {
	return http.MaxBytesReader(nil, resp.Body, c.most)
}

// JSON sends a request to path below the tracking server's address and decodes
// the answer into out. body nil makes a GET, else a POST of its JSON.
func (c *Client) JSON(ctx context.Context, path string, query url.Values, body, out any) error {
	u := c.URL(path, query)
	method, payload := http.MethodGet, []byte(nil)
	if body != nil {
		method = http.MethodPost
		var err error
		if payload, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(payload))
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	if err := CheckStatus(resp); err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := Decode(c.Answer(resp), out); err != nil {
		return fmt.Errorf("%s %s: the answer is no JSON of MLflow's: %w", method, path, err)
	}
	return nil
}
