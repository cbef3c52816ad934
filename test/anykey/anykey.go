// Package anykey is an S3 in memory that holds any key: with // and control
// characters, and a file and a directory of one name, which the servers of the tests
// that keep their objects in files can't hold. It checks no signature.
package anykey

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mlflowfs/mlflowfs/test/draw"
)

// Bucket is the one bucket, whatever its name: objects by their keys. It must not
// change once it is served.
type Bucket map[string]string

var _ http.Handler = Bucket(nil)

type object struct {
	Key          string
	LastModified string
	ETag         string
	Size         int
}

type prefix struct{ Prefix string }

type listing struct {
	XMLName               xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
	EncodingType          string   `xml:",omitempty"`
	IsTruncated           bool
	NextContinuationToken string `xml:",omitempty"`
	Contents              []object
	CommonPrefixes        []prefix
}

var modified = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func etag(content string) string {
	sum := md5.Sum([]byte(content))
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

// ServeHTTP answers ListObjectsV2, GetObject and HeadObject, asked by path.
func (b Bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	content, ok := b[key]
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(w, "", http.StatusMethodNotAllowed)
	case key == "":
		w.Header().Set("Content-Type", "application/xml")
		if err := xml.NewEncoder(w).Encode(b.list(r.URL.Query())); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	case !ok:
		w.WriteHeader(http.StatusNotFound)
		w.Write([]byte("<Error><Code>NoSuchKey</Code></Error>"))
	default:
		w.Header().Set("ETag", etag(content))
		if strings.HasSuffix(key, "/"+draw.Packed) {
			w = packed{w}
		}
		http.ServeContent(w, r, "", modified, bytes.NewReader([]byte(content)))
	}
}

// packed says of an answer that it is, with its length, which http.ServeContent would
// leave out.
type packed struct{ http.ResponseWriter }

func (p packed) WriteHeader(code int) {
	p.Header().Set("Content-Encoding", "gzip")
	p.ResponseWriter.WriteHeader(code)
}

// list answers with the names in order, those of one directory where a delimiter is
// given, at most max-keys of them.
func (b Bucket) list(q url.Values) (out listing) {
	encode := func(key string) string { return key }
	if out.EncodingType = q.Get("encoding-type"); out.EncodingType == "url" {
		encode = url.QueryEscape // a space is a +, as at AWS
	}
	most, err := strconv.Atoi(q.Get("max-keys"))
	if err != nil {
		most = 1000
	}
	keys := make([]string, 0, len(b))
	for k := range b {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	after, last := "", ""
	if b, err := hex.DecodeString(q.Get("continuation-token")); err == nil {
		after = string(b)
	}
	for _, k := range keys {
		rest, ok := strings.CutPrefix(k, q.Get("prefix"))
		if !ok {
			continue
		}
		name, inside := k, false
		if i := strings.Index(rest, "/"); q.Get("delimiter") == "/" && i >= 0 {
			name, inside = k[:len(k)-len(rest)+i+1], true // also of a key that ends there
		}
		if name == last || name <= after {
			continue
		}
		if len(out.Contents)+len(out.CommonPrefixes) == most {
			out.IsTruncated, out.NextContinuationToken = true, hex.EncodeToString([]byte(last))
			break
		}
		if last = name; !inside {
			out.Contents = append(out.Contents, object{encode(k), modified.Format(time.RFC3339), etag(b[k]), len(b[k])})
		} else {
			out.CommonPrefixes = append(out.CommonPrefixes, prefix{encode(name)})
		}
	}
	return out
}
