package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// lendingStore stands before the S3 store of the tests and gives temporary keys for it, as
// AWS's STS does: each reads the keys below one prefix, until its time is over. It holds
// each request's signature and session token against the keys that it gave.
type lendingStore struct {
	t   *testing.T
	srv *httptest.Server

	mu     sync.Mutex // guards what follows
	given  map[string]*lentKey
	asked  []string // method, path and key of each request that was let in
	turned int      // requests that were turned away
}

// lentKey is a temporary key.
type lentKey struct {
	Key, Secret, Session string
	prefix               string // /bucket/key…
	until                time.Time
}

func newLendingStore(t *testing.T) *lendingStore {
	t.Helper()
	s := &lendingStore{t: t, given: map[string]*lentKey{}}
	target := &url.URL{Scheme: "http", Host: theObjects(t).s3}
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(target)
		for _, h := range []string{"Authorization", "X-Amz-Security-Token", "X-Amz-Date", "Accept-Encoding"} {
			p.Out.Header.Del(h)
		}
		sign(t, p.Out, aws.Credentials{AccessKeyID: s3Key, SecretAccessKey: s3Secret}, time.Now())
	}}
	s.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if code := s.refuses(r); code != "" {
			s.mu.Lock()
			s.turned++
			s.mu.Unlock()
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, "<Error><Code>%s</Code><Message>turned away</Message></Error>", code)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.srv.Close)
	return s
}

// lend gives a key for what is below a prefix of the tests' bucket.
func (s *lendingStore) lend(prefix string, life time.Duration) *lentKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.given)
	k := &lentKey{fmt.Sprintf("ASIATEMPORARY%d", n), fmt.Sprintf("s3cret-lent-%d", n), fmt.Sprintf("s3cret-session-%d", n), "/" + bucket + "/" + prefix, time.Now().Add(life)}
	s.given[k.Key] = k
	return k
}

// end ends all keys that were given.
func (s *lendingStore) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.given {
		k.until = time.Time{}
	}
}

// take gives what was let in since the last time, and how much was turned away.
func (s *lendingStore) take() (asked []string, turned int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked, turned = s.asked, s.turned
	s.asked, s.turned = nil, 0
	return asked, turned
}

var authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/]+)/\d+/[^/]+/s3/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]+)$`)

// refuses is S3's code for why a request is turned away; empty where it is let in.
func (s *lendingStore) refuses(r *http.Request) (code string) {
	m := authorization.FindStringSubmatch(r.Header.Get("Authorization"))
	if m == nil {
		return "AccessDenied"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.given[m[1]]
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	switch {
	case k == nil:
		s.t.Errorf("S3 is sent a key that was not lent: %s", m[1])
		return "InvalidAccessKeyId"
	case time.Now().After(k.until):
		return "ExpiredToken"
	case r.Header.Get("X-Amz-Security-Token") != k.Session:
		return "InvalidToken"
	case err != nil || r.Method != http.MethodGet && r.Method != http.MethodHead:
		return "AccessDenied"
	}
	again := r.Clone(r.Context())
	again.URL.Scheme, again.URL.Host = "http", r.Host
	again.Header = http.Header{}
	for _, name := range strings.Split(m[2], ";") {
		again.Header[http.CanonicalHeaderKey(name)] = r.Header.Values(name)
	}
	again.Header.Del("Host")
	sign(s.t, again, aws.Credentials{AccessKeyID: k.Key, SecretAccessKey: k.Secret, SessionToken: k.Session}, at)
	if !strings.HasSuffix(again.Header.Get("Authorization"), "Signature="+m[3]) {
		return "SignatureDoesNotMatch"
	}
	prefix := r.URL.Path
	if q := r.URL.Query(); strings.Count(r.URL.Path, "/") < 2 || strings.HasSuffix(r.URL.Path, "/") && len(q) > 0 {
		prefix = strings.TrimSuffix(r.URL.Path, "/") + "/" + q.Get("prefix")
	}
	head := r.Method == http.MethodHead && strings.Trim(r.URL.Path, "/") == bucket // by which MLflow's client learns the region
	if !head && !strings.HasPrefix(prefix+"/", k.prefix+"/") {
		return "AccessDenied"
	}
	s.asked = append(s.asked, r.Method+" "+prefix+" "+k.Key)
	return ""
}

func sign(t *testing.T, r *http.Request, with aws.Credentials, at time.Time) {
	t.Helper()
	hash := r.Header.Get("X-Amz-Content-Sha256")
	if hash == "" {
		hash = "UNSIGNED-PAYLOAD"
		r.Header.Set("X-Amz-Content-Sha256", hash)
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err := signer.SignHTTP(r.Context(), with, r, hash, "s3", "us-east-1", at); err != nil {
		t.Error(err)
	}
}

// fakeAPI is a server that answers the routes of an API that can't be had here, as its
// documentation says, and nothing else: another route, method, field or header is an
// error of the test.
type fakeAPI struct {
	t      *testing.T
	srv    *httptest.Server
	routes []fakeRoute
	open   map[string]http.HandlerFunc // paths that want no token

	mu    sync.Mutex // guards what follows
	token string     // what a request must bear
	asked []string   // method and path of each request
	fails int        // so many requests are answered with 503, and a Retry-After
}

// fakeRoute is one route. answer gives the JSON of an answer, or a [fakeError].
type fakeRoute struct {
	method string
	path   *regexp.Regexp
	fields []string // of the query, or the body
	answer func(path []string, in map[string]any) any
}

// fakeError is a refusal.
type fakeError struct {
	status        int
	code, message string
}

func newFakeAPI(t *testing.T, token string, routes ...fakeRoute) *fakeAPI {
	t.Helper()
	f := &fakeAPI{t: t, token: token, routes: routes}
	f.srv = httptest.NewServer(f)
	t.Cleanup(f.srv.Close)
	return f
}

// set changes the token that is taken, and how many requests fail.
func (f *fakeAPI) set(token string, fails int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.token, f.fails = token, fails
}

// take gives what was asked since the last time.
func (f *fakeAPI) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

// known are the headers that a client of such an API sends.
var known = []string{"Accept", "Accept-Encoding", "Authorization", "Connection", "Content-Length", "Content-Type", "Range", "Traceparent", "User-Agent", "X-Mlflow-Client-Version"}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked = append(f.asked, r.Method+" "+r.URL.Path)
	token, fail, open := f.token, f.fails > 0, f.open[r.URL.Path]
	if fail {
		f.fails--
	}
	f.mu.Unlock()
	for name := range r.Header {
		if !slices.Contains(known, name) {
			f.t.Errorf("%s %s is sent the header %s", r.Method, r.URL.Path, name)
		}
	}
	switch {
	case fail:
		w.Header().Set("Retry-After", "1")
		writeFake(w, fakeError{http.StatusServiceUnavailable, "TEMPORARILY_UNAVAILABLE", "later"})
		return
	case open != nil:
		open(w, r)
		return
	case token != "" && r.Header.Get("Authorization") != "Bearer "+token:
		writeFake(w, fakeError{http.StatusUnauthorized, "UNAUTHENTICATED", "Invalid access token."})
		return
	case token == "" && r.Header.Get("Authorization") != "":
		f.t.Errorf("%s %s is sent a token, and wants none", r.Method, r.URL.Path)
	}
	for _, route := range f.routes {
		m := route.path.FindStringSubmatch(r.URL.Path)
		if m == nil || m[0] != r.URL.Path || r.Method != route.method {
			continue
		}
		in, err := fieldsOf(r)
		for name := range in {
			if !slices.Contains(route.fields, name) {
				err = fmt.Errorf("it is sent %s", name)
			}
		}
		if err != nil {
			f.t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
			writeFake(w, fakeError{http.StatusBadRequest, "MALFORMED_REQUEST", err.Error()})
			return
		}
		answer := route.answer(m[1:], in)
		if h, ok := answer.(http.Handler); ok {
			h.ServeHTTP(w, r)
			return
		}
		writeFake(w, answer)
		return
	}
	f.t.Errorf("nothing is documented at %s %s", r.Method, r.URL.Path)
	writeFake(w, fakeError{http.StatusNotFound, "ENDPOINT_NOT_FOUND", "No API found"})
}

// fieldsOf are the fields of a request: of its query, or its JSON.
func fieldsOf(r *http.Request) (map[string]any, error) {
	in := map[string]any{}
	for name, values := range r.URL.Query() {
		in[name] = values[0]
		if len(values) > 1 {
			return nil, fmt.Errorf("its query has %s %d times", name, len(values))
		}
	}
	body, err := io.ReadAll(r.Body)
	asks := r.Method == http.MethodGet || r.Method == http.MethodHead
	if err == nil && asks && len(body) > 0 {
		err = errors.New("it has a body")
	}
	if err == nil && !asks && (len(body) > 0 || len(in) == 0) {
		err = json.Unmarshal(body, &in)
	}
	return in, err
}

func writeFake(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	if e, ok := answer.(fakeError); ok {
		w.WriteHeader(e.status)
		answer = map[string]any{"error_code": e.code, "message": e.message}
	}
	json.NewEncoder(w).Encode(answer)
}
