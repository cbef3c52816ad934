package rest

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/mlflowfs/mlflowfs/resolve/ini"
)

// Env looks up an environment variable, as os.Getenv does.
type Env func(name string) string

// credentials are the headers that tell the tracking server who asks.
type credentials struct {
	authorization string // empty: none
	workspace     string
	oauth         oauthClient // whose tokens stand for authorization
	own           string      // lines of headers, such as those of HeaderFileVariable's file
	who           string      // the user, for Asker; nothing secret
}

// Variables of ours that name a file with a secret, which may be another one the next
// time that it is read: a token, alone; and headers, one "Name: value" a line.
const (
	TokenFileVariable  = "MLFLOWFS_TOKEN_FILE"
	HeaderFileVariable = "MLFLOWFS_HEADER_FILE"
)

// credentialSource is where the credentials for one server are read from.
type credentialSource interface {
	read() (credentials, error)
	// stamped is what the files that are read are known to have changed by.
	stamped() string
	// mend is what a user can do where the server refuses the credentials.
	mend() string
}

// source is where those for a tracking server are read from.
type source struct {
	uri  *url.URL
	env  Env
	kube kubernetes
}

// read takes the credentials from where MLflow's client does. The first wins of: our
// token's file; with MLFLOW_TRACKING_AUTH of Kubernetes, MLFLOW_TRACKING_TOKEN or
// Kubernetes' token; the netrc file's entry for the host, which Python's requests
// puts in the place of any other; the tracking URI's own user and password; the
// variables' and ~/.mlflow/credentials' user and password
// (mlflow.utils.credentials); MLFLOW_TRACKING_TOKEN.
func (s source) read() (c credentials, err error) {
	if c.own, err = readHeaders(s.env(HeaderFileVariable)); err != nil {
		return c, err
	}
	if c.own != "" {
		defer func() { c.who += " headers of " + s.env(HeaderFileVariable) }()
	}
	c.workspace = strings.TrimSpace(s.env("MLFLOW_WORKSPACE"))
	if signs(s.env) {
		if user, err := ReadAWSUser(s.env, s.env("HOME")); err == nil {
			defer func() { c.who += user.who() }()
		}
	}
	token, namespace := kubernetesAuth(s.env)
	if namespace && c.workspace == "" {
		if c.workspace, err = s.kube.namespace(); err != nil {
			return c, err
		}
	}
	if name := s.env(TokenFileVariable); name != "" {
		t, err := readToken(name)
		return c.token(t), err
	}
	if token {
		t := s.env("MLFLOW_TRACKING_TOKEN")
		if t == "" {
			t, err = s.kube.token()
		}
		return c.token(t), err
	}
	if user, password, ok := netrcFor(s.uri.Hostname(), s.env); ok {
		return c.basic(latin1(user), latin1(password)), nil
	}
	if password, ok := s.uri.User.Password(); ok && (s.uri.User.Username() != "" || password != "") {
		return c.basic(latin1(s.uri.User.Username()), latin1(password)), nil
	}
	user, password := s.env("MLFLOW_TRACKING_USERNAME"), s.env("MLFLOW_TRACKING_PASSWORD")
	if user == "" || password == "" {
		u, p, err := credentialsFile(s.env("HOME"))
		if err != nil {
			return c, err
		}
		user, password = cmp.Or(user, u), cmp.Or(password, p)
	}
	if user != "" && password != "" {
		return c.basic(user, password), nil
	}
	return c.token(s.env("MLFLOW_TRACKING_TOKEN")), nil
}

func (c credentials) basic(user, password string) credentials {
	c.authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	c.who = user
	return c
}

func (c credentials) token(t string) credentials {
	if t != "" {
		c.authorization, c.who = "Bearer "+t, "token "+subject(t)
	}
	return c
}

// latin1 is s as requests writes the user and password of a netrc file and of an
// address; MLflow writes its own in UTF-8. What Latin-1 has no letter for stays UTF-8.
func latin1(s string) string {
	var b []byte
	for _, r := range s {
		if r > 0xff {
			return s
		}
		b = append(b, byte(r))
	}
	return string(b)
}

func readToken(name string) (string, error) {
	b, err := os.ReadFile(name)
	token := strings.TrimSpace(string(b))
	if err == nil && token == "" {
		err = fmt.Errorf("%s is empty", name)
	}
	if err != nil {
		return "", fmt.Errorf("the token can't be read: %w", err)
	}
	if strings.ContainsAny(token, "\r\n") {
		return "", fmt.Errorf("%s holds more than one line: it must hold the token alone", name)
	}
	return token, nil
}

// Asker tells apart what the server at uri may answer to two users: it names
// the workspace and the user, and nothing that is secret. Of a token it tells the
// subject, where the token is a JWT (RFC 7519, section 4.1.2): the same user's next
// token is no other user's.
func Asker(uri string, env Env) string {
	c, err := sourceOf(uri, env).read()
	if err != nil {
		c.who = "" // it can't be asked, either
	}
	return fmt.Sprintf("%q %q", c.workspace, c.who)
}

// sourceOf is where the credentials for the server at a URI are read from.
func sourceOf(uri string, env Env) credentialSource {
	if IsDatabricks(uri) {
		return databricksSource{uri: uri, env: env}
	}
	if scheme, _, _ := strings.Cut(uri, ":"); scheme == "uc" {
		if base, err := unityBase(uri); err == nil {
			return unitySource{base, env}
		}
	}
	u, err := url.Parse(uri)
	if err != nil {
		u = &url.URL{}
	}
	return source{u, env, kubernetes{serviceAccount, env}}
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
	credentialSource
	log *slog.Logger

	mu     sync.Mutex // guards what follows; no other lock is taken under it
	now    credentials
	stamp  string    // of the files, when they were read
	looked time.Time // at the files
	vain   time.Time // when a refusal had them read, and they said the same
}

// lookEvery is how often it is looked whether a file has changed, and kubeEvery how
// often Kubernetes is asked for a token anew, as MLflow's client does.
const (
	lookEvery = time.Second
	kubeEvery = time.Minute
)

// readAgain is how soon after a refusal what said the same is read again: it may be a
// program that takes its time, and a server may refuse many requests whoever asks.
const readAgain = 10 * time.Second

func newRenewable(s credentialSource, log *slog.Logger) (*renewable, error) {
	r := &renewable{credentialSource: s, log: log, looked: time.Now()}
	r.stamp = r.stamped()
	var err error
	r.now, err = s.read()
	return r, err
}

func (s source) stamped() (stamp string) {
	names := []string{s.env(TokenFileVariable), s.env(HeaderFileVariable), netrcFile(s.env), filepath.Join(s.env("HOME"), ".mlflow", "credentials")}
	if token, _ := kubernetesAuth(s.env); token {
		names = append(append(names, filepath.Join(s.kube.account, "token")), s.kube.kubeFiles()...)
		stamp = fmt.Sprint(time.Now().Truncate(kubeEvery).Unix(), " ")
	}
	return stamp + stampOf(names...)
}

// stampOf is what files are known to have changed by.
func stampOf(names ...string) (stamp string) {
	for _, name := range names {
		if st, err := os.Stat(name); err == nil {
			stamp += fmt.Sprint(name, st.Size(), st.ModTime().UnixNano(), " ")
		}
	}
	return stamp
}

func (s source) mend() string {
	return "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, or write ~/.mlflow/credentials"
}

// get gives the credentials of now.
func (r *renewable) get() credentials {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.looked) > lookEvery {
		r.looked = time.Now()
		if s := r.stamped(); s != r.stamp {
			r.renew(s)
		}
	}
	return r.now
}

// refused tells whether there are other credentials than those that were
// refused.
func (r *renewable) refused(old credentials) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == old && time.Since(r.vain) > readAgain {
		if r.renew(r.stamped()); r.now == old {
			r.vain = time.Now()
		}
	}
	return r.now != old
}

// renew reads the files anew; what can't be read changes nothing. r.mu is held.
func (r *renewable) renew(stamp string) {
	c, err := r.read()
	if err != nil {
		r.log.Warn("the credentials can't be read anew; those of before are used", "err", err)
		return
	}
	if r.stamp = stamp; c != r.now {
		r.now = c
		r.log.Info("the credentials have changed, and the new ones are used")
	}
}

// credentialsFile is the user and the password of ~/.mlflow/credentials. As in Python,
// a file that may not be read is ignored.
func credentialsFile(home string) (user, password string, err error) {
	path := filepath.Join(home, ".mlflow", "credentials")
	b, err := os.ReadFile(path)
	if err != nil {
		return "", "", nil
	}
	f, err := ini.Parse(string(b))
	if err == nil {
		user, err = f.Get("mlflow", "mlflow_tracking_username")
	}
	if err == nil {
		password, err = f.Get("mlflow", "mlflow_tracking_password")
	}
	if err != nil {
		return "", "", fmt.Errorf("%s: %w (a %% is written %%%%)", path, err)
	}
	return user, password, nil
}

// readHeaders reads the file of headers; empty where none is named.
func readHeaders(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("the headers can't be read: %w", err)
	}
	var lines []string
	for i, line := range strings.Split(string(b), "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		// The line may be a secret, and is not quoted.
		key, value, ok := strings.Cut(line, ":")
		if value = strings.TrimSpace(value); !ok || !httpguts.ValidHeaderFieldName(key) || !httpguts.ValidHeaderFieldValue(value) {
			return "", fmt.Errorf("%s: line %d is no header: it must be `Name: value`", name, i+1)
		}
		switch key = http.CanonicalHeaderKey(key); key {
		case "Host", "Content-Length", "Content-Type", "Transfer-Encoding", "Connection", "Range", "If-Match":
			return "", fmt.Errorf("%s: line %d: %s is not for the user to set", name, i+1, key)
		}
		lines = append(lines, key+": "+value)
	}
	return strings.Join(lines, "\n"), nil
}
