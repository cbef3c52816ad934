package s3

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

var keyOfSignature = regexp.MustCompile(`Credential=([^/]+)/`)

// TestCredentialsThatExpireAreReadAnew fails when a mount that lives longer than its
// credentials goes on with those of its start: a web identity token that Kubernetes puts
// in the place of the last one, what a credential_process prints, or keys that somebody
// writes anew to ~/.aws/credentials when the old ones are refused.
func TestCredentialsThatExpireAreReadAnew(t *testing.T) {
	for kind, config := range map[string]string{
		"web identity": "[default]\nservices = here\nrole_arn = arn:aws:iam::123456789012:role/r\nweb_identity_token_file = %[1]s/secret\n[services here]\nsts =\n  endpoint_url = %[2]s\n",
		"process":      "[default]\ncredential_process = %[1]s/process\n",
		"file":         "[default]\n",
	} {
		t.Run(kind, func(t *testing.T) {
			home := t.TempDir()
			signed, valid := "", ""
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/xml")
				if token := r.FormValue("WebIdentityToken"); token != "" {
					fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2001-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, token)
					return
				}
				if m := keyOfSignature.FindStringSubmatch(r.Header.Get("Authorization")); m != nil {
					signed = m[1]
				}
				if signed != valid {
					w.WriteHeader(http.StatusForbidden)
					io.WriteString(w, `<Error><Code>ExpiredToken</Code></Error>`)
					return
				}
				io.WriteString(w, `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated></ListBucketResult>`)
			}))
			t.Cleanup(srv.Close)
			write := func(name, text string, mode os.FileMode) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(home, name), []byte(text), mode); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Mkdir(filepath.Join(home, ".aws"), 0o700); err != nil {
				t.Fatal(err)
			}
			write(".aws/config", fmt.Sprintf(config, home, srv.URL), 0o600)
			write("process", "#!/bin/sh\nprintf '{\"Version\":1,\"AccessKeyId\":\"%s\",\"SecretAccessKey\":\"s\",\"Expiration\":\"2001-01-01T00:00:00Z\"}' $(cat "+home+"/secret)\n", 0o700)
			now := func(key string) {
				valid = key
				write("secret", key, 0o600)
				if kind == "file" {
					write(".aws/credentials", "[default]\naws_access_key_id = "+key+"\naws_secret_access_key = s\n", 0o600)
				}
			}
			env := map[string]string{"MLFLOW_S3_ENDPOINT_URL": srv.URL, "AWS_DEFAULT_REGION": "us-east-1"}
			d := Driver{Settings: rest.Settings{Silence: time.Minute}, Env: func(name string) string { return env[name] }, Home: home}
			now("AKONE")
			first, err := d.Open(t.Context(), "b")
			if err != nil {
				t.Fatal(err)
			}
			opened := 1
			store := artifact.NewBlob("s3://b", "", func(ctx context.Context, fresh bool) (*artifact.Bucket, error) {
				if !fresh {
					return first, nil
				}
				opened++
				return d.Open(ctx, "b")
			})
			for _, key := range []string{"AKONE", "AKTWO", "AKTHREE"} {
				now(key)
				if _, err := store.List(t.Context(), ""); err != nil || signed != key {
					t.Errorf("%s: signed by %s, %v", key, signed, err)
				}
			}
			if want := map[string]int{"file": 3}[kind]; want > 0 && opened != want || want == 0 && opened != 1 {
				t.Errorf("it was opened %d times", opened)
			}
		})
	}
}

// TestStoresClockIsNoted fails when doctor can't tell that a store's clock and this
// machine's differ, for which S3 refuses signatures; or when the store can't be read
// although its answers tell its time.
func TestStoresClockIsNoted(t *testing.T) {
	t.Parallel()
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		now := time.Now().Add(time.Hour).UTC()
		w.Header().Set("Date", now.Format(http.TimeFormat))
		if at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date")); err != nil || now.Sub(at).Abs() > 15*time.Minute {
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, `<Error><Code>RequestTimeTooSkewed</Code></Error>`)
			return
		}
		io.WriteString(w, `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated></ListBucketResult>`)
	}))
	t.Cleanup(srv.Close)
	env := map[string]string{"MLFLOW_S3_ENDPOINT_URL": srv.URL, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
	set, err := rest.ReadSettings(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	b, err := Driver{Settings: set, Env: func(name string) string { return env[name] }, Home: t.TempDir()}.Open(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	store := artifact.NewBlob("s3://b", "", func(context.Context, bool) (*artifact.Bucket, error) { return b, nil })
	_, err = store.List(t.Context(), "")
	ahead := set.Clocks.Ahead()[srv.Listener.Addr().String()]
	if err != nil || asked != 2 || (ahead+time.Hour).Abs() > 10*time.Second {
		t.Errorf("%v after %d requests, %v ahead", err, asked, ahead)
	}
}
