package rest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
)

// trackingTLS follows what ServerTLS does, and MLFLOW_TRACKING_CLIENT_CERT_PATH (one
// file with certificate and key), which is read for a server at http://, too.
func trackingTLS(scheme string, env Env, log *slog.Logger) (*tls.Config, error) {
	c, err := ServerTLS(scheme, env, log)
	if err != nil {
		return nil, err
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

// ServerTLS follows MLFLOW_TRACKING_INSECURE_TLS and _SERVER_CERT_PATH, which say what
// MLflow's client trusts of a tracking server and of Azure's blobs
// (RestHostCreds.verify); where neither is set, what WebTLS follows. As in Python's
// requests, a file that can't be used is no error for a server at http://.
func ServerTLS(scheme string, env Env, log *slog.Logger) (*tls.Config, error) {
	path, insecure := env("MLFLOW_TRACKING_SERVER_CERT_PATH"), Truthy(env("MLFLOW_TRACKING_INSECURE_TLS"))
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: insecure}
	switch {
	case path != "" && insecure:
		return nil, errors.New("MLFLOW_TRACKING_INSECURE_TLS and MLFLOW_TRACKING_SERVER_CERT_PATH exclude each other: set one of them")
	case path != "":
		pool, err := poolOf(path)
		if err != nil && scheme == "https" {
			return nil, fmt.Errorf("MLFLOW_TRACKING_SERVER_CERT_PATH: %w", err)
		}
		if err != nil {
			pool = untrusting("MLFLOW_TRACKING_SERVER_CERT_PATH", err, log)
		}
		c.RootCAs = pool
	case !insecure:
		c = WebTLS(env, log)
	}
	return c, nil
}

// WebTLS follows the variables of Python's requests, the first of which is set:
// REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE. One that can't be used is no error where no
// https is asked for: it makes all https fail.
func WebTLS(env Env, log *slog.Logger) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	for _, name := range []string{"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"} {
		path := env(name)
		if path == "" {
			continue
		}
		pool, err := poolOf(path)
		if err != nil {
			pool = untrusting(name, err, log)
		}
		c.RootCAs = pool
		break
	}
	return c
}

// untrusting trusts no certificate, as the variable name can't be used.
func untrusting(name string, err error, log *slog.Logger) *x509.CertPool {
	log.Warn("no https server is trusted: "+name+" can't be used", "err", err)
	return x509.NewCertPool()
}

// hashedName is the name of a certificate in a directory for OpenSSL: it looks for no
// other (openssl-rehash(1)).
var hashedName = regexp.MustCompile(`^[0-9a-f]{8}\.[0-9]+$`)

// ReadCAs reads a file of CA certificates, or the files of a directory for OpenSSL, of
// which those that can't be read are passed over. It gives them as PEM, of which there
// is at least one.
func ReadCAs(path string) ([]byte, error) {
	pem, _, err := readCAs(path)
	return pem, err
}

// poolOf trusts those of a file, or of a directory, and no others.
func poolOf(path string) (*x509.CertPool, error) {
	_, pool, err := readCAs(path)
	return pool, err
}

func readCAs(path string) (all []byte, pool *x509.CertPool, err error) {
	pool = x509.NewCertPool()
	entries, err := os.ReadDir(path)
	if err != nil { // no directory
		pem, err := os.ReadFile(path)
		if err == nil && !pool.AppendCertsFromPEM(pem) {
			err = fmt.Errorf("%s holds no PEM certificate", path)
		}
		return pem, pool, err
	}
	for _, e := range entries {
		if !hashedName.MatchString(e.Name()) {
			continue
		}
		if pem, err := os.ReadFile(filepath.Join(path, e.Name())); err == nil {
			all = append(append(all, pem...), '\n')
		}
	}
	if !pool.AppendCertsFromPEM(all) {
		return nil, pool, fmt.Errorf("%s holds no certificate named by its hash: run `openssl rehash %s`, or name one file", path, path)
	}
	return all, pool, nil
}
