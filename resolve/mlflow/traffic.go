package mlflow

import (
	"net/http"
	"sync/atomic"
)

// Traffic is what a Client sent since it was made.
type Traffic struct {
	Requests [6]int64 // by the first digit of the answer's status; 0: there was none
	Retries  int64    // of these, those that were sent again
}

// Traffic says what the client sent.
func (c *Client) Traffic() (t Traffic) {
	for i := range t.Requests {
		t.Requests[i] = c.sent.by[i].Load()
	}
	t.Retries = c.sent.again.Load()
	return t
}

// counted is a RoundTripper that counts.
type counted struct {
	next  http.RoundTripper
	conns *http.Transport // below it
	by    [6]atomic.Int64
	again atomic.Int64
}

var _ http.RoundTripper = (*counted)(nil)

func (t *counted) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	class := 0
	if err == nil && resp.StatusCode < 600 {
		class = resp.StatusCode / 100
	}
	t.by[class].Add(1)
	return resp, err
}

// CloseIdleConnections is what http.Client looks for.
func (t *counted) CloseIdleConnections() { t.conns.CloseIdleConnections() }
