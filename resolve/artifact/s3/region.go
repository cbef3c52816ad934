package s3

import (
	"errors"
	"net/http"
	"regexp"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// homeRegion is the region that a bucket lies in, where it is another than the
// configured one: S3 says so, and boto3's clients follow it.
type homeRegion struct{ name atomic.Value }

var expecting = regexp.MustCompile(`expecting ['"]([a-z0-9-]+)['"]`)

// learn tells whether err says which region to ask in.
func (r *homeRegion) learn(err error) bool {
	var answer *smithyhttp.ResponseError
	var said smithy.APIError
	if !errors.As(err, &answer) || !errors.As(err, &said) {
		return false
	}
	if status := answer.HTTPStatusCode(); status != http.StatusMovedPermanently && said.ErrorCode() != "AuthorizationHeaderMalformed" {
		return false
	}
	name := answer.Response.Header.Get("X-Amz-Bucket-Region")
	if m := expecting.FindStringSubmatch(said.ErrorMessage()); name == "" && m != nil {
		name = m[1]
	}
	if name != "" {
		r.name.Store(name)
	}
	return name != ""
}

// apply puts the region into a request.
func (r *homeRegion) apply(as func(any) bool) bool {
	name, ok := r.name.Load().(string)
	if !ok {
		return true
	}
	var opts *[]func(*s3.Options)
	if !as(&opts) {
		return false
	}
	*opts = append(*opts, func(o *s3.Options) { o.Region = name })
	return true
}
