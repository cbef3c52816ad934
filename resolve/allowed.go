package resolve

import (
	"fmt"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Allowed are the places that a server's word may open with what is the client's
// own: its keys of object stores and hosts, and its right to read files of this machine.
// Whoever may create a run on the server chooses it. Places elsewhere are read through the
// server alone, or by URLs that it signs. A nil Allowed is one with Own alone.
type Allowed struct {
	places []allowedPlace

	// Own says that what is opened is shown to its user alone, who then may open every
	// object store and every path of this machine, as with MLflow's client, whoever names
	// it. A host is no such place: who names it chooses where the client connects to, and
	// as whom. It is opened where the user himself names it, or the places do.
	Own bool
}

// allowedPlace is a bucket, container or host, or a directory in one.
type allowedPlace struct{ scheme, host, key string }

// hosted are the schemes of which a URI names a host, that is asked with the user's own
// rights there.
var hosted = map[string]bool{"sftp": true, "hdfs": true, "webhdfs": true, "swebhdfs": true}

// ParseAllowed reads URIs such as s3://bucket, gs://bucket/dir and sftp://user@host/dir.
// None is no place. A path of this machine can't be one.
func ParseAllowed(uris []string) (*Allowed, error) {
	a := &Allowed{}
	for _, uri := range uris {
		p, ok := cutPlace(uri)
		if hosted[p.scheme] {
			authority, _ := onHost(uri)
			a, _ := artifact.ParseAuthority(authority)
			ok = ok && !a.HasPassword // which belongs in no setting
		}
		if !ok || p.host == "" && p.scheme != "hdfs" || strings.ContainsAny(p.host, "?#") || climbs(p.key) {
			return nil, fmt.Errorf("%q is no place in an object store or on a host: write it like s3://bucket, gs://bucket/dir, wasbs://container@account.blob.core.windows.net or sftp://user@host/dir", Shown(uri))
		}
		p.key = strings.TrimSuffix(p.key, "/")
		a.places = append(a.places, p)
	}
	return a, nil
}

// opens tells whether a place is opened with what is the client's own.
func (a *Allowed) opens(p place) bool {
	_, named := a.within(p.uri)
	return named || (a == nil || a.Own) && (p.typed || !hosted[scheme(p.uri)])
}

// within gives the widest of the places that uri is, or lies in: its key. The names are
// compared as they are written, since a store takes them so; of a host, the user and the
// port belong to its name.
func (a *Allowed) within(uri string) (key string, named bool) {
	p, ok := cutPlace(uri)
	if a == nil || !ok || climbs(p.host) || climbs(p.key) {
		return "", false
	}
	for _, in := range a.places {
		if p.scheme == in.scheme && p.host == in.host && (in.key == "" || p.key == in.key || strings.HasPrefix(p.key, in.key+"/")) {
			if !named || len(in.key) < len(key) {
				key, named = in.key, true
			}
		}
	}
	return key, named
}

// cutPlace cuts the URI of an object store, as [Resolver.bucket] does, or of a host, as
// [Resolver.host] does.
func cutPlace(uri string) (p allowedPlace, ok bool) {
	s := scheme(uri)
	if s == "" || s == "file" {
		return p, false
	}
	if hosted[s] {
		authority, key := onHost(uri)
		a, err := artifact.ParseAuthority(authority)
		return allowedPlace{s, a.String(), strings.TrimPrefix(key, "/")}, err == nil
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
		decoded := rest.Unquote(key)
		if decoded == key {
			return false
		}
		key = decoded
	}
	return true // nobody encodes a name so often in good faith
}
