package fault

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// body is an answer's body that something happens to.
type body struct {
	io.ReadCloser
	at   int64                                                       // where it happens; -1: it has
	read func(b *body, p []byte) (int, error)                        // instead of the body's own from there on
	each func(read func([]byte) (int, error), p []byte) (int, error) // instead of each Read
}

func (b *body) Read(p []byte) (int, error) {
	switch {
	case b.each != nil:
		return b.each(b.ReadCloser.Read, p)
	case b.at == 0:
		return b.read(b, p)
	case b.at > 0:
		p = p[:min(int64(len(p)), b.at)]
	}
	n, err := b.ReadCloser.Read(p)
	if b.at > 0 {
		b.at -= int64(n)
	}
	return n, err
}

// past reads on as if nothing had happened.
func (b *body) past(p []byte) (int, error) {
	b.at = -1
	return b.ReadCloser.Read(p)
}

// unsized has an answer tell no length.
func unsized(r *http.Response) {
	r.ContentLength = -1
	r.Header.Del("Content-Length")
}

var errCut = errors.New("cut")

// Cut breaks the connection after at bytes of the body.
func Cut(r *http.Response, at int64) {
	r.Body = &body{ReadCloser: r.Body, at: at, read: func(*body, []byte) (int, error) { return 0, errCut }}
}

// EndEarly ends the body after at bytes, and cleanly, as a proxy on the way does
// that lost its own upstream.
func EndEarly(r *http.Response, at int64) {
	r.Body = &body{ReadCloser: r.Body, at: at, read: func(*body, []byte) (int, error) { return 0, io.EOF }}
	unsized(r)
}

// Stall stops for a while after at bytes of the body.
func Stall(r *http.Response, at int64, stop time.Duration) {
	r.Body = &body{ReadCloser: r.Body, at: at, read: func(b *body, p []byte) (int, error) {
		time.Sleep(stop)
		return b.past(p)
	}}
}

// Crumble sends the body in odd little pieces.
func Crumble(r *http.Response) {
	r.Body = &body{ReadCloser: r.Body, each: func(read func([]byte) (int, error), p []byte) (int, error) {
		return read(p[:min(len(p), 1379)])
	}}
}

// Pace sends the body in pieces of 64 KiB at a rate, in bytes a second.
func Pace(r *http.Response, rate int) {
	r.Body = &body{ReadCloser: r.Body, each: func(read func([]byte) (int, error), p []byte) (int, error) {
		n, err := read(p[:min(len(p), 64<<10)])
		time.Sleep(time.Duration(n) * time.Second / time.Duration(rate))
		return n, err
	}}
}

// Turn changes one bit of the body.
func Turn(r *http.Response) {
	turned := false
	r.Body = &body{ReadCloser: r.Body, each: func(read func([]byte) (int, error), p []byte) (int, error) {
		n, err := read(p)
		if n > 0 && !turned {
			p[n/2] ^= 4
			turned = true
		}
		return n, err
	}}
}

// Lengthen sends more behind the body, whose length it does not tell.
func Lengthen(r *http.Response, more string) {
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(r.Body, strings.NewReader(more)), r.Body}
	unsized(r)
}

// Replace sends another body.
func Replace(r *http.Response, with string) {
	r.Body.Close()
	r.Body = io.NopCloser(strings.NewReader(with))
	unsized(r)
}

// Quota lets so many bytes of bodies through, of all answers together, and holds
// what is beyond until it is opened.
type Quota struct {
	left  atomic.Int64
	once  sync.Once     // closes spent
	spent chan struct{} // closed when all is used
	open  chan struct{} // closed by Open
}

// NewQuota makes one of n bytes; what is read at that moment may go beyond it.
func NewQuota(n int64) *Quota {
	q := &Quota{spent: make(chan struct{}), open: make(chan struct{})}
	q.left.Store(n)
	return q
}

// Spent is closed once all is used, and somebody waits for more.
func (q *Quota) Spent() <-chan struct{} { return q.spent }

// Open lets everything through.
func (q *Quota) Open() { close(q.open) }

// Hold has an answer's body keep to the quota.
func (q *Quota) Hold(r *http.Response) {
	r.Body = &body{ReadCloser: r.Body, each: func(read func([]byte) (int, error), p []byte) (int, error) {
		if q.left.Load() <= 0 {
			q.once.Do(func() { close(q.spent) })
			select {
			case <-q.open:
			case <-r.Request.Context().Done():
				return 0, errCut
			}
		}
		n, err := read(p)
		q.left.Add(-int64(n))
		return n, err
	}}
}
