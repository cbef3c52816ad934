package cloudtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mlflowfs/mlflowfs/cache"
)

// Endless is a store whose answers, but for an object's bytes, have no end.
type Endless struct {
	Status      int
	Head, Piece string                 // of an answer; then Piece comes again and again
	Only        func(host string) bool // which hosts; nil: all. Others answer 404

	sent atomic.Int64
}

var _ http.RoundTripper = (*Endless)(nil)

// RoundTrip answers a request. A range has as many bytes as it says.
func (e *Endless) RoundTrip(req *http.Request) (*http.Response, error) {
	header := http.Header{"Content-Type": {"application/xml"}, "Etag": {`"1"`}, "X-Goog-Generation": {"1"}}
	answer := func(status int, length int64, body io.Reader) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: header, ContentLength: length, Body: io.NopCloser(body), Request: req}, nil
	}
	for name, v := range req.Header {
		var from, to int64
		if !strings.EqualFold(name, "Range") && !strings.EqualFold(name, "X-Ms-Range") {
			continue
		}
		if _, err := fmt.Sscanf(v[0], "bytes=%d-%d", &from, &to); err != nil {
			return nil, err
		}
		header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, to+1))
		return answer(http.StatusPartialContent, to+1-from, io.LimitReader(&pieces{e: e, next: e.Piece}, to+1-from))
	}
	if e.Only != nil && !e.Only(req.URL.Host) {
		return answer(http.StatusNotFound, 0, strings.NewReader(""))
	}
	if strings.HasPrefix(e.Head, "{") {
		header.Set("Content-Type", "application/json")
	}
	return answer(e.Status, -1, &pieces{e: e, next: e.Head})
}

// pieces is a body of them; a GiB is its end all the same.
type pieces struct {
	e    *Endless
	next string
	n    int64
}

func (p *pieces) Read(b []byte) (n int, err error) {
	if p.n > 1<<30 {
		return 0, io.ErrUnexpectedEOF
	}
	for n < len(b) {
		if p.next == "" {
			p.next = p.e.Piece
		}
		k := copy(b[n:], p.next)
		p.next = p.next[k:]
		n += k
	}
	p.n += int64(n)
	p.e.sent.Add(int64(n))
	return n, nil
}

// Reader is a store whose objects are read.
type Reader interface {
	ReadRange(ctx context.Context, file string, off, n int64, validator string) (*cache.Body, error)
}

// Case is an endless answer that is met in an environment.
type Case struct {
	*Endless
	Env   map[string]string
	Token bool // the answer is that of who gives tokens, without which no object is read
}

// Getenv gives the variables of the environment.
func (c Case) Getenv(name string) string { return c.Env[name] }

// EachBounded is Bounded for the listing of each store that is opened for a case, and
// ReadsOn for those whose objects are read.
func EachBounded[R Reader](t *testing.T, cases map[string]Case, open func(Case) R, list func(R) error) {
	t.Helper()
	for name, c := range cases {
		store := open(c)
		Bounded(t, name, c.Endless, func() error { return list(store) })
		if !c.Token {
			ReadsOn(t, store)
		}
	}
}

// Limit is how much memory the process may take in [Bounded].
const Limit = 64 << 20

// Bounded fails the test when ask, of a process that may take Limit, takes an answer
// without end, or more memory than that. It measures memory: the test runs alone.
func Bounded(t *testing.T, name string, e *Endless, ask func() error) {
	t.Helper()
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(Limit))
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := ask()
	runtime.ReadMemStats(&after)
	grew, sent := int64(after.HeapSys)-int64(before.HeapSys), e.sent.Load()
	if err == nil || sent == 0 || sent > Limit { // of all attempts
		t.Errorf("%s: %v, after %d bytes", name, err, sent)
	}
	if grew > Limit {
		t.Errorf("%s: the heap grew by %d MiB", name, grew>>20)
	}
	t.Logf("figure: %s: an error after %d KiB; the heap grew by %d MiB", name, sent>>10, grew>>20)
}

// ReadsOn fails the test when an object's bytes, of which there are more than an answer
// may have, are not read to their end.
func ReadsOn(t *testing.T, r Reader) {
	t.Helper()
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(Limit))
	const size = 48 << 20
	body, err := r.ReadRange(t.Context(), "f", 0, size, "")
	if err != nil {
		t.Error(err)
		return
	}
	n, err := io.Copy(io.Discard, body)
	if err = errors.Join(err, body.Close()); n != size || err != nil {
		t.Errorf("of an object %d bytes are read, %v", n, err)
	}
}
