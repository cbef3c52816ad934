package rest

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// writeFile writes a file of the test, and the directory that it is in.
func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// kubeconfigOf is a kubeconfig whose user and namespace are these.
func kubeconfigOf(namespace, user string) string {
	return fmt.Sprintf("current-context: c\ncontexts: [{name: c, context: {user: u, namespace: %s}}]\nusers: [{name: u, user: {%s}}]\n", namespace, user)
}

// execOf is a user whose token a shell prints.
func execOf(script string) string {
	return fmt.Sprintf("exec: {apiVersion: client.authentication.k8s.io/v1, command: sh, args: ['-c', %q]}", script)
}

// printToken is a script that prints the credential with a token, which may be a script's.
func printToken(token string) string {
	return `printf '{"apiVersion":"client.authentication.k8s.io/v1","status":{"token":"%s"}}' "` + token + `"`
}

// kubeClient is a client with Kubernetes' credentials of a directory: account and config.
func kubeClient(t *testing.T, uri, dir, auth string) (*Client, error) {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	vars := env(map[string]string{"MLFLOW_TRACKING_AUTH": auth, "KUBECONFIG": filepath.Join(dir, "config")})
	return newTrackingClient(u, vars, kubernetes{filepath.Join(dir, "account"), vars}, quiet)
}

// TestRefusalsRunNoProgramEach fails when a server that refuses one request after another
// has a kubeconfig's program run for each.
func TestRefusalsRunNoProgramEach(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	runs := filepath.Join(dir, "runs")
	writeFile(t, filepath.Join(dir, "config"), kubeconfigOf("n", execOf("echo >> "+runs+"; "+printToken("tok"))))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer s.Close()
	c, err := kubeClient(t, s.URL, dir, "kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := c.JSON(t.Context(), "/x", nil, nil, &struct{}{}); !errors.Is(err, fs.ErrPermission) {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(runs); err != nil || len(b) > 3 { // at the start, at the first refusal, and a minute may have begun
		t.Errorf("the program ran %d times, %v", len(b), err)
	}
}

// TestExecWithoutEndIsEnded fails when a kubeconfig's program that prints without end
// fills the memory, is waited for or lives on, when the error does not say what it does, or
// when a long answer within the bound is not taken.
func TestExecWithoutEndIsEnded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pid := filepath.Join(dir, "pid")
	writeFile(t, filepath.Join(dir, "config"), kubeconfigOf("n", execOf("echo $$ > "+pid+"; exec yes s3cret")))
	begin := time.Now()
	_, err := kubeClient(t, "http://h", dir, "kubernetes")
	if err == nil || !strings.Contains(err.Error(), "sh: it prints more than 1048576 bytes") || strings.Contains(err.Error(), "s3cret") || time.Since(begin) > execPatience/2 {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
	b, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err != nil || !errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
		t.Errorf("the program %s lives on: %v", b, err)
	}
	writeFile(t, filepath.Join(dir, "config"), kubeconfigOf("n", execOf(printToken("tok")+"; head -c 1000000 /dev/zero | tr '\\0' ' '")))
	if c, err := kubeClient(t, "http://h", dir, "kubernetes"); err != nil || c.creds.get().authorization != "Bearer tok" {
		t.Errorf("a long answer: %v", err)
	}
}
