package rest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v4"
)

// kubernetes is what MLFLOW_TRACKING_AUTH=kubernetes and kubernetes-namespaced take
// the token and the namespace from: the pod's service account, else the
// kubeconfig (mlflow.tracking.request_auth.kubernetes_request_auth_provider).
type kubernetes struct {
	account string // directory of the service account's files
	env     Env
}

// serviceAccount is where a pod has its service account's token and namespace.
const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// kubernetesAuth tells whether MLFLOW_TRACKING_AUTH asks for Kubernetes' token, and
// whether for its namespace, too. A signature of AWS's takes the place of both.
func kubernetesAuth(env Env) (token, namespace bool) {
	auth := env("MLFLOW_TRACKING_AUTH")
	if signs(env) {
		auth = ""
	}
	return auth == "kubernetes" || auth == "kubernetes-namespaced", auth == "kubernetes-namespaced"
}

func (k kubernetes) own(name string) string {
	b, err := os.ReadFile(filepath.Join(k.account, name))
	if err != nil {
		return "" // not in a pod
	}
	return strings.TrimSpace(string(b))
}

// token is what follows "Bearer ".
func (k kubernetes) token() (string, error) {
	if t := k.own("token"); t != "" {
		return t, nil
	}
	c, err := k.kubeconfig()
	if err != nil {
		return "", fmt.Errorf("MLFLOW_TRACKING_AUTH: there is no service account's token, and no kubeconfig: %w", err)
	}
	t, err := c.token()
	if t = strings.TrimSpace(t); t == "" || err != nil {
		return "", fmt.Errorf("MLFLOW_TRACKING_AUTH: the kubeconfig's user has no token: %w", cmp.Or(err, errors.New("there is neither token, tokenFile nor exec")))
	}
	return t, nil
}

// namespace is the workspace of kubernetes-namespaced.
func (k kubernetes) namespace() (string, error) {
	if n := k.own("namespace"); n != "" {
		return n, nil
	}
	c, err := k.kubeconfig()
	if err != nil {
		return "", fmt.Errorf("MLFLOW_TRACKING_AUTH: there is no service account's namespace, and no kubeconfig: %w", err)
	}
	if n := strings.TrimSpace(c.namespace); n != "" {
		return n, nil
	}
	return "", errors.New("MLFLOW_TRACKING_AUTH: the kubeconfig's context has no namespace: set MLFLOW_WORKSPACE, or a namespace in the context")
}

// kubeFiles are the kubeconfig files: KUBECONFIG, separated by colons, else
// ~/.kube/config.
func (k kubernetes) kubeFiles() (names []string) {
	for _, name := range strings.Split(cmp.Or(k.env("KUBECONFIG"), "~/.kube/config"), ":") {
		name = InHome(name, k.env("HOME"))
		if _, err := os.Stat(name); name != "" && err == nil {
			names = append(names, name)
		}
	}
	return names
}

// kubeUser is how a kubeconfig says who somebody is.
type kubeUser struct {
	Token     *string   `yaml:"token"`
	TokenFile string    `yaml:"tokenFile"`
	Exec      *kubeExec `yaml:"exec"`
	Provider  *struct {
		Name   string            `yaml:"name"`
		Config map[string]string `yaml:"config"`
	} `yaml:"auth-provider"`

	dir string // of the file that it is in
}

// kubeExec is a program that prints a token (client.authentication.k8s.io).
type kubeExec struct {
	APIVersion string   `yaml:"apiVersion"`
	Command    string   `yaml:"command"`
	Args       []string `yaml:"args"`
	Env        []struct{ Name, Value string }
}

// kubeContext is the current context, and its user.
type kubeContext struct {
	namespace string
	user      kubeUser
}

// kubeconfig reads the files as Kubernetes' Python client merges them: the first of a
// name wins, and the last current-context.
func (k kubernetes) kubeconfig() (c kubeContext, err error) {
	files := k.kubeFiles()
	if len(files) == 0 {
		return c, errors.New("there is no such file")
	}
	type context struct{ User, Namespace string }
	var current string
	contexts, users := map[string]context{}, map[string]kubeUser{}
	for _, name := range files {
		var doc struct {
			Current  string `yaml:"current-context"`
			Contexts []struct {
				Name    string
				Context context
			}
			Users []struct {
				Name string
				User kubeUser
			}
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return c, err
		}
		if yaml.Unmarshal(b, &doc) != nil { // its words may quote a token
			return c, fmt.Errorf("%s can't be read as YAML of a kubeconfig's form", name)
		}
		current = cmp.Or(doc.Current, current)
		for _, x := range doc.Contexts {
			if _, ok := contexts[x.Name]; !ok {
				contexts[x.Name] = x.Context
			}
		}
		for _, x := range doc.Users {
			if _, ok := users[x.Name]; !ok {
				x.User.dir = filepath.Dir(name)
				users[x.Name] = x.User
			}
		}
	}
	now, ok := contexts[current]
	if !ok {
		return c, fmt.Errorf("%s has no context %q", strings.Join(files, ":"), current)
	}
	return kubeContext{now.Namespace, users[now.User]}, nil
}

// token is the user's; empty where there is none.
func (c kubeContext) token() (string, error) {
	u := c.user
	switch {
	case u.Provider != nil && u.Provider.Name == "oidc":
		return u.Provider.Config["id-token"], nil // one that has run out is refused by the server
	case u.Provider != nil && u.Provider.Name == "gcp":
		return u.Provider.Config["access-token"], nil
	case u.Token != nil && *u.Token != "":
		return *u.Token, nil
	case u.Token == nil && u.TokenFile != "":
		name := u.TokenFile
		if !filepath.IsAbs(name) {
			name = filepath.Join(u.dir, name)
		}
		b, err := os.ReadFile(name)
		return string(b), err
	case u.Exec != nil:
		return u.Exec.run(u.dir)
	}
	return "", nil
}

// execPatience is how long the program that prints a token may take, and execMost how
// many bytes it may print.
const (
	execPatience = 15 * time.Second
	execMost     = 1 << 20
)

// run asks the program, as kubectl does; it is never asked to ask the user.
func (e *kubeExec) run(dir string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), execPatience, fmt.Errorf("it takes longer than %v", execPatience))
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	c := exec.CommandContext(ctx, e.Command, e.Args...)
	c.Dir, c.WaitDelay = dir, time.Second
	info, err := json.Marshal(map[string]any{"apiVersion": e.APIVersion, "kind": "ExecCredential", "spec": map[string]any{"interactive": false}})
	if err != nil {
		return "", err
	}
	c.Env = os.Environ()
	for _, v := range e.Env {
		c.Env = append(c.Env, v.Name+"="+v.Value)
	}
	c.Env = append(c.Env, "KUBERNETES_EXEC_INFO="+string(info))
	out := bounded{most: execMost, tooMuch: end}
	c.Stdout = &out // what it says beside that may be secret, and is not shown
	err = c.Run()
	if err = cmp.Or(context.Cause(ctx), err); err != nil {
		return "", fmt.Errorf("%s: %w", e.Command, err)
	}
	var answer struct {
		APIVersion string `json:"apiVersion"`
		Status     struct {
			Token string `json:"token"`
		} `json:"status"`
	}
	if json.Unmarshal(out.held.Bytes(), &answer) != nil || answer.APIVersion != e.APIVersion || answer.Status.Token == "" {
		return "", fmt.Errorf("%s prints no ExecCredential of %s with a token", e.Command, e.APIVersion)
	}
	return answer.Status.Token, nil
}

// bounded holds what is written to it, up to most bytes. What would be more is an error,
// which tooMuch is told.
type bounded struct {
	held    bytes.Buffer // in a field, for its ReadFrom knows no bound
	most    int
	tooMuch func(error)
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.held.Len()+len(p) > b.most {
		err := fmt.Errorf("it prints more than %d bytes", b.most)
		b.tooMuch(err)
		return 0, err
	}
	return b.held.Write(p)
}

var _ io.Writer = (*bounded)(nil)
