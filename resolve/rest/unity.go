package rest

import (
	"fmt"
	"log/slog"
	"net/url"
	"strings"
)

// UnityTokenVariable holds the token for an open source Unity Catalog
// (mlflow.utils.oss_registry_utils).
const UnityTokenVariable = "MLFLOW_UC_OSS_TOKEN"

// NewUnityClient makes a client for the open source Unity Catalog at uri,
// uc:http://host:port or uc:https://host. Nothing of a tracking server's credentials is
// sent there.
func NewUnityClient(uri string, env Env, log *slog.Logger) (*Client, error) {
	base, err := unityBase(uri)
	if err != nil {
		return nil, err
	}
	creds, err := newRenewable(unitySource{base, env}, log)
	if err != nil {
		return nil, err
	}
	return newAuthClient(base, creds, nil, WebTLS(env, log), env, log)
}

func unityBase(uri string) (*url.URL, error) {
	_, address, _ := strings.Cut(uri, ":")
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("the registry URI %s names no server: write uc:http://host:port or uc:https://host, or databricks-uc for Databricks", Redact(uri))
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}, nil
}

// unitySource reads the token of the environment. As for a tracking server, Python's
// requests puts a netrc file's entry for the host in its place.
type unitySource struct {
	base *url.URL
	env  Env
}

var _ credentialSource = unitySource{}

func (s unitySource) read() (c credentials, err error) {
	if user, password, ok := netrcFor(s.base.Hostname(), s.env); ok {
		return c.basic(latin1(user), latin1(password)), nil
	}
	return c.token(s.env(UnityTokenVariable)), nil
}

func (s unitySource) stamped() string { return stampOf(netrcFile(s.env)) }

func (s unitySource) mend() string {
	return "set " + UnityTokenVariable + " to a token of the server's"
}
