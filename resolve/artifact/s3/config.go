package s3

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Config is how buckets are asked for, as MLflow's S3ArtifactRepository and the
// botocore below it decide. Credentials are the SDK's to find.
type Config struct {
	Endpoint   string // a URL of one's own; empty: AWS's, of the region
	PathStyle  bool   // <endpoint>/<bucket>, and not <bucket>.<endpoint>
	Accelerate bool   // AWS's s3-accelerate hosts
	DualStack  bool   // AWS's hosts with IPv6
	Region     string
	Unsigned   bool   // no signature, and so no credentials
	Owner      string // the account that must own a bucket; empty: any
	Login      string // the profile that `aws sso login` logs in to; empty: none does
	CABundle   string // a file or directory (rest.ReadCAs) that is trusted in place of the system's; empty: the system's
	NoBundle   bool   // none is looked at: the endpoint has no TLS, or any will do
	AnyTLS     bool   // certificates are not looked at

	user rest.AWSUser
	lent aws.CredentialsProvider // in the place of the user's own; nil: the user's
}

// FromEnv reads the configuration from the environment, and from the files
// below home that it names.
func FromEnv(env rest.Env, home string) (Config, error) {
	user, err := rest.ReadAWSUser(env, home)
	if err != nil {
		return Config{}, err
	}
	profile := user.Profile
	c := Config{
		Region:   cmp.Or(user.Region(), "us-east-1"),
		Owner:    env("MLFLOW_S3_EXPECTED_BUCKET_OWNER"),
		Login:    user.Login(),
		CABundle: cmp.Or(user.Bundle(), env("REQUESTS_CA_BUNDLE")),
		AnyTLS:   rest.Truthy(env("MLFLOW_S3_IGNORE_TLS")),
		user:     user,
	}
	if c.Endpoint, err = endpoint(env, user); err != nil {
		return Config{}, err
	}
	if c.AnyTLS || strings.HasPrefix(strings.ToLower(c.Endpoint), "http://") {
		c.CABundle, c.NoBundle = "", true // botocore does not look at it, be it there or not
	}
	if err := c.sign(env("MLFLOW_EXPERIMENTAL_S3_SIGNATURE_VERSION")); err != nil {
		return Config{}, err
	}
	c.Accelerate = isTrue(profile["s3.use_accelerate_endpoint"])
	c.DualStack = isTrue(cmp.Or(profile["s3.use_dualstack_endpoint"], env("AWS_USE_DUALSTACK_ENDPOINT"), profile["use_dualstack_endpoint"]))
	return c, c.address(env("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE"))
}

// endpoint finds the URL that is configured (botocore.configprovider,
// ConfiguredEndpointProvider).
func endpoint(env rest.Env, user rest.AWSUser) (string, error) {
	profile := user.Profile
	own := env("MLFLOW_S3_ENDPOINT_URL")
	if own == "" && !isTrue(cmp.Or(env("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"), profile["ignore_configured_endpoint_urls"])) {
		own = cmp.Or(env("AWS_ENDPOINT_URL_S3"), env("AWS_ENDPOINT_URL"))
		if of := profile["services"]; own == "" && of != "" {
			services, ok := user.Services(of)
			if !ok {
				return "", fmt.Errorf("the AWS profile names the services section %q, which is not in the configuration file", of)
			}
			own = services["s3.endpoint_url"]
		}
		own = cmp.Or(own, profile["endpoint_url"])
	}
	if own == "" {
		return "", nil
	}
	if u, err := url.Parse(own); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("the S3 endpoint %q is no URL: it must be http(s)://host:port", rest.Redact(own))
	}
	return own, nil
}

// sign takes the signature's version. botocore takes AWS's first ones, too,
// which the SDK does not know.
func (c *Config) sign(version string) error {
	switch {
	case strings.EqualFold(version, "unsigned"):
		c.Unsigned = true
	case version != "" && version != "s3v4":
		return fmt.Errorf("MLFLOW_EXPERIMENTAL_S3_SIGNATURE_VERSION is %q: it must be s3v4 or unsigned", version)
	}
	return nil
}

// address takes MLflow's addressing style, which is auto where none is set: the
// one of ~/.aws/config counts for nothing (botocore.args,
// compute_endpoint_resolver_builtin_defaults).
func (c *Config) address(style string) error {
	switch style = cmp.Or(style, "auto"); style {
	case "auto", "path", "virtual":
	default:
		return fmt.Errorf("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE is %q: it must be auto, path or virtual", style)
	}
	switch {
	case c.Accelerate:
	case c.Endpoint != "" && !accelerates(c.Endpoint):
		c.PathStyle = style != "virtual"
	default:
		c.PathStyle = style == "path"
	}
	return nil
}

// accelerates tells whether an endpoint is one of AWS's s3-accelerate hosts
// (botocore.utils.is_s3_accelerate_url).
func accelerates(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	labels, ok := strings.CutSuffix(u.Hostname(), ".amazonaws.com")
	return ok && (labels == "s3-accelerate" || labels == "s3-accelerate.dualstack")
}

// isTrue reads a boolean as botocore does.
func isTrue(s string) bool { return strings.EqualFold(s, "true") }
