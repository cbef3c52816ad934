package rest

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// Settings is how patient a client is (MLflow's variables of the same names).
type Settings struct {
	Silence time.Duration // MLFLOW_HTTP_REQUEST_TIMEOUT, 120 s
	Retries int           // MLFLOW_HTTP_REQUEST_MAX_RETRIES, 7
	Backoff time.Duration // MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR, 2 s; see wait
	Jitter  time.Duration // MLFLOW_HTTP_REQUEST_BACKOFF_JITTER, 1 s
	After   bool          // a server says when to ask again: MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER, true
	Whole   bool          // Silence is for all retries together (WholeVariable, ours)
	Offline bool          // nothing is sent (MLFLOWFS_OFFLINE, ours)
	Reach   *Reach        // what may be reached; nil: everything
	Clocks  *Clocks       // of the servers that answer; nil: nobody asks

	strangers bool // requests go where a server said
}

// wait is how long to wait after an attempt, the first of which is 0: as MLflow's
// client, nothing after the first, and then the backoff factor times 4, 8, 16 … and
// some jitter, 2 minutes at most: 4 minutes for all seven. In a mount, whose
// programs wait with it, it is 3 s at most.
func (s Settings) wait(attempt int, resp *http.Response) time.Duration {
	if s.After && resp != nil && resp.Header.Get("Retry-After") != "" {
		if wait := retryablehttp.DefaultBackoff(0, 0, 0, resp); wait > 0 {
			return wait
		}
	}
	if attempt == 0 || s.Backoff == 0 {
		return 0
	}
	most := float64(2 * time.Minute)
	if s.Whole {
		most = float64(longestWait)
	}
	return time.Duration(min(most, math.Pow(2, float64(attempt))*float64(s.Backoff)+rand.Float64()*float64(s.Jitter)))
}

// longestWait is the longest wait in a mount, but where the server asks for more: a
// server that is back is found so much later.
const longestWait = 3 * time.Second

// Variables that flags stand for, too.
const (
	TimeoutVariable = "MLFLOW_HTTP_REQUEST_TIMEOUT"
	OfflineVariable = "MLFLOWFS_OFFLINE"
	WholeVariable   = "MLFLOWFS_TIMEOUT" // of a mount: how long a request may take, with its retries; 0s: it is none
)

// ErrOffline is why nothing is sent to a server.
var ErrOffline error = &noRetry{errors.New("the network is not used (--offline)")}

// ReadSettings reads them; each is a number, 0 or more.
func ReadSettings(env Env) (Settings, error) {
	number := func(name string, fallback float64) (float64, error) {
		v := env(name)
		if v == "" {
			return fallback, nil
		}
		n, err := strconv.ParseFloat(v, 64)
		if err != nil || !(n >= 0 && n < 1e9) { // nan, too
			return 0, fmt.Errorf("%s is %q: it must be a number, 0 or more, and not inf", name, v)
		}
		return n, nil
	}
	whole, err := readDuration(env(WholeVariable))
	timeout := whole.Seconds()
	if err == nil && whole == 0 {
		timeout, err = number(TimeoutVariable, 120)
	}
	if err == nil && timeout == 0 {
		err = fmt.Errorf("%s is 0: it must be more", TimeoutVariable)
	}
	retries, err2 := number("MLFLOW_HTTP_REQUEST_MAX_RETRIES", 7)
	backoff, err3 := number("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", 2)
	jitter, err4 := number("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", 1)
	if err := cmp.Or(err, err2, err3, err4); err != nil {
		return Settings{}, err
	}
	seconds := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	reach, err := readReach(env)
	after := env("MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER")
	return Settings{
		Silence: seconds(timeout), Retries: int(retries), Backoff: seconds(backoff), Jitter: seconds(jitter),
		After: after == "" || Truthy(after), Whole: whole > 0, Offline: Truthy(env(OfflineVariable)), Reach: reach,
		Clocks: &Clocks{off: map[string]time.Duration{}},
	}, err
}

func readDuration(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%s is %q: it must be like 30s", WholeVariable, s)
	}
	return d, nil
}

// headRead is what a connection's buffer takes at a time, in bytes: an answer's
// head, and small bodies. Reads that are larger go past it, and are not copied.
const headRead = 32 << 10

// Transport is a transport that is fit for artifacts, by the proxies of Python's
// requests.
func (s Settings) Transport(env Env, conf *tls.Config) *http.Transport {
	t := &http.Transport{Proxy: proxies(env), TLSClientConfig: conf}
	s.Tune(t)
	return t
}

// StoreTransport is a transport for an object store.
func (s Settings) StoreTransport(env Env, conf *tls.Config) http.RoundTripper {
	return noting{s.Transport(env, conf), s.Clocks}
}

// Tune makes a transport fit for artifacts: many connections to one host, as
// they were sent, an end to each that has fallen silent, and none that Reach
// refuses. The transport's Proxy is set before.
func (s Settings) Tune(t *http.Transport) {
	dialer := s.dialer()
	dial := dialer.DialContext
	if s.Reach != nil {
		g := guard{s.Reach, s.strangers}
		t.Proxy, dial = g.wrapProxy(t.Proxy), g.dial(dialer)
	}
	t.DialContext = quickAck(dial)
	if s.Offline {
		t.DialContext = func(context.Context, string, string) (net.Conn, error) { return nil, ErrOffline }
	}
	t.TLSHandshakeTimeout = 10 * time.Second
	t.MaxIdleConns = 256
	t.MaxIdleConnsPerHost = 64
	t.ReadBufferSize = headRead
	t.IdleConnTimeout = 60 * time.Second
	t.DisableCompression = true // lengths are those of the artifact
	t.ForceAttemptHTTP2 = true
}

func (s Settings) dialer() *net.Dialer {
	return &net.Dialer{
		Timeout: min(s.Silence, 10*time.Second),
		// A peer that has gone silent altogether is noticed in half a minute,
		// however long the server may think about an answer.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4},
	}
}

// Truthy reads a variable as MLflow reads a boolean
// (mlflow.environment_variables._BooleanEnvironmentVariable).
func Truthy(s string) bool {
	s = strings.ToLower(s)
	return s == "true" || s == "1"
}
