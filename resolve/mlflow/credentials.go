package mlflow

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"gopkg.in/ini.v1"
)

// Env looks up an environment variable, as os.Getenv does.
type Env func(name string) string

// credentials is what identifies the user to the tracking server.
type credentials struct {
	user, password string
	token          string
}

// TokenFileVariable names a file that holds a token, which may be another one
// the next time that it is read.
const TokenFileVariable = "MLFLOWFS_TOKEN_FILE"

// readCredentials takes them from where the MLflow client does
// (mlflow.utils.credentials): the tracking URI's own user and password, the
// environment, ~/.mlflow/credentials; the first that has a part wins it. A
// token's file comes before all of them.
func readCredentials(u *url.URL, env Env) (credentials, error) {
	if name := env(TokenFileVariable); name != "" {
		b, err := os.ReadFile(name)
		token := strings.TrimSpace(string(b))
		if err == nil && token == "" {
			err = fmt.Errorf("%s is empty", name)
		}
		if err != nil {
			return credentials{}, fmt.Errorf("the token can't be read: %w", err)
		}
		if strings.ContainsAny(token, "\r\n") {
			return credentials{}, fmt.Errorf("%s holds more than one line: it must hold the token alone", name)
		}
		return credentials{token: token}, nil
	}
	c := credentials{
		user:     env("MLFLOW_TRACKING_USERNAME"),
		password: env("MLFLOW_TRACKING_PASSWORD"),
		token:    env("MLFLOW_TRACKING_TOKEN"),
	}
	if c.user == "" || c.password == "" {
		user, password, err := credentialsFile(env("HOME"))
		if err != nil {
			return c, err
		}
		if c.user == "" {
			c.user = user
		}
		if c.password == "" {
			c.password = password
		}
	}
	if u.User != nil {
		c.user = u.User.Username()
		c.password, _ = u.User.Password()
	}
	return c, nil
}

// Asker tells apart what the server at uri may answer to two users: it names
// the workspace and the user, and nothing that is secret. Of a token it tells the
// subject, where the token is a JWT (RFC 7519, section 4.1.2): the same user's next
// token is no other user's.
func Asker(uri string, env Env) string {
	u, err := url.Parse(uri)
	if err != nil {
		u = &url.URL{}
	}
	c, err := readCredentials(u, env)
	user := c.user
	switch {
	case err != nil: // it can't be asked, either
	case c.user != "" && c.password != "":
	case c.token != "":
		user = "token " + subject(c.token)
	}
	return fmt.Sprintf("%q %q", env("MLFLOW_WORKSPACE"), user)
}

// subject is whom a JWT is of; empty where the token is none.
func subject(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Issuer  string `json:"iss"`
		Subject string `json:"sub"`
	}
	if err != nil || json.Unmarshal(b, &claims) != nil {
		return ""
	}
	return claims.Issuer + " " + claims.Subject
}

// renewable are credentials that are read anew when their files have changed.
type renewable struct {
	uri *url.URL
	env Env
	log *slog.Logger

	mu     sync.Mutex // guards what follows; no other lock is taken under it
	now    credentials
	stamp  string // of the files, when they were read
	looked time.Time
}

// lookEvery is how often it is looked whether a file has changed.
const lookEvery = time.Second

func newRenewable(u *url.URL, env Env, log *slog.Logger) (*renewable, error) {
	r := &renewable{uri: u, env: env, log: log, looked: time.Now()}
	r.stamp = r.stamped()
	var err error
	r.now, err = readCredentials(u, env)
	return r, err
}

// stamped is what the files are known to have changed by.
func (r *renewable) stamped() (s string) {
	for _, name := range []string{r.env(TokenFileVariable), filepath.Join(r.env("HOME"), ".mlflow", "credentials")} {
		if st, err := os.Stat(name); err == nil {
			s += fmt.Sprint(name, st.Size(), st.ModTime().UnixNano(), " ")
		}
	}
	return s
}

// get gives the credentials of now.
func (r *renewable) get() credentials {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.looked) > lookEvery {
		r.looked = time.Now()
		if s := r.stamped(); s != r.stamp {
			r.read(s)
		}
	}
	return r.now
}

// refused tells whether there are other credentials than those that were
// refused.
func (r *renewable) refused(old credentials) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == old {
		r.read(r.stamped())
	}
	return r.now != old
}

// read reads the files anew; what can't be read changes nothing. r.mu is held.
func (r *renewable) read(stamp string) {
	c, err := readCredentials(r.uri, r.env)
	if err != nil {
		r.log.Warn("the credentials can't be read anew; those of before are used", "err", err)
		return
	}
	if r.stamp = stamp; c != r.now {
		r.now = c
		r.log.Info("the credentials have changed, and the new ones are used")
	}
}

func credentialsFile(home string) (user, password string, err error) {
	if home == "" {
		return "", "", nil
	}
	path := filepath.Join(home, ".mlflow", "credentials")
	f, err := ini.LoadSources(ini.LoadOptions{Insensitive: true, SpaceBeforeInlineComment: true, IgnoreInlineComment: true}, path)
	if errors.Is(err, os.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		// The parser's own words may quote the line, and with it a password.
		return "", "", fmt.Errorf("%s can't be read as an ini file with a section [mlflow]", path)
	}
	s := f.Section("mlflow")
	return s.Key("mlflow_tracking_username").String(), s.Key("mlflow_tracking_password").String(), nil
}

// authTransport adds the credentials to requests for the tracking server, and
// to no others: neither another host named by an artifact URI nor the target
// of a redirect gets them.
type authTransport struct {
	next      http.RoundTripper
	base      *url.URL
	creds     *renewable
	workspace string
	sigV4     *sigV4 // nil: no signature
}

func (t *authTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == t.base.Scheme && req.URL.Host == t.base.Host {
		req = req.Clone(req.Context())
		c := t.creds.get()
		switch {
		case c.user != "" && c.password != "":
			req.SetBasicAuth(c.user, c.password)
		case c.token != "":
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		if t.workspace != "" {
			req.Header.Set("X-MLFLOW-WORKSPACE", t.workspace)
		}
		if t.sigV4 != nil { // takes the place of any other Authorization
			req.Header.Del("Authorization")
			if err := t.sigV4.sign(req); err != nil {
				return nil, &signError{err}
			}
		}
	}
	return t.next.RoundTrip(req)
}

var _ http.RoundTripper = (*authTransport)(nil)

// tlsConfig follows MLFLOW_TRACKING_INSECURE_TLS, _SERVER_CERT_PATH (a file of
// CA certificates, or a directory of such files) and _CLIENT_CERT_PATH (one
// file with certificate and key).
func tlsConfig(env Env) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	c.InsecureSkipVerify = Truthy(env("MLFLOW_TRACKING_INSECURE_TLS"))
	if path := env("MLFLOW_TRACKING_SERVER_CERT_PATH"); path != "" {
		if c.InsecureSkipVerify {
			return nil, errors.New("MLFLOW_TRACKING_INSECURE_TLS and MLFLOW_TRACKING_SERVER_CERT_PATH exclude each other: set one of them")
		}
		pool, err := readCAs(path)
		if err != nil {
			return nil, fmt.Errorf("MLFLOW_TRACKING_SERVER_CERT_PATH: %w", err)
		}
		c.RootCAs = pool
	}
	if path := env("MLFLOW_TRACKING_CLIENT_CERT_PATH"); path != "" {
		cert, err := tls.LoadX509KeyPair(path, path)
		if err != nil {
			return nil, fmt.Errorf("MLFLOW_TRACKING_CLIENT_CERT_PATH: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

func readCAs(path string) (*x509.CertPool, error) {
	files := []string{path}
	if st, err := os.Stat(path); err != nil {
		return nil, err
	} else if st.IsDir() {
		if files, err = filepath.Glob(filepath.Join(path, "*")); err != nil {
			return nil, err
		}
	}
	pool, found := x509.NewCertPool(), false
	for _, f := range files {
		pem, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		found = pool.AppendCertsFromPEM(pem) || found
	}
	if !found {
		return nil, fmt.Errorf("%s holds no PEM certificate", path)
	}
	return pool, nil
}
