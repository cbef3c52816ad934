package mlflow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/hashicorp/go-retryablehttp"
)

// Client sends requests to a tracking server.
type Client struct {
	base    *url.URL // without user and password
	retry   *retryablehttp.Client
	silence time.Duration
	log     *slog.Logger
}

// NewClient makes a client for the tracking server at uri, http:// or
// https://, configured by MLflow's environment variables.
func NewClient(uri string, env Env, log *slog.Logger) (*Client, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		// The parse error would quote the URI, which may hold a password.
		return nil, fmt.Errorf("the tracking URI is no http:// or https:// address with a host")
	}
	creds, err := readCredentials(u, env)
	if err != nil {
		return nil, err
	}
	tlsConf, err := tlsConfig(env)
	if err != nil {
		return nil, err
	}
	settings := map[string]float64{
		"MLFLOW_HTTP_REQUEST_TIMEOUT":        120,
		"MLFLOW_HTTP_REQUEST_MAX_RETRIES":    6,
		"MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": 0.5,
	}
	for name := range settings {
		if v := env(name); v != "" {
			n, err := strconv.ParseFloat(v, 64)
			if err != nil || n < 0 {
				return nil, fmt.Errorf("%s is %q: it must be a number, 0 or more", name, v)
			}
			settings[name] = n
		}
	}
	seconds := func(name string) time.Duration {
		return time.Duration(settings[name] * float64(time.Second))
	}
	base := &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}
	silence := seconds("MLFLOW_HTTP_REQUEST_TIMEOUT")
	dialer := &net.Dialer{
		Timeout: min(silence, 10*time.Second),
		// A peer that has gone silent altogether is noticed in half a minute,
		// however long the server may think about an answer.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4},
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         quickAck(dialer.DialContext),
		TLSClientConfig:     tlsConf,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 32,
		ReadBufferSize:      256 << 10,
		IdleConnTimeout:     60 * time.Second,
		DisableCompression:  true, // lengths are those of the artifact
		ForceAttemptHTTP2:   true,
	}
	c := &Client{base: base, silence: silence, log: log}
	auth := &authTransport{next: transport, base: base, creds: creds, workspace: env("MLFLOW_WORKSPACE")}
	if wantsSigV4(env) {
		auth.sigV4 = &sigV4{signer: v4.NewSigner()}
	}
	c.retry = &retryablehttp.Client{
		HTTPClient:   &http.Client{Transport: auth},
		RetryMax:     int(settings["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]),
		RetryWaitMin: seconds("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"),
		RetryWaitMax: 30 * time.Second,
		CheckRetry:   worthRetrying,
		Backoff:      retryablehttp.DefaultBackoff, // doubles; follows Retry-After
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
		Logger:       nil,
	}
	c.retry.PrepareRetry = func(req *http.Request) error {
		c.log.Debug("asking again", "request", req.Method+" "+req.URL.EscapedPath())
		return nil
	}
	return c, nil
}

// Base is the tracking server's address, without credentials.
func (c *Client) Base() *url.URL { return c.base }

// worthRetrying follows MLflow's own list of transient answers
// (mlflow.utils.request_utils); network errors are transient, too, but for
// those that can't change: a certificate that does not fit, a redirect loop.
func worthRetrying(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	var unsigned *signError
	if errors.As(err, &unsigned) {
		return false, unsigned
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

// Do sends req, again where that is worth it, and returns when the headers of
// an answer are there, be it one of success or not. When no headers have come
// after MLFLOW_HTTP_REQUEST_TIMEOUT, retries included, or no piece of the body
// for that long, the request ends with an error.
func (c *Client) Do(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	silent := fmt.Errorf("%s %s: no answer for %v", req.Method, req.URL.Host, c.silence)
	watch := time.AfterFunc(c.silence, func() { cancel(silent) })
	rreq, err := retryablehttp.FromRequest(req.WithContext(ctx))
	if err != nil {
		watch.Stop()
		cancel(nil)
		return nil, err
	}
	resp, err := c.retry.Do(rreq)
	watch.Stop()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		if errors.Is(err, io.EOF) {
			// An io.EOF means the end of a file to those above.
			err = fmt.Errorf("%s %s: the server closed the connection without an answer: %w", req.Method, req.URL.EscapedPath(), io.ErrUnexpectedEOF)
		}
		return nil, err
	}
	resp.Body = &watchedBody{ReadCloser: resp.Body, watch: watch, silence: c.silence, ctx: ctx, cancel: cancel}
	return resp, nil
}

// watchedBody ends a body that falls silent.
type watchedBody struct {
	io.ReadCloser
	watch   *time.Timer
	silence time.Duration
	ctx     context.Context
	cancel  context.CancelCauseFunc
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.watch.Reset(b.silence)
	n, err := b.ReadCloser.Read(p)
	b.watch.Stop()
	if err != nil && err != io.EOF {
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.watch.Stop()
	err := b.ReadCloser.Close()
	b.cancel(context.Canceled)
	return err
}

var _ io.ReadCloser = (*watchedBody)(nil)

// JSON sends a request to path below the tracking server's address and decodes
// the answer into out. body nil makes a GET, else a POST of its JSON.
func (c *Client) JSON(ctx context.Context, path string, query url.Values, body, out any) error {
	u := *c.base
	u.Path += path
	u.RawQuery = query.Encode()
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
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("%s %s: the answer is no JSON of MLflow's: %w", method, path, err)
	}
	return nil
}
