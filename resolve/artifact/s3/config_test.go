package s3

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestConfigIsReadFromTheEnvironment fails when a variable or a line of ~/.aws gives the
// driver another endpoint, region, addressing style or profile than it names, or when a
// value that can't be is taken.
func TestConfigIsReadFromTheEnvironment(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		name = filepath.Join(home, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		return name
	}
	write(".aws/config", "[default]\nregion = eu-west-3\n[profile dev]\nendpoint_url = https://dev.example\nca_bundle = /ca.pem\nsource_profile = login\n[profile login]\nsso_session = corp\n"+
		"[profile loop]\nsource_profile = loop\n[profile fast]\ns3 =\n  use_accelerate_endpoint = true\n  use_dualstack_endpoint = true\n")
	other := write("other", "[default]\nregion = cn-north-1\n")
	for name, c := range map[string]struct {
		env   map[string]string
		want  Config
		wrong string // what the error says
	}{
		"nothing set":            {map[string]string{"AWS_CONFIG_FILE": "/nowhere"}, Config{Region: "us-east-1"}, ""},
		"~/.aws/config":          {map[string]string{"AWS_REGION": "us-west-2"}, Config{Region: "eu-west-3"}, ""},
		"another file":           {map[string]string{"AWS_CONFIG_FILE": other}, Config{Region: "cn-north-1"}, ""},
		"region":                 {map[string]string{"AWS_DEFAULT_REGION": "us-west-1"}, Config{Region: "us-west-1"}, ""},
		"endpoint":               {map[string]string{"MLFLOW_S3_ENDPOINT_URL": "https://a", "AWS_ENDPOINT_URL_S3": "https://b"}, Config{Region: "eu-west-3", Endpoint: "https://a", PathStyle: true}, ""},
		"virtual":                {map[string]string{"AWS_ENDPOINT_URL": "https://a", "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "virtual"}, Config{Region: "eu-west-3", Endpoint: "https://a"}, ""},
		"path":                   {map[string]string{"MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "path"}, Config{Region: "eu-west-3", PathStyle: true}, ""},
		"plain HTTP":             {map[string]string{"AWS_ENDPOINT_URL": "http://a", "AWS_CA_BUNDLE": "/ca"}, Config{Region: "eu-west-3", Endpoint: "http://a", PathStyle: true, NoBundle: true}, ""},
		"a role after a log-in":  {map[string]string{"AWS_DEFAULT_PROFILE": "dev"}, Config{Region: "us-east-1", Endpoint: "https://dev.example", PathStyle: true, Login: "login", CABundle: "/ca.pem"}, ""},
		"a role of itself":       {map[string]string{"AWS_PROFILE": "loop"}, Config{Region: "us-east-1"}, ""},
		"accelerated, with IPv6": {map[string]string{"AWS_PROFILE": "fast"}, Config{Region: "us-east-1", Accelerate: true, DualStack: true}, ""},
		"public": {map[string]string{"MLFLOW_EXPERIMENTAL_S3_SIGNATURE_VERSION": "unsigned", "MLFLOW_S3_EXPECTED_BUCKET_OWNER": "1", "MLFLOW_S3_IGNORE_TLS": "true"},
			Config{Region: "eu-west-3", Unsigned: true, Owner: "1", AnyTLS: true, NoBundle: true}, ""},
		"no profile":   {map[string]string{"AWS_PROFILE": "gone"}, Config{}, `"gone"`},
		"no URL":       {map[string]string{"AWS_ENDPOINT_URL": "minio:9000"}, Config{}, "is no URL"},
		"no style":     {map[string]string{"MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "odd"}, Config{}, "must be auto, path or virtual"},
		"no signature": {map[string]string{"MLFLOW_EXPERIMENTAL_S3_SIGNATURE_VERSION": "s3"}, Config{}, "must be s3v4 or unsigned"},
	} {
		got, err := FromEnv(func(name string) string { return c.env[name] }, home)
		if c.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if d := cmp.Diff(c.want, got, cmpopts.IgnoreUnexported(Config{})); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, d)
		}
	}
}
