// Package s3 opens S3 buckets, and those of services that speak S3, for
// [artifact.NewBlob].
package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"gocloud.dev/blob"
	"gocloud.dev/blob/s3blob"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/mlflow"
)

// Driver opens buckets with AWS's own environment and profiles, and what
// MLflow's S3ArtifactRepository reads besides: MLFLOW_S3_ENDPOINT_URL,
// MLFLOW_S3_IGNORE_TLS, MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE.
type Driver struct {
	Settings mlflow.Settings
	Env      mlflow.Env
}

// Open opens the bucket of an s3:// URI.
func (d Driver) Open(ctx context.Context, bucket string) (*artifact.Bucket, error) {
	endpoint := d.Env("MLFLOW_S3_ENDPOINT_URL")
	path := endpoint != ""
	switch d.Env("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE") {
	case "path":
		path = true
	case "virtual":
		path = false
	}
	return d.bucket(ctx, bucket, endpoint, "", path)
}

// OpenHosted opens <bucket>@<host>, as r2:// and b2:// URIs name an S3 service
// (mlflow.store.artifact.r2_artifact_repo and b2_artifact_repo). A tracking
// server may have chosen the URI, and a session token goes to its host: that
// must be one of the service's domain, or the one that the user's own
// environment names.
func (d Driver) OpenHosted(domain string, path bool) artifact.OpenBucket {
	return func(ctx context.Context, place string) (*artifact.Bucket, error) {
		bucket, host, ok := strings.Cut(place, "@")
		if !ok || bucket == "" || host == "" {
			return nil, fmt.Errorf("the URI must name its bucket and its host: <bucket>@<host>%s, and not %q", domain, place)
		}
		region := "us-east-1" // which R2 takes for its one region
		if inner, ok := strings.CutSuffix(host, domain); !ok {
			own, err := url.Parse(d.Env("MLFLOW_S3_ENDPOINT_URL"))
			if err != nil || own.Scheme != "https" || own.Host != host {
				return nil, fmt.Errorf("the host %s is not in the domain %s, and credentials are sent to no other; if it is yours, set MLFLOW_S3_ENDPOINT_URL=https://%s", host, strings.TrimPrefix(domain, "."), host)
			}
			path = true
		} else if of, ok := strings.CutPrefix(inner, "s3."); ok {
			region = of // s3.<region>.backblazeb2.com
		}
		return d.bucket(ctx, bucket, "https://"+host, region, path)
	}
}

func (d Driver) bucket(ctx context.Context, bucket, endpoint, inRegion string, pathStyle bool) (*artifact.Bucket, error) {
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		d.Settings.Tune(t)
		if mlflow.Truthy(d.Env("MLFLOW_S3_IGNORE_TLS")) {
			t.TLSClientConfig.InsecureSkipVerify = true
		}
	})
	opts := []func(*config.LoadOptions) error{
		config.WithHTTPClient(client), config.WithRetryMaxAttempts(1 + d.Settings.Retries),
		config.WithLogger(logging.Nop{}), // what matters of it is in the errors
	}
	if inRegion != "" {
		opts = append(opts, config.WithRegion(inRegion))
	}
	w := artifact.WatchCredentials(ctx, d.Settings, "AWS credentials")
	conf, err := config.LoadDefaultConfig(w.Context(), opts...)
	if err == nil && conf.Credentials != nil {
		_, err = conf.Credentials.Retrieve(w.Context())
		if err != nil {
			err = artifact.NoCredentials(fmt.Sprintf("no AWS credentials were found (%v): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE", err))
		}
	}
	if w.End(err) != nil {
		return nil, err
	}
	if conf.Region == "" {
		conf.Region = "us-east-1" // as boto3
	}
	api := s3.NewFromConfig(conf, func(o *s3.Options) {
		if endpoint != "" {
			o.BaseEndpoint = aws.String(endpoint)
		}
		o.UsePathStyle = pathStyle
		// Checksums are held against the file where it is whole; a CRC of each
		// range by the SDK would be a second pass over it.
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.DisableLogOutputChecksumValidationSkipped = true
	})
	b, err := s3blob.OpenBucket(ctx, api, bucket, nil)
	if err != nil {
		return nil, err
	}
	var region homeRegion
	return &artifact.Bucket{
		Bucket:   b,
		Settings: d.Settings,
		Again:    region.learn,
		BeforeList: func(as func(any) bool, prefix string) error {
			var in *s3.ListObjectsV2Input
			if !as(&in) || !region.apply(as) {
				return artifact.ErrDriver
			}
			if prefix != "" {
				in.Prefix = aws.String(prefix)
			}
			return nil
		},
		Object: func(o *blob.ListObject) (key, version string) {
			var obj types.Object
			var dir types.CommonPrefix
			switch {
			case !o.IsDir && o.As(&obj):
				return aws.ToString(obj.Key), aws.ToString(obj.ETag)
			case o.IsDir && o.As(&dir):
				return aws.ToString(dir.Prefix), ""
			}
			return o.Key, ""
		},
		BeforeRead: func(as func(any) bool, key, version string) error {
			var in *s3.GetObjectInput
			if !as(&in) || !region.apply(as) {
				return artifact.ErrDriver
			}
			in.Key = aws.String(key)
			if version != "" {
				in.IfMatch = aws.String(version)
			}
			return nil
		},
		Answer: func(r *blob.Reader) artifact.Answer {
			a := artifact.Answer{Size: r.Size()}
			var out s3.GetObjectOutput
			if r.As(&out) {
				a.ContentRange, a.Version = aws.ToString(out.ContentRange), aws.ToString(out.ETag)
				a.MD5 = artifact.MD5OfETag(a.Version, string(out.ServerSideEncryption), aws.ToString(out.SSECustomerAlgorithm))
			}
			return a
		},
		Refusal: func(err error) (status int, code, words string) {
			var answer *smithyhttp.ResponseError
			if !errors.As(err, &answer) {
				return 0, "", ""
			}
			var said smithy.APIError
			if errors.As(err, &said) {
				code, words = said.ErrorCode(), said.ErrorMessage()
			}
			if status = answer.HTTPStatusCode(); status == http.StatusNotFound && strings.Contains(code, "User") {
				status = http.StatusForbidden // versitygw, of an access key that nobody has
			}
			return status, code, words
		},
	}, nil
}

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
