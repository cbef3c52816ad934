package rest

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

// TestValuesAreCounted fails when a page of a store's listing is refused though it has
// few values, since their text looks like more, or is taken though it has many.
func TestValuesAreCounted(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		``: 0, "hello , {": 0, "hello <a><b/>": 2, "\ufeff \n<?xml version='1.0'?>\n<a><b/><c>x,{</c></a>": 4,
		`{"a":[{"b":"{,[\"{,"},{}],"c":"\\"}`: 12, ` [1,2,3]`: 6, `{"a":"x`: 2,
	} {
		for name, r := range map[string]io.Reader{"at once": strings.NewReader(text), "byte by byte": iotest.OneByteReader(strings.NewReader(text))} {
			b := newShortBody(io.NopCloser(r))
			got, err := io.ReadAll(b)
			if b.values.n != want || string(got) != text || err != nil {
				t.Errorf("%q, %s: %d values, and not %d; %q, %v", text, name, b.values.n, want, got, err)
			}
		}
	}
}

// TestObjectsAreOfAnyLength fails when an object's bytes are bounded as an answer is that
// is read into memory, or such an answer is not.
func TestObjectsAreOfAnyLength(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		header http.Header
		status int
		whole  bool
	}{
		{http.Header{"Range": {"bytes=0-9"}}, 206, true}, {http.Header{"Range": {"bytes=0-9"}}, 200, true},
		{http.Header{"x-ms-range": {"bytes=0-9"}}, 206, true}, {http.Header{"Range": {"bytes=0-9"}}, 403, false},
		{http.Header{"x-ms-range": {"bytes=0-9"}}, 416, false}, {http.Header{"Accept": {"*/*"}}, 200, false},
	} {
		body := &endless{head: "x", piece: "xxxxxxxx", n: maxPage + 1<<20}
		resp := &http.Response{StatusCode: c.status, Body: io.NopCloser(body)}
		Shorten(&http.Request{Header: c.header}, resp)
		if n, err := io.Copy(io.Discard, resp.Body); (err == nil) != c.whole || n > maxPage && !c.whole {
			t.Errorf("%v, %d: %d bytes, %v", c.header, c.status, n, err)
		}
	}
	Shorten(&http.Request{}, nil)
	Shorten(&http.Request{}, &http.Response{})
}
