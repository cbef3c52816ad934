package test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// chaos has a proxy break a share of what passes through it, by a seed: all
// that servers, proxies on the way and networks were seen to do, but lie about
// the bytes themselves or about what there is, against which nothing helps.
type chaos struct {
	share     float64 // of the requests
	aside     string  // another host, which sends on to the same server
	artifacts func(*http.Request) bool

	mu      sync.Mutex // guards what follows
	r       *rand.Rand
	done    map[string]int  // faults by their names
	expired map[string]bool // signatures of addresses
	off     bool
}

// unleash begins to break what p sends; artifacts tells which requests are for
// an artifact's bytes.
func unleash(t *testing.T, p *proxy, seed uint64, share float64, artifacts func(*http.Request) bool) *chaos {
	t.Helper()
	c := &chaos{share: share, artifacts: artifacts, r: rand.New(rand.NewPCG(seed, 1)), done: map[string]int{}, expired: map[string]bool{}}
	aside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("X-Aside", "1")
		p.Config.Handler.ServeHTTP(w, r)
	}))
	u, err := url.Parse(aside.URL)
	if err != nil {
		t.Fatal(err)
	}
	c.aside = "localhost:" + u.Port()
	t.Cleanup(func() {
		p.faults(nil, nil)
		aside.CloseClientConnections()
		aside.Close()
	})
	p.faults(c.before, c.after)
	return c
}

// begin has a machine that was off break that share.
func (c *chaos) begin(share float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off, c.share = false, share
}

// calm ends the faults.
func (c *chaos) calm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = true
}

// faults says how many of which kind there were.
func (c *chaos) faults() (n int, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.done {
		n += k
	}
	return n, fmt.Sprint(c.done)
}

// draw gives a fault's number of n, or -1 for none; part is how much of the
// share has one.
func (c *chaos) draw(part float64, n int) (fault int, r float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.off || c.r.Float64() >= part*c.share {
		return -1, 0
	}
	return c.r.IntN(n), c.r.Float64()
}

func (c *chaos) note(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[what]++
}

// ofServer tells whether a tracking server asks, for its own: of some of these
// faults it makes wrong bytes itself.
func ofServer(r *http.Request) bool { return strings.Contains(r.Header.Get("User-Agent"), "Boto3") }

// signature is that of a presigned address.
func signature(r *http.Request) string { return r.URL.Query().Get("X-Amz-Signature") }

// hasExpired tells whether r's address has ended.
func (c *chaos) hasExpired(r *http.Request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.off && c.expired[signature(r)]
}

// before does what is done in the place of an answer.
func (c *chaos) before(w http.ResponseWriter, r *http.Request) bool {
	if ofServer(r) {
		return false
	}
	if c.hasExpired(r) {
		http.Error(w, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", http.StatusForbidden)
		return true
	}
	kind, x := c.draw(0.5, 12)
	answer := func(code int, header ...string) bool {
		c.note(strconv.Itoa(code))
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		return true
	}
	bytes := c.artifacts(r)
	switch kind {
	case 0:
		c.note("hang-up")
		panic(http.ErrAbortHandler)
	case 1:
		c.note("stall")
		time.Sleep(time.Duration(x * 1.5 * float64(time.Second)))
	case 2:
		c.note("silence")
		select {
		case <-r.Context().Done():
		case <-time.After(5 * time.Second):
		}
		panic(http.ErrAbortHandler)
	case 3:
		return answer([]int{500, 502, 503, 504}[int(x*4)])
	case 4:
		return answer([]int{429, 503}[int(x*2)], "Retry-After", []string{"0", "1"}[int(x*4)%2])
	case 5:
		return answer([]int{400, 401, 403, 408}[int(x*4)])
	case 6:
		if bytes {
			return answer([]int{404, 412, 416, 206, 204}[int(x*5)])
		}
	case 7:
		if bytes && r.Header.Get("Range") != "" {
			return answer(206, "Content-Range", []string{"bytes 1-1/2000000", "bytes */7", "garbage", "bytes 0-18446744073709551615/18446744073709551615"}[int(x*4)])
		}
	case 8:
		if bytes {
			c.note("empty-200")
			return true
		}
	case 9:
		if bytes {
			c.note("no-range")
			r.Header.Del("Range")
		}
	case 10:
		if r.Method == http.MethodGet && r.Header.Get("X-Aside") == "" && r.URL.RawQuery == "" { // a signature holds for one host
			c.note("aside")
			http.Redirect(w, r, "http://"+c.aside+r.URL.RequestURI(), http.StatusTemporaryRedirect)
			return true
		}
	case 11:
		if bytes {
			return answer(410)
		}
	}
	return false
}

// after changes an answer of the server.
func (c *chaos) after(resp *http.Response) error {
	if ofServer(resp.Request) || (resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent) {
		return nil
	}
	kind, x := c.draw(0.5, 9)
	bytes := c.artifacts(resp.Request)
	at := int64(x * float64(max(resp.ContentLength, 1)))
	switch kind {
	case 0:
		c.note("reset")
		cut(resp, at, false)
	case 1:
		if resp.ContentLength > at {
			c.note("early-end")
			cut(resp, at, true)
		}
	case 2:
		if bytes {
			c.note("longer")
			resp.Body = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(resp.Body, strings.NewReader("and more")), resp.Body}
			resp.ContentLength = -1
			resp.Header.Del("Content-Length")
		}
	case 3:
		if bytes {
			c.note("validator")
			resp.Header.Set("ETag", fmt.Sprintf(`"%x"`, x))
			resp.Header.Set("Last-Modified", time.Unix(int64(x*1e9), 0).UTC().Format(http.TimeFormat))
		}
	case 4:
		if cr := resp.Header.Get("Content-Range"); bytes && cr != "" {
			c.note("range")
			if x < 0.5 {
				resp.Header.Set("Content-Range", strings.Replace(cr, "bytes ", "bytes 1", 1))
			} else {
				resp.Header.Set("Content-Range", cr[:strings.IndexByte(cr, '/')]+"/999999999")
			}
		}
	case 5:
		c.note("stall-inside")
		resp.Body = &stallingBody{resp.Body, at, time.Duration(x * float64(time.Second))}
	case 6:
		c.note("crumbs")
		resp.Body = crumbs{resp.Body}
	case 8:
		if s := signature(resp.Request); s != "" {
			c.note("expired")
			c.mu.Lock()
			c.expired[s] = true
			c.mu.Unlock()
			cut(resp, at, false)
		}
	case 7:
		if !bytes {
			c.note("no-JSON")
			resp.Body.Close()
			resp.Body = io.NopCloser(strings.NewReader(`<html>a proxy's page</html>`))
			resp.ContentLength = -1
			resp.Header.Del("Content-Length")
		}
	}
	return nil
}

// stallingBody stops for a while when it has given left bytes.
type stallingBody struct {
	io.ReadCloser
	left int64
	stop time.Duration
}

func (b *stallingBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		time.Sleep(b.stop)
		b.left = -1
	}
	if b.left > 0 {
		p = p[:min(int64(len(p)), b.left)]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left > 0 {
		b.left -= int64(n)
	}
	return n, err
}

// crumbs gives its bytes in odd little pieces.
type crumbs struct{ io.ReadCloser }

func (b crumbs) Read(p []byte) (int, error) { return b.ReadCloser.Read(p[:min(len(p), 1379)]) }

// The machine itself: each kind of fault comes.
func TestChaosBreaks(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), 1000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "f", time.Unix(1, 0), bytes.NewReader(body))
	}))
	defer server.Close()
	p := proxyTo(t, server.URL)
	c := unleash(t, p, 1, 1, isArtifact)
	kinds := strings.Fields("hang-up stall silence 500 502 503 504 429 400 401 403 408 404 412 416 206 204 empty-200 no-range aside 410 reset early-end longer validator range stall-inside crumbs no-JSON expired")
	missing := func() (out []string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, k := range kinds {
			if c.done[k] == 0 {
				out = append(out, k)
			}
		}
		return out
	}
	client := &http.Client{Timeout: 50 * time.Millisecond}
	for i := 0; i < 2000 && len(missing()) > 0; i++ {
		path := artifactsAPI + "/f"
		switch i % 5 {
		case 0:
			path = "/api/other"
		case 1:
			path += fmt.Sprint("?X-Amz-Signature=", i)
		}
		req, err := http.NewRequest(http.MethodGet, p.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Range", "bytes=10-2000")
		if resp, err := client.Do(req); err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
	if m := missing(); len(m) > 0 {
		t.Errorf("no fault of the kinds %v", m)
	}
}
