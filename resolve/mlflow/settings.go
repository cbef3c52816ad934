package mlflow

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Settings is how patient a client is (MLflow's variables of the same names).
type Settings struct {
	Silence time.Duration // MLFLOW_HTTP_REQUEST_TIMEOUT, 120 s
	Retries int           // MLFLOW_HTTP_REQUEST_MAX_RETRIES, 6
	Backoff time.Duration // before the first retry: MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR, 0.5 s
	Offline bool          // nothing is sent (MLFLOWFS_OFFLINE, ours)
	Reach   *Reach        // what may be reached; nil: everything

	strangers bool // requests go where a server said
}

// Variables that flags stand for, too.
const (
	TimeoutVariable = "MLFLOW_HTTP_REQUEST_TIMEOUT"
	OfflineVariable = "MLFLOWFS_OFFLINE"
)

// ErrOffline is why nothing is sent to a server.
var ErrOffline = errors.New("the network is not used (--offline)")

// ReadSettings reads them; each is a number, 0 or more.
func ReadSettings(env Env) (Settings, error) {
	number := func(name string, fallback float64) (float64, error) {
		v := env(name)
		if v == "" {
			return fallback, nil
		}
		n, err := strconv.ParseFloat(v, 64)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("%s is %q: it must be a number, 0 or more", name, v)
		}
		return n, nil
	}
	timeout, err := number(TimeoutVariable, 120)
	if err != nil {
		return Settings{}, err
	}
	retries, err := number("MLFLOW_HTTP_REQUEST_MAX_RETRIES", 6)
	if err != nil {
		return Settings{}, err
	}
	backoff, err := number("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", 0.5)
	seconds := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	if err != nil {
		return Settings{}, err
	}
	reach, err := readReach(env)
	return Settings{Silence: seconds(timeout), Retries: int(retries), Backoff: seconds(backoff), Offline: Truthy(env(OfflineVariable)), Reach: reach}, err
}

// headRead is what a connection's buffer takes at a time, in bytes: an answer's
// head, and small bodies. Reads that are larger go past it, and are not copied.
const headRead = 32 << 10

// Tune makes a transport fit for artifacts: many connections to one host, as
// they were sent, an end to each that has fallen silent, and none that Reach
// refuses. The transport's Proxy is set before.
func (s Settings) Tune(t *http.Transport) {
	dialer := &net.Dialer{
		Timeout: min(s.Silence, 10*time.Second),
		// A peer that has gone silent altogether is noticed in half a minute,
		// however long the server may think about an answer.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4},
	}
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

// Truthy reads a variable as MLflow reads a boolean
// (mlflow.environment_variables._BooleanEnvironmentVariable).
func Truthy(s string) bool {
	s = strings.ToLower(s)
	return s == "true" || s == "1"
}
