package resolve

import (
	"fmt"
	"net/url"
	"strings"
)

// Allowed are the places that a server's word may open with what is the client's
// own: its keys of object stores, and its right to read files of this machine. Every
// other user of the machine sees what it opens, and whoever may create a run on the
// server chooses it. Places elsewhere are read through the server alone, or by URLs
// that it signs. A nil Allowed is every place.
type Allowed struct{ places []allowedPlace }

// allowedPlace is a bucket or container, or a directory in one.
type allowedPlace struct{ scheme, host, key string }

// ParseAllowed reads URIs such as s3://bucket and gs://bucket/dir. None is no place.
// A path of this machine can't be one.
func ParseAllowed(uris []string) (*Allowed, error) {
	a := &Allowed{}
	for _, uri := range uris {
		p, ok := cutPlace(uri)
		if !ok || p.host == "" || strings.ContainsAny(p.host, "?#") || climbs(p.key) {
			return nil, fmt.Errorf("%q is no place in an object store: write it like s3://bucket, gs://bucket/dir or wasbs://container@account.blob.core.windows.net", Shown(uri))
		}
		p.key = strings.TrimSuffix(p.key, "/")
		a.places = append(a.places, p)
	}
	return a, nil
}

// opens tells whether uri is one of the places, or lies in one. The names are
// compared as they are written, since a store takes them so.
func (a *Allowed) opens(uri string) bool {
	if a == nil {
		return true
	}
	p, ok := cutPlace(uri)
	if !ok || climbs(p.host) || climbs(p.key) {
		return false
	}
	for _, in := range a.places {
		if p.scheme == in.scheme && p.host == in.host && (in.key == "" || p.key == in.key || strings.HasPrefix(p.key, in.key+"/")) {
			return true
		}
	}
	return false
}

// cutPlace cuts the URI of an object store, as [Resolver.bucket] does.
func cutPlace(uri string) (p allowedPlace, ok bool) {
	s := scheme(uri)
	if s == "" || s == "file" {
		return p, false
	}
	rest, ok := strings.CutPrefix(uri[len(s)+1:], "//")
	host, key, _ := strings.Cut(rest, "/")
	return allowedPlace{s, host, key}, ok
}

// climbs tells whether a key has a part that is . or .., also to a store, or to what
// stands before it, that decodes it or takes a \ for a /.
func climbs(key string) bool {
	for range 8 {
		for part := range strings.FieldsFuncSeq(key, func(r rune) bool { return r == '/' || r == '\\' }) {
			if part == "." || part == ".." {
				return true
			}
		}
		decoded := decode(key)
		if decoded == key {
			return false
		}
		key = decoded
	}
	return true // nobody encodes a name so often in good faith
}

// decode decodes each percent sign that two hexadecimal digits follow.
func decode(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+3 <= len(s) {
			if c, err := url.PathUnescape(s[i : i+3]); err == nil {
				b.WriteString(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
