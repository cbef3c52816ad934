package rest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAskersAreToldApart fails when two users, or two workspaces, of one server
// are taken for one, when one user with a new password or token is taken for
// another, or when what tells them apart holds a secret.
func TestAskersAreToldApart(t *testing.T) {
	t.Parallel()
	jwt := func(sub string, n int) string {
		part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
		return part(`{"alg":"none"}`) + "." + part(fmt.Sprintf(`{"iss":"i","sub":%q,"jti":%d}`, sub, n)) + ".s3cret"
	}
	asker := func(uri string, env ...string) string {
		t.Helper()
		got := Asker(uri, func(name string) string {
			for i := 0; i < len(env); i += 2 {
				if env[i] == name {
					return env[i+1]
				}
			}
			return ""
		})
		if strings.Contains(got, "s3cret") {
			t.Errorf("a secret: %s", got)
		}
		return got
	}
	const at = "https://host/x"
	user := func(name, password string) string {
		return asker(at, "MLFLOW_TRACKING_USERNAME", name, "MLFLOW_TRACKING_PASSWORD", password)
	}
	seen := map[string]int{}
	for i, one := range [][]string{
		{asker(at)},
		{asker(at, "MLFLOW_WORKSPACE", "a")},
		{asker(at, "MLFLOW_WORKSPACE", "b")},
		{user("ann", "s3cret1"), user("ann", "s3cret2"), asker("https://ann:s3cret@host/x")},
		{user("bob", "s3cret1")},
		{asker(at, "MLFLOW_TRACKING_TOKEN", jwt("ann", 1)), asker(at, "MLFLOW_TRACKING_TOKEN", jwt("ann", 2))},
		{asker(at, "MLFLOW_TRACKING_TOKEN", jwt("bob", 1))},
		{asker(at, "MLFLOW_TRACKING_TOKEN", "s3cret"), asker(at, "MLFLOW_TRACKING_TOKEN", "other-s3cret")},
	} {
		for _, a := range one {
			if n, ok := seen[a]; ok && n != i {
				t.Errorf("%d and %d are one asker, %s", n, i, a)
			}
			seen[a] = i
		}
	}
	if len(seen) != 8 {
		t.Errorf("8 askers are taken for %d", len(seen))
	}
}

// TestDamagedCredentialsFileIsNotQuoted fails when the error about a damaged
// credentials file shows a password from it.
func TestDamagedCredentialsFileIsNotQuoted(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(home, ".mlflow"), 0o700),
		os.WriteFile(filepath.Join(home, ".mlflow", "credentials"), []byte("[mlflow\ns3cret"), 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err := NewClient("http://h", env(map[string]string{"HOME": home}), quiet)
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Error(err)
	}
}
