package fault

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// Chaos breaks a share of what passes, by a seed: all that servers, proxies on
// the way and networks were seen to do, but lie about the bytes themselves or
// about what there is, against which nothing helps.
type Chaos struct {
	Met count.Tally // faults by their names

	artifacts func(*http.Request) bool
	aside     *httptest.Server // another host, which sends on to the same server; nil: none

	mu      sync.Mutex // guards what follows
	share   float64    // of the requests
	r       *rand.Rand
	expired map[string]bool // signatures of addresses
}

// Kinds are the names of the faults that a Chaos has for HTTP.
var Kinds = strings.Fields("hang-up stall silence 500 502 503 504 429 400 401 403 408 404 412 416 206 204 empty-200 no-range aside 410 " +
	"reset early-end longer validator range stall-inside crumbs no-JSON expired")

// NewChaos makes one that breaks nothing yet (see [Chaos.Begin]). artifacts tells
// which requests are for an artifact's bytes.
func NewChaos(seed uint64, artifacts func(*http.Request) bool) *Chaos {
	return &Chaos{artifacts: artifacts, r: rand.New(rand.NewPCG(seed, 1)), expired: map[string]bool{}}
}

// Unleash begins to break a share of what o sends. The caller ends it by Stop.
func Unleash(o *count.Origin, seed uint64, share float64, artifacts func(*http.Request) bool) *Chaos {
	c := NewChaos(seed, artifacts)
	c.aside = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("X-Aside", "1")
		o.Config.Handler.ServeHTTP(w, r)
	}))
	c.Begin(share)
	o.Break(c.before, c.after)
	return c
}

// Begin breaks that share from now on; 0 ends the faults.
func (c *Chaos) Begin(share float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.share = share
}

// Stop ends the faults, and the host aside.
func (c *Chaos) Stop() {
	c.Begin(0)
	if c.aside != nil {
		c.aside.CloseClientConnections()
		c.aside.Close()
	}
}

// draw gives a fault's number of n, or -1 for none; part is how much of the
// share has one.
func (c *Chaos) draw(part float64, n int) (fault int, x float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.share == 0 || c.r.Float64() >= part*c.share {
		return -1, 0
	}
	return c.r.IntN(n), c.r.Float64()
}

// OfServer tells whether a tracking server asks, for its own: of some of these
// faults it makes wrong bytes itself.
func OfServer(r *http.Request) bool { return strings.Contains(r.Header.Get("User-Agent"), "Boto3") }

// Signature is that of a presigned address.
func Signature(r *http.Request) string { return r.URL.Query().Get("X-Amz-Signature") }

// hasExpired tells whether r's address has ended.
func (c *Chaos) hasExpired(r *http.Request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.share > 0 && c.expired[Signature(r)]
}

// before does what is done in the place of an answer.
func (c *Chaos) before(w http.ResponseWriter, r *http.Request) bool {
	if OfServer(r) {
		return false
	}
	if c.hasExpired(r) {
		http.Error(w, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", http.StatusForbidden)
		return true
	}
	kind, x := c.draw(0.5, 12)
	answer := func(code int, header ...string) bool {
		c.Met.Add(strconv.Itoa(code))
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		return true
	}
	bytes := c.artifacts(r)
	switch kind {
	case 0:
		c.Met.Add("hang-up")
		panic(http.ErrAbortHandler)
	case 1:
		c.Met.Add("stall")
		time.Sleep(time.Duration(x * 1.5 * float64(time.Second)))
	case 2:
		c.Met.Add("silence")
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
			c.Met.Add("empty-200")
			return true
		}
	case 9:
		if bytes {
			c.Met.Add("no-range")
			r.Header.Del("Range")
		}
	case 10:
		if c.aside != nil && r.Method == http.MethodGet && r.Header.Get("X-Aside") == "" && r.URL.RawQuery == "" { // a signature holds for one host
			c.Met.Add("aside")
			u, _ := url.Parse(c.aside.URL)
			http.Redirect(w, r, "http://localhost:"+u.Port()+r.URL.RequestURI(), http.StatusTemporaryRedirect)
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
func (c *Chaos) after(resp *http.Response) error {
	if OfServer(resp.Request) || (resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent) {
		return nil
	}
	kind, x := c.draw(0.5, 9)
	bytes := c.artifacts(resp.Request)
	at := int64(x * float64(max(resp.ContentLength, 1)))
	switch kind {
	case 0:
		c.Met.Add("reset")
		Cut(resp, at)
	case 1:
		if resp.ContentLength > at {
			c.Met.Add("early-end")
			EndEarly(resp, at)
		}
	case 2:
		if bytes {
			c.Met.Add("longer")
			Lengthen(resp, "and more")
		}
	case 3:
		if bytes {
			c.Met.Add("validator")
			resp.Header.Set("ETag", fmt.Sprintf(`"%x"`, x))
			resp.Header.Set("Last-Modified", time.Unix(int64(x*1e9), 0).UTC().Format(http.TimeFormat))
		}
	case 4:
		if cr := resp.Header.Get("Content-Range"); bytes && cr != "" {
			c.Met.Add("range")
			if x < 0.25 { // another range, as long
				var from, to int64
				fmt.Sscanf(cr, "bytes %d-%d", &from, &to)
				resp.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d%s", from+1, to+1, cr[strings.IndexByte(cr, '/'):]))
			} else if x < 0.5 {
				resp.Header.Set("Content-Range", strings.Replace(cr, "bytes ", "bytes 1", 1))
			} else {
				resp.Header.Set("Content-Range", cr[:strings.IndexByte(cr, '/')]+"/999999999")
			}
		}
	case 5:
		c.Met.Add("stall-inside")
		Stall(resp, at, time.Duration(x*float64(time.Second)))
	case 6:
		c.Met.Add("crumbs")
		Crumble(resp)
	case 7:
		if !bytes {
			c.Met.Add("no-JSON")
			Replace(resp, `<html>a proxy's page</html>`)
		}
	case 8:
		if s := Signature(resp.Request); s != "" {
			c.Met.Add("expired")
			c.mu.Lock()
			c.expired[s] = true
			c.mu.Unlock()
			Cut(resp, at)
		}
	}
	return nil
}
