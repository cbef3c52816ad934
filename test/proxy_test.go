package test

import (
	"cmp"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// proxy stands between a mount and a real server. It counts, and it does what
// no real server does on command.
type proxy struct {
	*httptest.Server

	mu       sync.Mutex // guards what follows
	requests []string   // method, path and query, in order
	headers  []http.Header
	bytes    int64  // of bodies of artifacts
	counted  string // the beginning of the paths that have artifacts
	host     string // what the server is told to be; as the client says where it is empty
	// before may answer a request itself (true); after may change an answer.
	before func(http.ResponseWriter, *http.Request) bool
	after  func(*http.Response) error
}

const artifactsAPI = "/api/2.0/mlflow-artifacts/artifacts"

func proxyTo(t *testing.T, target string) *proxy {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{counted: artifactsAPI + "/"}
	rp := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			p.mu.Lock()
			defer p.mu.Unlock()
			r.Out.Host = cmp.Or(p.host, r.In.Host) // which a signature may be of
		},
		FlushInterval: -1,
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			panic(http.ErrAbortHandler) // a server that is down is down behind the proxy, too
		},
		ModifyResponse: func(resp *http.Response) error {
			p.mu.Lock()
			after, counted := p.after, p.counted
			p.mu.Unlock()
			if after != nil {
				if err := after(resp); err != nil {
					return err
				}
			}
			if strings.HasPrefix(resp.Request.URL.Path, counted) {
				resp.Body = &countedBody{resp.Body, p}
			}
			return nil
		},
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.requests = append(p.requests, r.Method+" "+r.URL.RequestURI())
		p.headers = append(p.headers, r.Header.Clone())
		before := p.before
		p.mu.Unlock()
		if before != nil && before(w, r) {
			return
		}
		rp.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		p.CloseClientConnections()
		p.Close()
	})
	return p
}

// faults sets what happens to requests and answers from now on.
func (p *proxy) faults(before func(http.ResponseWriter, *http.Request) bool, after func(*http.Response) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before, p.after = before, after
}

// reset begins to count anew and gives what was asked so far.
func (p *proxy) reset() (requests []string, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	requests, bytes = p.requests, p.bytes
	p.requests, p.headers, p.bytes = nil, nil, 0
	return requests, bytes
}

// count is how many requests hold part.
func count(requests []string, part string) int {
	return len(slices.DeleteFunc(slices.Clone(requests), func(r string) bool { return !strings.Contains(r, part) }))
}

// countedBody counts what goes through it.
type countedBody struct {
	io.ReadCloser
	p *proxy
}

func (b *countedBody) Read(buf []byte) (int, error) {
	n, err := b.ReadCloser.Read(buf)
	b.p.mu.Lock()
	b.p.bytes += int64(n)
	b.p.mu.Unlock()
	return n, err
}
