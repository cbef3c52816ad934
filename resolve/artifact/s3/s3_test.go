package s3

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
	"github.com/mlflowfs/mlflowfs/test/anykey"
	"github.com/mlflowfs/mlflowfs/test/draw"
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
	draw.Environment
	Bucket string `json:"bucket"`
	Root   string `json:"root"`
}

// some makes an environment of variables and files that may contradict each other.
func some(d draw.Draw, home string) environment {
	e := environment{Environment: draw.NewEnvironment(home)}
	d.AWS(&e.Environment, "http://localhost:9000", "https://minio.example/", "http://10.0.0.1:81", "https://s3-accelerate.amazonaws.com", "https://gw.example/pre/fix")
	e.Bucket = d.One("bkt", "dotted.bucket", "Upper_Case")
	e.Root = d.One("a/b", "a//b", "a b+c/é", "x=y&z", "a/./b", "a/../b")
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
	for _, name := range []string{".aws/config", ".aws/credentials"} {
		if e.Files[name] == "" {
			e.Files[name] = "\n" // in the place of the last environment's
		}
	}
	if err := e.Write(); err != nil {
		t.Fatal(err)
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

// answered is what test/botocore_s3.py tells of an environment.
type answered struct {
	Error    string
	Requests []struct {
		URL     string
		Headers map[string]string
	}
}

// askBotocore has MLflow's client ask for a bucket in each of the environments.
func askBotocore(t *testing.T, all []environment) (answers []answered) {
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
	if err := json.Unmarshal(said[bytes.LastIndexByte(bytes.TrimSpace(said), '\n')+1:], &answers); err != nil || len(answers) != len(all) {
		t.Fatal(len(answers), err)
	}
	return answers
}

// theirs is what MLflow's client asks for in each of the environments.
func theirs(t *testing.T, all []environment) (out []asked, words []string) {
	t.Helper()
	for _, answer := range askBotocore(t, all) {
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

// bare has the process be that of a user who has set nothing of AWS's or MLflow's.
func bare(t *testing.T, home string) {
	t.Helper()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") || strings.HasPrefix(name, "MLFLOW_") || name == "REQUESTS_CA_BUNDLE" {
			t.Setenv(name, "") // put back at the end
			os.Unsetenv(name)
		}
	}
	t.Setenv("HOME", home)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	if err := os.Mkdir(filepath.Join(home, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// TestBucketsAreAskedForAsBotocoreDoesAgainstBotocore fails when some environment, or
// files in ~/.aws, make us ask another host than MLflow's own client asks, by path or
// by host where it does not, with a signature or an expected owner or without where it
// does not, or for another key.
func TestBucketsAreAskedForAsBotocoreDoesAgainstBotocore(t *testing.T) {
	home := t.TempDir()
	bare(t, home)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
	d := draw.New(17, 1)
	all := make([]environment, 150)
	for i := range all {
		all[i] = some(d, home)
	}
	want, words := theirs(t, all)
	errs := 0
	for i, e := range all {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if got, err := ours(t, home, e); got != want[i] {
				t.Errorf("%v\n%s\n%s\nours   %+v %v\ntheirs %+v %s", e.Env, e.Files[".aws/config"], e.Files[".aws/credentials"], got, err, want[i], words[i])
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

// TestCertificatesAreLookedAtForTLSAlone fails when a bundle of certificates that can't be
// read keeps an endpoint at http://, or one whose certificate is not to be looked at, from
// being asked, as it does not keep botocore; or when it is passed over at https://. It
// fails, too, when a session's token in its older variable is not sent.
func TestCertificatesAreLookedAtForTLSAlone(t *testing.T) {
	t.Setenv("AWS_CA_BUNDLE", "/nowhere") // which the SDK reads, too
	var token atomic.Value
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token.Store(r.Header.Get("X-Amz-Security-Token"))
		anykey.Bucket{"f": "x"}.ServeHTTP(w, r)
	})
	plain, secure := httptest.NewServer(serve), httptest.NewTLSServer(serve)
	defer plain.Close()
	defer secure.Close()
	for _, c := range []struct {
		endpoint, ignore string
		ok               bool
	}{{plain.URL, "", true}, {secure.URL, "true", true}, {secure.URL, "false", false}} {
		env := map[string]string{
			"AWS_CA_BUNDLE": "/nowhere", "MLFLOW_S3_ENDPOINT_URL": c.endpoint, "MLFLOW_S3_IGNORE_TLS": c.ignore, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
			"AWS_SECURITY_TOKEN": "older", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		}
		token.Store("")
		b, err := Driver{Settings: rest.Settings{Silence: time.Minute}, Env: func(name string) string { return env[name] }}.Open(t.Context(), "bkt")
		if err == nil {
			_, err = artifact.NewBlob("s3://bkt", "", func(context.Context, bool) (*artifact.Bucket, error) { return b, nil }).List(t.Context(), "")
		}
		if (err == nil) != c.ok || c.ok && token.Load() != "older" {
			t.Errorf("%+v: %v, with the token %q", c, err, token.Load())
		}
	}
}
