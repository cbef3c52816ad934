package rest

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/ini"
)

// IsDatabricks tells whether a tracking or registry URI is a Databricks workspace:
// databricks, databricks-uc, or one of them with ://profile behind it.
func IsDatabricks(uri string) bool {
	scheme, _, _ := strings.Cut(uri, ":")
	return scheme == "databricks" || scheme == "databricks-uc"
}

// NewDatabricksClient makes a client for the workspace at uri, configured as MLflow's
// client and the Databricks SDK below it are: by the profile that the URI or
// DATABRICKS_CONFIG_PROFILE names, else by the environment, else by the default profile.
// A token goes to the host that it stands beside, and to no other.
func NewDatabricksClient(uri string, env Env, log *slog.Logger) (*Client, error) {
	w, err := readWorkspace(uri, env)
	if err != nil {
		return nil, err
	}
	s := databricksSource{uri: uri, env: env, host: w.host}
	creds, err := newRenewable(s, log)
	if err != nil {
		return nil, err
	}
	c, err := newAuthClient(w.host, creds, nil, WebTLS(env, log), env, log)
	if err == nil {
		c.databricks = true
	}
	return c, err
}

// Databricks tells whether the client is for a Databricks workspace.
func (c *Client) Databricks() bool { return c != nil && c.databricks }

// workspace is a Databricks workspace, and who asks it.
type workspace struct {
	host  *url.URL
	token string // a personal access token; empty where an OAuth client asks
	oauth oauthClient
	org   string // the workspace's id, where several are at one host
}

// databricksKeys are the keys of a profile, and the variables that stand for them.
var databricksKeys = map[string]string{
	"host": "DATABRICKS_HOST", "token": "DATABRICKS_TOKEN", "client_id": "DATABRICKS_CLIENT_ID", "client_secret": "DATABRICKS_CLIENT_SECRET",
	"auth_type": "DATABRICKS_AUTH_TYPE", "workspace_id": "DATABRICKS_WORKSPACE_ID",
}

// readWorkspace reads the configuration of the workspace at uri.
func readWorkspace(uri string, env Env) (w workspace, err error) {
	profile, err := databricksProfile(uri)
	if err != nil {
		return w, err
	}
	profile = cmp.Or(profile, env("DATABRICKS_CONFIG_PROFILE"))
	values, from := map[string]string{}, "the environment"
	for key, variable := range databricksKeys {
		values[key] = env(variable)
	}
	// As in the SDK, a host or a credential in the environment stands for itself.
	if profile != "" || values["host"]+values["token"]+values["client_id"] == "" {
		if values, from, err = readDatabricksProfile(profile, env); err != nil {
			return w, err
		}
	}
	return newWorkspace(values, from)
}

func newWorkspace(values map[string]string, from string) (w workspace, err error) {
	if w.host, err = databricksHost(values["host"]); err != nil {
		return w, fmt.Errorf("%w in %s", err, from)
	}
	w.org = values["workspace_id"]
	kind := values["auth_type"]
	switch {
	case values["token"] != "" && (kind == "" || kind == "pat"):
		w.token = values["token"]
	case values["client_id"] != "" && values["client_secret"] != "" && (kind == "" || kind == "oauth-m2m"):
		w.oauth = oauthClient{values["client_id"], values["client_secret"]}
	case kind != "" && kind != "pat" && kind != "oauth-m2m":
		return w, fmt.Errorf("%s logs in to Databricks by auth_type %q, which mlflowfs does not do: take a personal access token (pat) or a service principal's client_id and client_secret (oauth-m2m)", from, kind)
	default:
		return w, fmt.Errorf("there is no login to Databricks in %s: give it a token (DATABRICKS_TOKEN, token), or a service principal's client_id and client_secret", from)
	}
	return w, nil
}

// databricksProfile is the profile that a URI names; empty where it names none.
func databricksProfile(uri string) (string, error) {
	_, behind, named := strings.Cut(uri, ":")
	if !named {
		return "", nil
	}
	profile, ok := strings.CutPrefix(behind, "//")
	profile = strings.TrimRight(profile, "/")
	switch {
	case !ok || profile == "" || strings.ContainsAny(profile, "/@"):
		return "", fmt.Errorf("the URI %s names no profile of Databricks: write databricks://profile, or databricks alone", Redact(uri))
	case strings.Contains(profile, ":"):
		return "", errors.New("a URI like databricks://scope:prefix names a secret scope, which only a notebook of Databricks can read: name a profile of ~/.databrickscfg")
	}
	return profile, nil
}

// databricksHost is a workspace's address, which may be written without https:// and with
// a path behind it.
func databricksHost(host string) (*url.URL, error) {
	if host == "" {
		return nil, errors.New("there is no Databricks host (DATABRICKS_HOST, host)")
	}
	if !strings.Contains(host, "://") {
		host = "https://" + host
	}
	u, err := url.Parse(host)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("the Databricks host is no address like https://….cloud.databricks.com")
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// databricksFile is the file of profiles.
func databricksFile(env Env) string {
	return InHome(cmp.Or(env("DATABRICKS_CONFIG_FILE"), filepath.Join(env("HOME"), ".databrickscfg")), env("HOME"))
}

// readDatabricksProfile reads a profile as the SDK does: its own keys alone, as they are
// written. Where none is named it is the one that the file says, or DEFAULT.
func readDatabricksProfile(profile string, env Env) (values map[string]string, from string, err error) {
	name := databricksFile(env)
	const how = "set DATABRICKS_HOST and DATABRICKS_TOKEN, or write a profile with `databricks configure`"
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("no Databricks workspace is configured, and there is no %s: %s", name, how)
	}
	var f ini.File
	if err == nil {
		f, err = ini.Parse(string(b))
	}
	if err != nil {
		return nil, "", fmt.Errorf("the profiles of Databricks in %s: %w", name, err)
	}
	settings := f.Own("__settings__")
	profile = cmp.Or(profile, settings["default_profile"], "DEFAULT")
	if values = f.Own(profile); values == nil || profile == "__settings__" {
		return nil, "", fmt.Errorf("%s has no profile %q: %s", name, profile, how)
	}
	return values, fmt.Sprintf("the profile %q of %s", profile, name), nil
}

// databricksSource reads the credentials for a workspace. host is the one that they were
// first read for.
type databricksSource struct {
	uri  string
	env  Env
	host *url.URL
}

var _ credentialSource = databricksSource{}

func (s databricksSource) read() (c credentials, err error) {
	w, err := readWorkspace(s.uri, s.env)
	if err != nil {
		return c, err
	}
	if s.host != nil && *w.host != *s.host {
		return c, fmt.Errorf("the Databricks profile names another host now, %s: what was opened for %s keeps to that", w.host.Host, s.host.Host)
	}
	c = c.token(w.token)
	c.oauth = w.oauth
	// A personal access token names nobody: it stands for its user by a hash of it, which it
	// is too random to be guessed by.
	c.who = fmt.Sprintf("%s %s %s%s %x", w.host, w.org, c.who, w.oauth.id, sha256.Sum256([]byte(w.token)))
	if w.org != "" {
		c.own = "X-Databricks-Org-Id: " + w.org
	}
	return c, nil
}

func (s databricksSource) stamped() string { return stampOf(databricksFile(s.env)) }

func (s databricksSource) mend() string {
	return "the token may have ended: make another in the workspace's settings, and set DATABRICKS_TOKEN or the profile's token to it"
}
