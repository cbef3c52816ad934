package rest

import (
	"maps"
	"net/http"
	"sync"
	"time"
)

// Clocks is by how much this machine's clock is ahead of those of the servers that have
// answered. A nil Clocks notes nothing.
type Clocks struct {
	mu  sync.Mutex
	off map[string]time.Duration
}

// Note takes the time of an answer, which was asked for at began. One that a cache gave
// is of another time.
func (c *Clocks) Note(resp *http.Response, began time.Time) {
	if c == nil || resp == nil || resp.Request == nil || resp.Header.Get("Age") != "" {
		return
	}
	at, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return
	}
	// The server read its clock, to the second, between began and now.
	least, most := began.Sub(at)-time.Second, time.Since(at)
	ahead := max(least, min(0, most))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off[resp.Request.URL.Host] = ahead
}

// Ahead gives by how much this machine's clock is ahead of that of each host, to the
// second.
func (c *Clocks) Ahead() map[string]time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := maps.Clone(c.off)
	for host, d := range out {
		out[host] = d.Round(time.Second)
	}
	return out
}

// Here is a time of the clock of a host, as this machine's clock tells it.
func (c *Clocks) Here(host string, t time.Time) time.Time {
	if c == nil || t.IsZero() {
		return t
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return t.Add(c.off[host])
}

// noting is a RoundTripper that notes the time of each answer.
type noting struct {
	http.RoundTripper
	clocks *Clocks
}

func (n noting) RoundTrip(req *http.Request) (*http.Response, error) {
	began := time.Now()
	resp, err := n.RoundTripper.RoundTrip(req)
	n.clocks.Note(resp, began)
	return resp, err
}
