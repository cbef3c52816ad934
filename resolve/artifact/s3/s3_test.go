package s3

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// asked is what matters of a request for a listing, and of one for a file.
type asked struct {
	Error                       bool
	List, File                  string // host and path, decoded
	Signed                      string // the region that it is signed for, or nothing
	Owner, ListPrefix, Encoding string
}

// environment is one in which buckets are asked for.
type environment struct {
	Env    map[string]string `json:"env"`
	Files  map[string]string `json:"files"`
	Bucket string            `json:"bucket"`
	Root   string            `json:"root"`
}

// some makes an environment of variables and files that may contradict each other.
func some(r *rand.Rand) environment {
	e := environment{Env: map[string]string{}, Files: map[string]string{}}
	of := func(values ...string) string { return values[r.IntN(len(values))] }
	maybe := func(name string, values ...string) {
		if r.IntN(3) == 0 {
			e.Env[name] = of(values...)
		}
	}
	endpoints := []string{"http://localhost:9000", "https://minio.example/", "http://10.0.0.1:81", "https://s3-accelerate.amazonaws.com", "https://gw.example/pre/fix"}
	maybe("MLFLOW_S3_ENDPOINT_URL", endpoints...)
	maybe("AWS_ENDPOINT_URL", endpoints...)
	maybe("AWS_ENDPOINT_URL_S3", endpoints...)
	maybe("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true", "false", "TRUE")
	maybe("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "auto", "path", "virtual", "virtual", "nonsense")
	maybe("MLFLOW_EXPERIMENTAL_S3_SIGNATURE_VERSION", "unsigned", "UNSIGNED", "s3v4")
	maybe("MLFLOW_S3_EXPECTED_BUCKET_OWNER", "123456789012")
	maybe("AWS_DEFAULT_REGION", "eu-west-3", "us-east-1", "cn-north-1")
	maybe("AWS_PROFILE", "default", "dev", "missing")
	maybe("AWS_DEFAULT_PROFILE", "dev")
	block := func(name string) string {
		var b strings.Builder
		fmt.Fprintf(&b, "[%s]\n# a comment\n", name)
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, "Region %s %s\n", of("=", ":"), of("us-west-2", "eu-central-1"))
		}
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, "endpoint_url=%s\n", of(endpoints...))
		}
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, "services = %s\n", of("mine", "mine", "none"))
		}
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, "s3 =\n  addressing_style = %s\n\n  ; another\n  use_dualstack_endpoint = %s\n", of("path", "virtual"), of("true", "false"))
		}
		if r.IntN(4) == 0 {
			fmt.Fprintf(&b, "ignore_configured_endpoint_urls = %s\n", of("true", "false"))
		}
		if r.IntN(5) == 0 { // what configparser takes as it is, puts together, or refuses
			b.WriteString(of("  services = mine ; none\n", "addressing = a\n  b\n", "endpoint_url =\n\n  http://no.block:9\n", "endpoint_url = http://twice:9\nEndpoint_url = http://twice:9\n", "alone\n"))
		}
		return b.String()
	}
	if r.IntN(2) == 0 {
		e.Files["config"] = block("default") + block("profile dev") + "[services mine]\ns3 =\n  endpoint_url = http://of.services:9\nec2 =\n  endpoint_url = http://not.this\n[dev]\nendpoint_url = http://no.profile\n"
	}
	if r.IntN(4) == 0 {
		keys := "aws_access_key_id = OTHER\naws_secret_access_key = other\n"
		e.Files["credentials"] = block("default") + keys + block("dev") + keys
	}
	e.Bucket = of("bkt", "dotted.bucket", "Upper_Case")
	e.Root = of("a/b", "a//b", "a b+c/é", "x=y&z", "a/./b", "a/../b")
	return e
}

var (
	region   = regexp.MustCompile(`Credential=[^/]+/[0-9]+/([a-z0-9-]+)/`)
	nameless = strings.NewReplacer("s3.us-east-1.amazonaws.com", "s3.amazonaws.com", "s3.dualstack.us-east-1.", "s3.dualstack.us-east-1.")
)

// see adds a request to what is asked.
func (a *asked) see(u *url.URL, header func(string) string) {
	at := nameless.Replace(u.Host) + strings.TrimSuffix(u.Path, "/")
	a.Signed, a.Owner = "", header("x-amz-expected-bucket-owner")
	if m := region.FindStringSubmatch(header("authorization")); m != nil {
		a.Signed = m[1]
	}
	if q := u.Query(); q.Has("list-type") {
		a.List, a.ListPrefix, a.Encoding = at, q.Get("prefix"), q.Get("encoding-type")
	} else {
		a.File = at
	}
}

// recorder answers each request itself.
type recorder struct{ asked asked }

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	r.asked.see(req.URL, req.Header.Get)
	body := ""
	if req.URL.Query().Has("list-type") {
		body = `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated></ListBucketResult>`
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Etag": {`"x"`}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req}, nil
}

// ours is what we ask for in an environment.
func ours(t *testing.T, home string, e environment) (asked, error) {
	t.Helper()
	for _, name := range []string{"config", "credentials"} {
		if err := os.WriteFile(filepath.Join(home, ".aws", name), []byte(e.Files[name]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for k, v := range e.Env {
		t.Setenv(k, v)
	}
	r := &recorder{}
	d := Driver{Settings: rest.Settings{Silence: time.Minute}, Env: os.Getenv, Home: home, transport: r}
	b, err := d.Open(t.Context(), e.Bucket)
	if err != nil {
		return asked{Error: true}, err
	}
	store := artifact.NewBlob("s3://x", e.Root, func(context.Context, bool) (*artifact.Bucket, error) { return b, nil })
	if _, err := store.List(t.Context(), ""); err != nil {
		return asked{Error: true}, err
	}
	if body, err := store.ReadRange(t.Context(), "f", 0, 1, ""); err == nil {
		body.Close()
	}
	return r.asked, nil
}

// theirs is what MLflow's client asks for in each of the environments.
func theirs(t *testing.T, home string, all []environment) (out []asked, words []string) {
	t.Helper()
	dir := cmp.Or(os.Getenv("MLFLOWFS_TESTENV"), "../../../.testenv")
	in, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(filepath.Join(dir, "mlflow3", "bin", "python"), "../../../test/botocore_s3.py")
	c.Stdin, c.Stderr = bytes.NewReader(in), os.Stderr
	said, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	var answers []struct {
		Error    string
		Requests []struct {
			URL     string
			Headers map[string]string
		}
	}
	if err := json.Unmarshal(said[bytes.LastIndexByte(bytes.TrimSpace(said), '\n')+1:], &answers); err != nil || len(answers) != len(all) {
		t.Fatal(len(answers), err)
	}
	for _, answer := range answers {
		a := asked{Error: answer.Error != ""}
		for _, r := range answer.Requests {
			u, err := url.Parse(r.URL)
			if err != nil {
				t.Fatal(err)
			}
			a.see(u, func(name string) string { return r.Headers[name] })
		}
		out, words = append(out, a), append(words, answer.Error)
	}
	return out, words
}

// TestBucketsAreAskedForAsBotocoreDoesAgainstBotocore fails when some environment, or
// files in ~/.aws, make us ask another host than MLflow's own client asks, by path or
// by host where it does not, with a signature or an expected owner or without where it
// does not, or for another key.
func TestBucketsAreAskedForAsBotocoreDoesAgainstBotocore(t *testing.T) {
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") || strings.HasPrefix(name, "MLFLOW_") || name == "REQUESTS_CA_BUNDLE" {
			t.Setenv(name, "") // put back at the end
			os.Unsetenv(name)
		}
	}
	for name, value := range map[string]string{"HOME": home, "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_EC2_METADATA_DISABLED": "true"} {
		t.Setenv(name, value)
	}
	r := rand.New(rand.NewPCG(17, 1))
	all := make([]environment, 150)
	for i := range all {
		all[i] = some(r)
	}
	want, words := theirs(t, home, all)
	errs := 0
	for i, e := range all {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if got, err := ours(t, home, e); got != want[i] {
				t.Errorf("%v\n%s\n%s\nours   %+v %v\ntheirs %+v %s", e.Env, e.Files["config"], e.Files["credentials"], got, err, want[i], words[i])
			}
		})
		if want[i].Error {
			errs++
		}
	}
	if errs > len(all)/2 {
		t.Errorf("%d of %d environments are wrong ones", errs, len(all))
	}
}
