package rest

import (
	"net/http"
	"sync/atomic"
)

// Traffic is what a Client sent since it was made, by the first digit of the
// answer's status; 0: there was no answer.
type Traffic struct {
	Requests [6]int64
	Retries  [6]int64 // of these, those that were to be sent again for it
}

// Traffic says what the client sent.
func (c *Client) Traffic() (t Traffic) {
	for i := range t.Requests {
		t.Requests[i], t.Retries[i] = c.sent.by[i].Load(), c.sent.again[i].Load()
	}
	return t
}

// class is the first digit of an answer's status; 0 for none.
func class(resp *http.Response) int {
	if resp == nil || resp.StatusCode >= 600 {
		return 0
	}
	return resp.StatusCode / 100
}

// counted is a RoundTripper that counts.
type counted struct {
	next  http.RoundTripper
	conns *http.Transport // below it
	by    [6]atomic.Int64
	again [6]atomic.Int64
}

var _ http.RoundTripper = (*counted)(nil)

func (t *counted) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	t.by[class(resp)].Add(1)
	return resp, err
}

// CloseIdleConnections is what http.Client looks for.
func (t *counted) CloseIdleConnections() { t.conns.CloseIdleConnections() }
