package s3

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
	"github.com/mlflowfs/mlflowfs/test/draw"
)

// portal is AWS's SSO portal, its SSO-OIDC service, and S3. It notes what each user, by the
// first two directories of the path, sends the first two, and who signs what S3 gets.
type portal struct {
	mu   sync.Mutex
	sent map[string][]string
}

// note notes what stands before the path's third directory, and gives what follows.
func (p *portal) note(r *http.Request, words string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	parts := strings.SplitN(r.URL.Path, "/", 4)
	user := parts[1] + "/" + parts[2]
	p.sent[user] = append(p.sent[user], words)
}

// of gives what a user sent, one a line.
func (p *portal) of(user string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.sent[user], "\n")
}

// refuse answers as AWS's services of JSON do.
func refuse(w http.ResponseWriter, status int, kind string) {
	w.Header().Set("X-Amzn-ErrorType", kind)
	w.WriteHeader(status)
	io.WriteString(w, `{"message":"no","error":"no","error_description":"no"}`)
}

func (p *portal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/federation/credentials"): // GetRoleCredentials
		token := r.Header.Get("X-Amz-Sso_bearer_token")
		p.note(r, fmt.Sprintf("role %s of %s for %s", r.FormValue("role_name"), r.FormValue("account_id"), token))
		if token != "live" && token != "renewed" {
			refuse(w, http.StatusUnauthorized, "UnauthorizedException")
			return
		}
		fmt.Fprintf(w, `{"roleCredentials":{"accessKeyId":"AKOF%s","secretAccessKey":"s","sessionToken":"t","expiration":%d}}`, strings.ToUpper(token), time.Now().Add(time.Hour).UnixMilli())
	case strings.HasSuffix(r.URL.Path, "/token"): // CreateToken
		var in struct{ ClientID, ClientSecret, GrantType, RefreshToken string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			refuse(w, http.StatusBadRequest, "InvalidRequestException")
			return
		}
		p.note(r, fmt.Sprintf("token by %s of %s with %s, %s", in.GrantType, in.ClientID, in.ClientSecret, in.RefreshToken))
		if in.RefreshToken != "refresh" {
			refuse(w, http.StatusBadRequest, "InvalidGrantException")
			return
		}
		io.WriteString(w, `{"accessToken":"renewed","tokenType":"Bearer","expiresIn":3600,"refreshToken":"refresh-2"}`)
	default:
		if m := keyOfSignature.FindStringSubmatch(r.Header.Get("Authorization")); m != nil {
			p.note(r, "S3 signed by "+m[1]+" with "+r.Header.Get("X-Amz-Security-Token"))
		}
		io.WriteString(w, `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated></ListBucketResult>`)
	}
}

const (
	ssoProfile    = "sso_account_id = 012345678901\nsso_role_name = reader\nregion = eu-west-3\n"
	ssoSession    = "sso_start_url = https://corp.example/start\nsso_region = eu-central-1\n"
	sessionConfig = "[default]\nsso_session = corp\n" + ssoProfile + "[sso-session corp]\nsso_registration_scopes = sso:account:access\n" + ssoSession
	legacyConfig  = "[profile dev]\n" + ssoSession + ssoProfile
)

// cached is a token in the file of `aws sso login`, of a session's name or a start URL.
func cached(of, token string, expires time.Duration, more string) (name, text string) {
	sum := sha1.Sum([]byte(of))
	at := time.Now().Add(expires).UTC().Format(time.RFC3339)
	return ".aws/sso/cache/" + hex.EncodeToString(sum[:]) + ".json",
		fmt.Sprintf(`{"startUrl": "https://corp.example/start", "region": "eu-central-1", "accessToken": %q, "expiresAt": %q%s}`, token, at, more)
}

// registered is what lies beside a token that can be renewed.
func registered(refresh string) string {
	return `, "clientId": "client", "clientSecret": "secret", "registrationExpiresAt": "` + time.Now().Add(24*time.Hour).UTC().Format(time.RFC3339) + `", "refreshToken": "` + refresh + `"`
}

// TestSSOSessionsAreTakenAgainstBotocore fails when a profile of `aws sso login`, of a
// session or of the older form, does not give the keys that it gives botocore from the same
// files, sends the portal another token, account or role, does not renew a token that is
// over or does not keep the new one where botocore looks for it; or when the error about
// a session that is over does not say how to log in, or shows a token.
func TestSSOSessionsAreTakenAgainstBotocore(t *testing.T) {
	home := t.TempDir()
	bare(t, home)
	p := &portal{sent: map[string][]string{}}
	srv := httptest.NewServer(p)
	defer srv.Close()
	const hour, session, start = time.Hour, "corp", "https://corp.example/start"
	cases := []struct {
		name, config, profile string
		of, token             string
		expires               time.Duration
		more                  string
		key                   string // whose; empty: an error
		login                 string // what the error says
	}{
		// The first, for botocore finds the cache of those before, too.
		{"never logged in", sessionConfig, "", "another", "live", hour, "", "", "default"},
		{"session", sessionConfig, "", session, "live", hour, registered("refresh"), "AKOFLIVE", ""},
		{"legacy", legacyConfig, "dev", start, "live", hour, "", "AKOFLIVE", ""},
		{"over, and renewed", sessionConfig, "", session, "live", -hour, registered("refresh"), "AKOFRENEWED", ""},
		{"over, and not renewed", sessionConfig, "", session, "live", -hour, registered("s3cret"), "", "default"},
		{"over for good", sessionConfig, "", session, "s3cret", -hour, "", "", "default"},
		{"legacy, over", legacyConfig, "dev", start, "s3cret", -hour, registered("refresh"), "", "dev"},
		{"refused", sessionConfig, "default", session, "s3cret", hour, registered("refresh"), "", "default"},
		{"legacy, refused", legacyConfig, "dev", start, "s3cret", hour, "", "", "dev"},
		{"session, and the older form", strings.Replace(sessionConfig, "[default]\n", "[default]\n"+ssoSession, 1), "", session, "live", hour, registered("refresh"), "AKOFLIVE", ""},
		{"beside a process", strings.Replace(sessionConfig, "[default]\n", "[default]\ncredential_process = false\n", 1), "", session, "live", hour, registered("refresh"), "AKOFLIVE", ""},
	}
	at := func(who string, i int) map[string]string {
		user := fmt.Sprintf("%s/%s/%d", srv.URL, who, i)
		vars := map[string]string{"HOME": home, "AWS_ENDPOINT_URL_SSO": user, "AWS_ENDPOINT_URL_SSO_OIDC": user, "MLFLOW_S3_ENDPOINT_URL": user}
		if p := cases[i].profile; p != "" {
			vars["AWS_PROFILE"] = p
		}
		return vars
	}
	environments := func(who string) (all []environment) {
		for i, c := range cases {
			e := environment{draw.NewEnvironment(home), "bkt", ""}
			name, text := cached(c.of, c.token, c.expires, c.more)
			e.Env, e.Files = at(who, i), map[string]string{".aws/config": c.config, name: text}
			all = append(all, e)
		}
		return all
	}
	cache := filepath.Join(home, ".aws/sso/cache")
	their := askBotocore(t, environments("theirs"))
	for i, e := range environments("ours") {
		c, want := cases[i], p.of(fmt.Sprint("theirs/", i))
		t.Run(c.name, func(t *testing.T) {
			key := ""
			for _, r := range their[i].Requests {
				if m := keyOfSignature.FindStringSubmatch(r.Headers["authorization"]); m != nil {
					key = m[1]
				}
			}
			if key != c.key || (their[i].Error != "") != (c.key == "") {
				t.Fatalf("botocore signs by %q: %s", key, their[i].Error)
			}
			if err := errors.Join(os.RemoveAll(cache), e.Write()); err != nil {
				t.Fatal(err)
			}
			for k, v := range e.Env {
				t.Setenv(k, v)
			}
			d := Driver{Settings: rest.Settings{Silence: time.Minute}, Env: os.Getenv, Home: home}
			b, err := d.Open(t.Context(), "bkt")
			if err == nil {
				_, err = artifact.NewBlob("s3://bkt", "", func(context.Context, bool) (*artifact.Bucket, error) { return b, nil }).List(t.Context(), "")
			}
			if c.key == "" {
				if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "run `aws sso login --profile "+c.login+"`") || strings.Contains(err.Error(), "s3cret") {
					t.Errorf("the error: %v", err)
				}
			} else {
				want += "\nS3 signed by " + c.key + " with t"
			}
			if got := p.of(fmt.Sprint("ours/", i)); got != want || c.key != "" && err != nil {
				t.Errorf("%v\nours   %s\ntheirs %s", err, got, want)
			}
			if c.key != "AKOFRENEWED" {
				return
			}
			name, _ := cached(c.of, "", 0, "")
			kept, err := os.ReadFile(filepath.Join(home, name))
			var left struct{ AccessToken, RefreshToken, RegistrationExpiresAt string }
			if err == nil {
				err = json.Unmarshal(kept, &left)
			}
			if err != nil || left.AccessToken != "renewed" || left.RefreshToken != "refresh-2" || left.RegistrationExpiresAt == "" {
				t.Errorf("after it, the cache has %s, %v", kept, err)
			}
		})
	}
}
