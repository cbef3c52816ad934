package mlflow

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"gopkg.in/ini.v1"
)

// Env looks up an environment variable, as os.Getenv does.
type Env func(name string) string

// credentials is what identifies the user to the tracking server.
type credentials struct {
	user, password string
	token          string
}

// readCredentials takes them from where the MLflow client does
// (mlflow.utils.credentials): the tracking URI's own user and password, the
// environment, ~/.mlflow/credentials; the first that has a part wins it.
func readCredentials(u *url.URL, env Env) (credentials, error) {
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
	creds     credentials
	workspace string
	sigV4     *sigV4 // nil: no signature
}

func (t *authTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == t.base.Scheme && req.URL.Host == t.base.Host {
		req = req.Clone(req.Context())
		switch {
		case t.creds.user != "" && t.creds.password != "":
			req.SetBasicAuth(t.creds.user, t.creds.password)
		case t.creds.token != "":
			req.Header.Set("Authorization", "Bearer "+t.creds.token)
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
