package rest

import (
	"cmp"
	"fmt"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/config"
	awscreds "github.com/aws/aws-sdk-go-v2/credentials"
)

// AWSUser is who asks AWS, and of which region, as botocore takes it from the environment
// and the files of ~/.aws. The credentials themselves are the SDK's to find.
type AWSUser struct {
	Profile AWSSection // the chosen one; nil where none is

	name  string // its name; empty: default
	files awsFiles
	env   Env
}

// ReadAWSUser reads the files below home, or those that the environment names. A profile
// that it names and that is in neither is an error.
func ReadAWSUser(env Env, home string) (u AWSUser, err error) {
	u.name, u.env = cmp.Or(env("AWS_DEFAULT_PROFILE"), env("AWS_PROFILE")), env
	if u.files, err = readAWSFiles(env, home); err != nil {
		return u, err
	}
	var ok bool
	if u.Profile, ok = u.files.profiles[cmp.Or(u.name, "default")]; !ok && u.name != "" {
		return u, fmt.Errorf("the AWS profile %q is not in the files of ~/.aws", u.name)
	}
	return u, nil
}

// Region is the region, which may be empty. botocore reads AWS_REGION nowhere: it comes
// last.
func (u AWSUser) Region() string {
	return cmp.Or(u.env("AWS_DEFAULT_REGION"), u.Profile["region"], u.env("AWS_REGION"))
}

// Bundle is the file or directory of certificates that AWS is trusted by; empty: the
// system's.
func (u AWSUser) Bundle() string {
	return cmp.Or(u.env("AWS_CA_BUNDLE"), u.Profile["ca_bundle"])
}

// Services is a section of the configuration that says where services are.
func (u AWSUser) Services(name string) (AWSSection, bool) {
	s, ok := u.files.services[name]
	return s, ok
}

// Login is the profile of an SSO session that the credentials begin with: the chosen one,
// or the source of its role. It is empty where they don't.
func (u AWSUser) Login() string {
	name := cmp.Or(u.name, "default")
	for range u.files.profiles { // which may lead to each other without end
		p := u.files.profiles[name]
		if p["sso_session"] != "" || p["sso_start_url"] != "" {
			return name
		}
		name = p["source_profile"]
	}
	return ""
}

// Options have the SDK find this user's credentials. A bundle of certificates that can't
// be read (AWS_CA_BUNDLE, ca_bundle) is no error until TLS is asked for.
func (u AWSUser) Options() []func(*config.LoadOptions) error {
	opts := []func(*config.LoadOptions) error{
		config.WithRegion(u.Region()),
		config.WithSharedConfigFiles([]string{u.files.config}), config.WithSharedCredentialsFiles([]string{u.files.credentials}),
	}
	if p := u.env("AWS_DEFAULT_PROFILE"); p != "" { // which the SDK reads behind AWS_PROFILE
		opts = append(opts, config.WithSharedConfigProfile(p))
	}
	if key, secret := u.env("AWS_ACCESS_KEY_ID"), u.env("AWS_SECRET_ACCESS_KEY"); key != "" && secret != "" { // which are taken before any profile's
		token := cmp.Or(u.env("AWS_SECURITY_TOKEN"), u.env("AWS_SESSION_TOKEN")) // botocore's order
		opts = append(opts, config.WithCredentialsProvider(awscreds.NewStaticCredentialsProvider(key, secret, token)))
	}
	if bundle := u.Bundle(); bundle != "" {
		if _, err := os.Stat(bundle); err != nil {
			opts = append(opts, TrustNobody())
		}
	}
	return opts
}

// who tells the user from others, without what is secret.
func (u AWSUser) who() string {
	return "AWS " + cmp.Or(u.env("AWS_ACCESS_KEY_ID"), u.name, "default")
}

// TrustNobody has the SDK look at no bundle of certificates, and trust none.
func TrustNobody() config.LoadOptionsFunc {
	return config.WithCustomCABundle(strings.NewReader(nobody))
}

// nobody is a certificate of nobody's, which has ended.
const nobody = `-----BEGIN CERTIFICATE-----
MIHOMIGBoAMCAQICAQEwBQYDK2VwMBExDzANBgNVBAMTBm5vYm9keTAeFw03MDAx
MDEwMDAwMDBaFw03MDAxMDEwMDAwMDFaMBExDzANBgNVBAMTBm5vYm9keTAqMAUG
AytlcAMhAHrxhuSwslZ8s08Yc084dPujsZ81q+pnFlOz7JM+dws5MAUGAytlcANB
AF5YhRuITRklUBfBYdMb3HEBvDPjEyvKnYZM9hepRNuTXTS4YWHcr28uLZpj8uAF
zrihaiDTs8XR4hX91djMxwQ=
-----END CERTIFICATE-----
`
