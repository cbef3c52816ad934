package artifact

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"context"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestAnotherRangeIsRefused fails when the bytes of another range than was asked
// for, of the same length too, are taken for those of that range.
func TestAnotherRangeIsRefused(t *testing.T) {
	t.Parallel()
	for answer, ok := range map[string]bool{
		"bytes 100-199/1000": true, "bytes 0-99/1000": false, "bytes 101-200/1000": false,
		"bytes 100-198/1000": false, "bytes 100-200/1000": false,
	} {
		resp := &http.Response{StatusCode: http.StatusPartialContent, Header: http.Header{"Content-Range": {answer}}, Body: http.NoBody, ContentLength: 100}
		if _, err := rangeBody(resp, 100, 100); (err == nil) != ok {
			t.Errorf("asked for 100-199, answered with %s: %v", answer, err)
		}
	}
}

// signer signs each time another URL.
type signer struct {
	base string
	n    int
}

func (s *signer) Offers(context.Context) error { return nil }
func (s *signer) Sign(context.Context, string) (SignedURL, error) {
	s.n++
	return SignedURL{URL: fmt.Sprint(s.base, "/f?sig=", s.n), Lifetime: time.Hour}, nil
}

// TestRefusedPresignedURLIsRenewed fails when a URL that an object store refuses
// before its time is over ends a read, or when one that is refused for ever is
// renewed without end.
func TestRefusedPresignedURLIsRenewed(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if q := r.URL.RawQuery; q != "sig=2" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Range", "bytes 0-0/1")
		w.WriteHeader(http.StatusPartialContent)
		w.Write([]byte("x"))
	}))
	t.Cleanup(srv.Close)
	web, err := rest.NewWebClient(func(name string) string { return map[string]string{rest.AllowAddressVariable: "127.0.0.1"}[name] }, nil)
	if err != nil {
		t.Fatal(err)
	}
	sign := &signer{base: srv.URL}
	s := NewSigned(nil, sign, web)
	body, err := s.ReadRange(t.Context(), "f", 0, 1, "")
	if err != nil || sign.n != 2 {
		t.Fatalf("%v, %d URLs", err, sign.n)
	}
	body.Close()
	s.urls.Drop("f")
	if _, err := s.ReadRange(t.Context(), "f", 0, 1, ""); err == nil || sign.n != 4 {
		t.Errorf("%v, %d URLs", err, sign.n)
	}
}
