package artifact

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// readHTTP asks with req for n bytes from off, of the content that validator
// names where it is not empty, and holds the answer against that.
func readHTTP(c *rest.Client, req *http.Request, off, n int64, validator string) (*cache.Body, error) {
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	if validator != "" {
		req.Header.Set("If-Match", validator)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	if err := rest.CheckStatus(resp); err != nil {
		var refusal *rest.Error
		if errors.As(err, &refusal) {
			switch {
			case refusal.Status == http.StatusRequestedRangeNotSatisfiable:
				return nil, fmt.Errorf("%w: it is shorter than it was listed", cache.ErrChanged)
			case refusal.Status == http.StatusPreconditionFailed, refusal.Status == http.StatusNotFound && validator != "":
				return nil, fmt.Errorf("%w: %w", cache.ErrChanged, err)
			}
		}
		return nil, err
	}
	body, err := rangeBody(resp, off, n)
	if err != nil {
		resp.Body.Close()
	}
	return body, err
}

// expired tells whether an object store refuses a URL as one whose time is
// over: 403 by S3 and Azure, 400 or 401 by GCS.
func expired(err error) bool {
	var refusal *rest.Error
	return errors.As(err, &refusal) &&
		(refusal.Status == http.StatusForbidden || refusal.Status == http.StatusUnauthorized || refusal.Status == http.StatusBadRequest)
}

// escape encodes every segment of a path.
func escape(path string) string {
	parts := strings.Split(path, "/")
	for i, s := range parts {
		parts[i] = url.PathEscape(s)
	}
	return strings.Join(parts, "/")
}

// rangeBody holds the answer to a request for n bytes from off against its
// headers (RFC 9110, 14 and 15.3.7).
func rangeBody(resp *http.Response, off, n int64) (*cache.Body, error) {
	body := &cache.Body{ReadCloser: resp.Body, Total: -1, Sums: SumsOf(resp.Header)}
	if etag := resp.Header.Get("ETag"); !strings.HasPrefix(etag, "W/") {
		body.Validator = etag
	}
	if resp.StatusCode == http.StatusOK {
		body.Whole, body.Total = true, resp.ContentLength // -1 where it does not say
		return body, nil
	}
	_, _, total, err := parseContentRange(resp.Header.Get("Content-Range"))
	if err != nil {
		return nil, err
	}
	body.Total = total
	if total >= 0 && total < off+n {
		return body, nil // the cache sees a changed size
	}
	if err := heldTo(resp.Header.Get("Content-Range"), off, n); err != nil {
		return nil, err
	}
	if resp.ContentLength >= 0 && resp.ContentLength != n {
		return nil, fmt.Errorf("the server promised %d bytes and sends %d", n, resp.ContentLength)
	}
	return body, nil
}

// heldTo holds a Content-Range against what was asked for: n bytes from off.
func heldTo(contentRange string, off, n int64) error {
	first, last, _, err := parseContentRange(contentRange)
	if err == nil && (first != off || last != off+n-1) {
		err = fmt.Errorf("the server was asked for bytes %d-%d and answered with %d-%d", off, off+n-1, first, last)
	}
	return err
}

// parseContentRange reads "bytes 0-99/1234"; total is -1 for "*".
func parseContentRange(s string) (first, last, total int64, err error) {
	bad := fmt.Errorf("the server answered 206 with the Content-Range %q", s)
	rest, ok := strings.CutPrefix(s, "bytes ")
	if !ok {
		return 0, 0, 0, bad
	}
	span, size, ok1 := strings.Cut(rest, "/")
	from, to, ok2 := strings.Cut(span, "-")
	if !ok1 || !ok2 {
		return 0, 0, 0, bad
	}
	number := func(s string) int64 {
		n, perr := strconv.ParseUint(s, 10, 63)
		if perr != nil {
			err = bad
		}
		return int64(n)
	}
	first, last, total = number(from), number(to), -1
	if size != "*" {
		total = number(size)
	}
	if err == nil && (last < first || (total >= 0 && last >= total)) {
		err = bad
	}
	return first, last, total, err
}

// SumsOf are the checksums of a whole object that an object store's headers
// give: GCS's x-goog-hash, Azure's x-ms-blob-content-md5, and of S3 its
// CRC32C of the full object and the ETag where it is an MD5, which it is for
// an object of one part that no customer's key encrypts.
func SumsOf(h http.Header) (s cache.Sums) {
	for _, v := range h.Values("X-Goog-Hash") {
		for part := range strings.SplitSeq(v, ",") {
			kind, sum, _ := strings.Cut(strings.TrimSpace(part), "=")
			switch kind {
			case "md5":
				s.MD5 = decodeSum(sum, 16)
			case "crc32c":
				s.CRC32C = decodeCRC(sum)
			}
		}
	}
	if v := h.Get("X-Ms-Blob-Content-Md5"); v != "" {
		s.MD5 = decodeSum(v, 16)
	}
	if h.Get("X-Amz-Checksum-Type") == "FULL_OBJECT" {
		s.CRC32C = decodeCRC(h.Get("X-Amz-Checksum-Crc32c"))
	}
	if h.Get("X-Amz-Request-Id") != "" && h.Get("X-Goog-Generation") == "" {
		s.MD5 = MD5OfETag(h.Get("ETag"), h.Get("X-Amz-Server-Side-Encryption"), h.Get("X-Amz-Server-Side-Encryption-Customer-Algorithm"))
	}
	return s
}

// MD5OfETag is the MD5 that an S3 ETag is, or nil. encryption and customer are
// the headers x-amz-server-side-encryption and …-customer-algorithm.
func MD5OfETag(etag, encryption, customer string) []byte {
	etag = strings.Trim(etag, `"`)
	if len(etag) != 32 || (encryption != "" && encryption != "AES256") || customer != "" {
		return nil
	}
	b, err := hex.DecodeString(etag)
	if err != nil {
		return nil
	}
	return b
}

func decodeSum(s string, size int) []byte {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) != size {
		return nil
	}
	return b
}

func decodeCRC(s string) *uint32 {
	b := decodeSum(s, 4)
	if b == nil {
		return nil
	}
	n := binary.BigEndian.Uint32(b)
	return &n
}
