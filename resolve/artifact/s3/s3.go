// Package s3 opens S3 buckets, and those of services that speak S3, for
// [artifact.NewBlob].
package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"gocloud.dev/blob"
	"gocloud.dev/blob/s3blob"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Driver opens buckets with the credentials that AWS's SDK finds, each time as
// the environment says then; see [FromEnv].
type Driver struct {
	Settings rest.Settings
	Env      rest.Env
	Home     string // the user's home directory

	transport http.RoundTripper // nil: one of its own
}

// Open opens the bucket of an s3:// URI.
func (d Driver) Open(ctx context.Context, bucket string) (*artifact.Bucket, error) {
	conf, err := FromEnv(d.Env, d.Home)
	if err != nil {
		return nil, err
	}
	return d.open(ctx, bucket, conf)
}

// OpenLent opens the bucket of an s3:// URI with credentials that are lent, where the
// user's configuration says that S3 is.
func (d Driver) OpenLent(ctx context.Context, bucket string, with rest.Lent) (*artifact.Bucket, error) {
	conf, err := FromEnv(d.Env, d.Home)
	if err != nil {
		return nil, err
	}
	return d.openLent(ctx, bucket, conf, with)
}

// OpenLentR2 opens <bucket>@<host> of an r2:// URI so.
func (d Driver) OpenLentR2(ctx context.Context, place string, with rest.Lent) (*artifact.Bucket, error) {
	bucket, conf, err := d.hosted(place, R2, false)
	if err != nil {
		return nil, err
	}
	return d.openLent(ctx, bucket, conf, with)
}

func (d Driver) openLent(ctx context.Context, bucket string, conf Config, with rest.Lent) (*artifact.Bucket, error) {
	if with.Key == "" {
		return nil, errors.New("it is no key of S3's, and the files lie there")
	}
	conf.lent = credentials.NewStaticCredentialsProvider(with.Key, with.Secret, with.Session)
	return d.open(ctx, bucket, conf)
}

// R2 and B2 are the domains of services that speak S3.
const (
	R2 = ".r2.cloudflarestorage.com"
	B2 = ".backblazeb2.com"
)

// OpenHosted opens <bucket>@<host>, as r2:// and b2:// URIs name an S3 service
// (mlflow.store.artifact.r2_artifact_repo and b2_artifact_repo). A tracking
// server may have chosen the URI, and a session token goes to its host: that
// must be one of the service's domain, or the one that the user's own
// environment names.
func (d Driver) OpenHosted(domain string, pathStyle bool) artifact.OpenBucket {
	return func(ctx context.Context, place string) (*artifact.Bucket, error) {
		bucket, conf, err := d.hosted(place, domain, pathStyle)
		if err != nil {
			return nil, err
		}
		return d.open(ctx, bucket, conf)
	}
}

func (d Driver) hosted(place, domain string, pathStyle bool) (bucket string, conf Config, err error) {
	bucket, host, ok := strings.Cut(place, "@")
	if !ok || !bucketName.MatchString(bucket) || !hostName.MatchString(host) {
		return "", conf, fmt.Errorf("the URI must name its bucket and its host: <bucket>@<host>%s, and not %q", domain, place)
	}
	if conf, err = FromEnv(d.Env, d.Home); err != nil {
		return "", conf, err
	}
	own := conf.Endpoint
	conf.Endpoint, conf.Accelerate, conf.DualStack = "https://"+host, false, false
	conf.PathStyle = pathStyle
	conf.Region = "us-east-1" // which R2 takes for its one region
	if inner, ok := strings.CutSuffix(host, domain); !ok {
		if own != conf.Endpoint {
			return "", conf, fmt.Errorf("the host %s is not in the domain %s, and credentials are sent to no other; if it is yours, set MLFLOW_S3_ENDPOINT_URL=https://%s", host, strings.TrimPrefix(domain, "."), host)
		}
		conf.PathStyle = true
	} else if of, ok := strings.CutPrefix(inner, "s3."); ok {
		conf.Region = of // s3.<region>.backblazeb2.com
	}
	return bucket, conf, nil
}

// A bucket's and a host's name have nothing in them that ends a host in a URL.
var (
	bucketName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	hostName   = regexp.MustCompile(`^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?$`)
)

// client makes an SDK's client, with credentials where there are to be any.
func (d Driver) client(ctx context.Context, c Config) (*s3.Client, error) {
	var sender config.HTTPClient = awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		d.Settings.Tune(t)
		t.TLSClientConfig.InsecureSkipVerify = c.AnyTLS
	})
	if d.transport != nil {
		sender = &http.Client{Transport: d.transport}
	}
	opts := []func(*config.LoadOptions) error{
		config.WithHTTPClient(sender), config.WithRetryMaxAttempts(1 + d.Settings.Retries),
		config.WithLogger(logging.Nop{}), // what matters of it is in the errors
		config.WithAPIOptions([]func(*middleware.Stack) error{shortAnswers}),
	}
	opts = append(append(opts, c.user.Options()...), config.WithRegion(c.Region))
	if c.CABundle != "" {
		trusted, err := rest.ReadCAs(c.CABundle)
		if err != nil {
			return nil, fmt.Errorf("the bundle of certificates (AWS_CA_BUNDLE, ca_bundle, REQUESTS_CA_BUNDLE): %w", err)
		}
		opts = append(opts, config.WithCustomCABundle(bytes.NewReader(trusted)))
	} else if c.NoBundle && d.transport == nil { // else the SDK wants the one that AWS_CA_BUNDLE or the profile names
		opts = append(opts, rest.TrustNobody())
	}
	if c.lent != nil {
		opts = append(opts, config.WithCredentialsProvider(c.lent))
	}
	if c.Unsigned {
		opts = append(opts, config.WithCredentialsProvider(aws.AnonymousCredentials{}))
	}
	w := artifact.WatchCredentials(ctx, d.Settings, "AWS credentials")
	conf, err := config.LoadDefaultConfig(w.Context(), opts...)
	if err == nil && !c.Unsigned && conf.Credentials != nil {
		_, err = conf.Credentials.Retrieve(w.Context())
		if err != nil {
			err = c.noCredentials(err)
		}
	}
	if w.End(err) != nil {
		return nil, err
	}
	return s3.NewFromConfig(conf, c.apply, func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, noteClock(d.Settings.Clocks))
	}), nil
}

// noCredentials says what to do where the SDK finds none.
func (c Config) noCredentials(err error) error {
	if c.Login != "" && strings.Contains(err.Error(), "SSO") { // the SDK has no type for most of these errors
		return artifact.NoCredentials(fmt.Sprintf("the SSO session of the AWS profile %q gives no credentials (%v): run `aws sso login --profile %s`", c.Login, err, c.Login))
	}
	return artifact.NoCredentials(fmt.Sprintf("no AWS credentials were found (%v): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; a public bucket needs none with MLFLOW_EXPERIMENTAL_S3_SIGNATURE_VERSION=unsigned", err))
}

// apply makes an SDK's client one of this configuration.
func (c Config) apply(o *s3.Options) {
	o.BaseEndpoint = nil
	o.UsePathStyle, o.UseAccelerate = c.PathStyle, c.Accelerate
	o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateDisabled
	if c.Endpoint != "" {
		o.BaseEndpoint = aws.String(c.Endpoint)
		o.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateDisabled // AWS's own hosts alone have one
	} else if c.DualStack {
		o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
	}
	// Checksums are held against the file where it is whole; a CRC of each
	// range by the SDK would be a second pass over it.
	o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	o.DisableLogOutputChecksumValidationSkipped = true
	o.APIOptions = append(o.APIOptions, func(s *middleware.Stack) error { return s.Initialize.Add(decodeKeys, middleware.Before) })
}

func (d Driver) open(ctx context.Context, bucket string, conf Config) (*artifact.Bucket, error) {
	api, err := d.client(ctx, conf)
	if err != nil {
		return nil, err
	}
	b, err := s3blob.OpenBucket(ctx, api, bucket, nil)
	if err != nil {
		return nil, err
	}
	asked := &bucketOf{}
	if conf.Owner != "" {
		asked.owner = aws.String(conf.Owner)
	}
	return &artifact.Bucket{
		Bucket: b, Settings: d.Settings, Again: asked.region.learn,
		BeforeList: asked.beforeList, BeforeRead: asked.beforeRead,
		Object: object, Answer: answer, Refusal: refusal,
	}, nil
}

// bucketOf is what each request for a bucket says.
type bucketOf struct {
	owner  *string // nil: whoever it is
	region homeRegion
}

func (b *bucketOf) beforeList(as func(any) bool, prefix string) error {
	var in *s3.ListObjectsV2Input
	if !as(&in) || !b.region.apply(as) {
		return artifact.ErrDriver
	}
	if prefix != "" {
		in.Prefix = aws.String(prefix)
	}
	in.EncodingType, in.ExpectedBucketOwner = types.EncodingTypeUrl, b.owner
	return nil
}

func (b *bucketOf) beforeRead(as func(any) bool, key, version string) error {
	var in *s3.GetObjectInput
	if !as(&in) || !b.region.apply(as) {
		return artifact.ErrDriver
	}
	in.Key, in.ExpectedBucketOwner = aws.String(key), b.owner
	if version != "" {
		in.IfMatch = aws.String(version)
	}
	return nil
}

func object(o *blob.ListObject) (key, version string) {
	var obj types.Object
	var dir types.CommonPrefix
	switch {
	case !o.IsDir && o.As(&obj):
		return aws.ToString(obj.Key), aws.ToString(obj.ETag)
	case o.IsDir && o.As(&dir):
		return aws.ToString(dir.Prefix), ""
	}
	return o.Key, ""
}

func answer(r *blob.Reader) artifact.Answer {
	a := artifact.Answer{Size: r.Size()}
	var out s3.GetObjectOutput
	if r.As(&out) {
		a.ContentRange, a.Version = aws.ToString(out.ContentRange), aws.ToString(out.ETag)
		a.MD5 = artifact.MD5OfETag(a.Version, string(out.ServerSideEncryption), aws.ToString(out.SSECustomerAlgorithm))
	}
	return a
}

func refusal(err error) (status int, code, words string) {
	var failed *smithyhttp.ResponseError
	if !errors.As(err, &failed) {
		return 0, "", ""
	}
	var said smithy.APIError
	if errors.As(err, &said) {
		code, words = said.ErrorCode(), said.ErrorMessage()
	}
	if status = failed.HTTPStatusCode(); status == http.StatusNotFound && strings.Contains(code, "User") {
		status = http.StatusForbidden // versitygw, of an access key that nobody has
	}
	return status, code, words
}
