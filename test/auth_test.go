package test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBasicAuthIsKeptTo fails when wrong credentials for a server with MLflow's
// basic-auth app are not refused at the mount, a user sees what the server does
// not let him see, or the password is somewhere.
func TestBasicAuthIsKeptTo(t *testing.T) {
	t.Parallel()
	const admin, password = "admin", "s3cret-Admin-password"
	const guest, guestPassword = "guest", "s3cret-Guest-password"
	dir := t.TempDir()
	ini := filepath.Join(dir, "auth.ini")
	if err := os.WriteFile(ini, fmt.Appendf(nil, "[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///%s/auth.db\nadmin_username = %s\nadmin_password = %s\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n", dir, admin, password), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, "mlflow3", []string{"MLFLOW_AUTH_CONFIG_PATH=" + ini, "MLFLOW_FLASK_SERVER_SECRET_KEY=key"}, "--app-name", "basic-auth")
	api(t, s.url(), "/api/2.0/mlflow/users/create", map[string]any{"username": guest, "password": guestPassword}, admin, password)
	runs := map[string]string{}
	for _, name := range []string{"open", "closed"} {
		exp := newExperiment(t, s.url(), name, "", admin, password)
		runs[name] = newRun(t, s.url(), exp, admin, password)
		file := filepath.Join(s.artifacts(), exp, runs[name], "artifacts", "f.txt")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		if name == "open" {
			api(t, s.url(), "/api/3.0/mlflow/users/permissions/grant",
				map[string]any{"username": guest, "resource_type": "experiment", "resource_id": exp, "permission": "READ"}, admin, password)
		}
	}

	point := t.TempDir()
	mountArgs := []string{"mount", "--tracking-uri", s.url(), point}
	refuses(t, 4, nil, mountArgs, "refuses the credentials", "MLFLOW_TRACKING_USERNAME")
	refuses(t, 4, []string{"MLFLOW_TRACKING_USERNAME=admin", "MLFLOW_TRACKING_PASSWORD=s3cret-wrong"}, mountArgs, "refuses the credentials")
	refuses(t, 4, nil, []string{"mount", "--tracking-uri", strings.Replace(s.url(), "//", "//admin:s3cret-wrong@", 1), point}, "refuses the credentials")

	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".mlflow"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".mlflow", "credentials"), fmt.Appendf(nil, "[mlflow]\nmlflow_tracking_username = %s\nmlflow_tracking_password = %s\n", guest, guestPassword), 0o600); err != nil {
		t.Fatal(err)
	}
	asAdmin := mountAt(t, s.url(), append([]string{"MLFLOW_TRACKING_USERNAME=" + admin, "MLFLOW_TRACKING_PASSWORD=" + password}, fast...), "--log-level", "debug")
	asGuest := mountAt(t, s.url(), append([]string{"HOME=" + home}, fast...), "--log-level", "debug")
	inURI := mountAt(t, strings.Replace(s.url(), "//", "//"+guest+":"+guestPassword+"@", 1), fast, "--log-level", "debug")

	for _, name := range []string{"open", "closed"} {
		if got, err := read(asAdmin.path("runs", runs[name], "f.txt")); string(got) != name || err != nil {
			t.Errorf("the admin reads %q, %v", got, err)
		}
	}
	for _, m := range []*mount{asGuest, inURI} {
		if got, err := read(m.path("runs", runs["open"], "f.txt")); string(got) != "open" || err != nil {
			t.Errorf("the guest reads %q, %v", got, err)
		}
		for _, path := range []string{"f.txt", ""} {
			if _, err := output("ls", m.path("runs", runs["closed"], path)); err == nil || !strings.Contains(err.Error(), "Permission denied") {
				t.Errorf("the guest and what is closed: %v", err)
			}
		}
		out, err := output("ls", m.path("runs"), m.path("experiments"))
		if err != nil || strings.Contains(string(out), runs["closed"]) || strings.Contains(string(out), "closed\n") || !strings.Contains(string(out), runs["open"]) {
			t.Errorf("the guest is shown %s, %v", out, err)
		}
		if said := leftOut(t, m); len(said) > 0 { // MLflow's own server refuses no search: it leaves out what is closed
			t.Errorf("left out are %q", said)
		}
	}
	for _, m := range []*mount{asAdmin, asGuest, inURI} {
		if strings.Contains(m.log.String(), "s3cret") {
			t.Errorf("a password is in the log:\n%s", m.log)
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	if bytes.Contains(mounts, []byte("s3cret")) {
		t.Error("a password is in the table of mounts")
	}
}
