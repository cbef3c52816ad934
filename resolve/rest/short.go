package rest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Bounds of an answer of an object store's, or of who gives tokens for one, that its
// SDK reads into memory: a page of a listing with the 1000 objects that are asked for,
// a token, an error. The longest page of S3's, of keys of 1024 bytes that are all
// escaped, has 4 MiB; one of Azure's has 25 values for each object, and its metadata.
const (
	maxPage   = 32 << 20
	maxValues = 256 << 10
)

// Of the memory that the process may take, an answer of a store's may be one in
// pagePart bytes, and have a value for each bytesOfValue: an SDK makes up to 0.5 KiB of
// an object that is listed as XML, and 1.5 KiB of one that is JSON, be it three bytes
// long. A page of 1000 objects has 64 values for each in the least memory, 64 MiB.
const (
	pagePart     = 16
	bytesOfValue = 1 << 10
)

// ShortAnswers is a RoundTripper of an object store's SDK whose answers end in an error
// where they are too long to be read into memory; but for an object's content, see
// [Shorten].
func ShortAnswers(t http.RoundTripper) http.RoundTripper { return shortening{t} }

type shortening struct{ http.RoundTripper }

func (s shortening) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := s.RoundTripper.RoundTrip(req)
	Shorten(req, resp)
	return resp, err
}

// CloseIdleConnections closes the connections that no request uses.
func (s shortening) CloseIdleConnections() {
	if c, ok := s.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// Shorten has an answer end in an error where it is too long to be read into memory. An
// object's content, which is all that is ever asked for by a range, is of any length.
func Shorten(req *http.Request, resp *http.Response) {
	if resp == nil || resp.Body == nil || isContent(req.Header) && (resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent) {
		return
	}
	resp.Body = newShortBody(resp.Body)
}

// isContent tells whether a request is for a range: by HTTP's header, or by Azure's.
func isContent(h http.Header) bool {
	for name := range h {
		if strings.EqualFold(name, "Range") || strings.EqualFold(name, "X-Ms-Range") {
			return true
		}
	}
	return false
}

// shortBody is a body that ends in an error when it has more bytes, or if it is XML or
// JSON more values, than fit into memory.
type shortBody struct {
	io.ReadCloser
	left, most int64 // bytes
	values     valueCounter
	mostValues int64
	err        error // of which it ended
}

func newShortBody(body io.ReadCloser) *shortBody {
	most := mostOf(maxPage, pagePart)
	return &shortBody{ReadCloser: body, left: most, most: most, mostValues: mostOf(maxValues, bytesOfValue)}
}

func (b *shortBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p)
	b.values.add(p[:n])
	switch b.left -= int64(n); {
	case b.left < 0:
		b.err = fmt.Errorf("the store's answer is longer than %d bytes", b.most)
	case b.values.n > b.mostValues:
		b.err = fmt.Errorf("the store's answer has more than %d values", b.mostValues)
	default:
		return n, err
	}
	return 0, b.err
}

// valueCounter counts the values of XML (its elements) and those of JSON (its objects,
// lists and commas, each of which counts twice), as they pass.
type valueCounter struct {
	n       int64
	began   bool
	json    bool // and not XML, before which any text may stand
	tag     bool // of XML: the last byte was a <
	quoted  bool // of JSON: in a string
	escaped bool // behind its \
}

func (c *valueCounter) add(p []byte) {
	for len(p) > 0 && !c.began {
		switch p[0] {
		case ' ', '\t', '\r', '\n', 0xef, 0xbb, 0xbf: // the last three are a byte order mark
			p = p[1:]
		default:
			c.began, c.json = true, p[0] == '{' || p[0] == '['
		}
	}
	for _, b := range p {
		if c.json {
			c.addJSON(b)
			continue
		}
		if c.tag && b != '/' {
			c.n++
		}
		c.tag = b == '<'
	}
}

func (c *valueCounter) addJSON(b byte) {
	switch {
	case c.escaped:
		c.escaped = false
	case c.quoted && b == '\\':
		c.escaped = true
	case b == '"':
		c.quoted = !c.quoted
	case !c.quoted && (b == '{' || b == '[' || b == ','):
		c.n += 2
	}
}
