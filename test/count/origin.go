package count

import (
	"cmp"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Origin stands between a mount and a real server. It counts what passes, and
// it does what no real server does on command.
type Origin struct {
	*httptest.Server

	bytes atomic.Int64 // of bodies below counted

	mu       sync.Mutex // guards what follows
	requests []string
	headers  []http.Header
	counted  string
	host     string
	before   Before
	after    After
}

// Before may answer a request in the server's place: then it gives true.
type Before = func(http.ResponseWriter, *http.Request) bool

// After may change an answer of the server's.
type After = func(*http.Response) error

// NewOrigin begins to count before the server at target. counted is how the
// paths begin whose bodies are counted in bytes. The caller ends it by Stop.
func NewOrigin(target, counted string) (*Origin, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	o := &Origin{counted: counted}
	rp := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			o.mu.Lock()
			defer o.mu.Unlock()
			r.Out.Host = cmp.Or(o.host, r.In.Host) // which a signature may be of
		},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // a body that breaks is what a test wants
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			panic(http.ErrAbortHandler) // a server that is down is down behind this, too
		},
		ModifyResponse: func(resp *http.Response) error {
			o.mu.Lock()
			after, counted := o.after, o.counted
			o.mu.Unlock()
			if after != nil {
				if err := after(resp); err != nil {
					return err
				}
			}
			if strings.HasPrefix(resp.Request.URL.Path, counted) {
				resp.Body = &countedBody{resp.Body, &o.bytes}
			}
			return nil
		},
	}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.requests = append(o.requests, r.Method+" "+r.URL.RequestURI())
		o.headers = append(o.headers, r.Header.Clone())
		before := o.before
		o.mu.Unlock()
		if before != nil && before(w, r) {
			return
		}
		rp.ServeHTTP(w, r)
	}))
	return o, nil
}

// Stop ends it.
func (o *Origin) Stop() {
	o.CloseClientConnections()
	o.Close()
}

// Addr is its host and port.
func (o *Origin) Addr() string { return o.Listener.Addr().String() }

// Break sets what happens to requests and answers from now on.
func (o *Origin) Break(before Before, after After) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.before, o.after = before, after
}

// As has the server told that it is host, where it looks at that.
func (o *Origin) As(host string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.host = host
}

// Bytes is how many were sent, in bodies below the counted path, since the last
// Reset.
func (o *Origin) Bytes() int64 { return o.bytes.Load() }

// Reset counts from zero, and gives what was asked so far, each as method, path
// and query, and the bytes that were sent.
func (o *Origin) Reset() (requests []string, bytes int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	requests = o.requests
	o.requests, o.headers = nil, nil
	return requests, o.bytes.Swap(0)
}

// Headers are those of the requests since the last Reset.
func (o *Origin) Headers() []http.Header {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.headers)
}

// Of is how many requests hold part.
func Of(requests []string, part string) (n int) {
	for _, r := range requests {
		if strings.Contains(r, part) {
			n++
		}
	}
	return n
}

// countedBody counts what goes through it.
type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}
