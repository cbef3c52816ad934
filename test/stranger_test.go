package test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// victim is a server on this machine that nobody should ask; it counts connections.
func victim(t *testing.T) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	s, n := count.Connections("secret")
	t.Cleanup(s.Close)
	return s, n
}

// stranger is a tracking server whose runs have the artifact URIs that are given by
// their ids. It signs what is signed for a path's first part, and redirects others.
func stranger(t *testing.T, uris, signed map[string]string, redirect string) *httptest.Server {
	t.Helper()
	type m = map[string]any
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := func(doc any) { json.NewEncoder(w).Encode(doc) }
		path := r.URL.Path
		door, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(path, artifactsAPI+"/"), "/api/2.0/mlflow-artifacts/presigned/"), "/")
		switch {
		case strings.HasSuffix(path, "/server-info"):
			answer(m{"multipart_downloads_enabled": true})
		case strings.HasSuffix(path, "/runs/get"):
			id := r.URL.Query().Get("run_id")
			answer(m{"run": m{"info": m{"run_id": id, "experiment_id": "0", "status": "FINISHED", "artifact_uri": uris[id]}}})
		case path == artifactsAPI && r.URL.Query().Get("path") != "":
			answer(m{"files": []m{{"path": "f", "file_size": 6}}})
		case strings.Contains(path, "/presigned/") && signed[door] != "":
			answer(m{"url": signed[door]})
		case strings.HasPrefix(path, artifactsAPI+"/"+"redirect"):
			http.Redirect(w, r, redirect, http.StatusTemporaryRedirect)
		case strings.HasSuffix(path, "/search"):
			answer(m{})
		default:
			w.WriteHeader(http.StatusForbidden)
			answer(m{"error_code": "PERMISSION_DENIED"})
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// TestStrangersWordOpensNothing fails when a hostile tracking server (by a bucket, a
// path of this machine, a signed URL, a redirect) has a mount that all users see ask,
// read or show what the settings don't name; or when what they name is not asked.
func TestStrangersWordOpensNothing(t *testing.T) {
	t.Parallel()
	needsRoot(t, "it mounts for other users")
	own := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(own, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	store, asked := victim(t)
	inside, reached := victim(t)
	uris := map[string]string{
		"bucket": "s3://secret/x", "evil": "s3://mine-evil/x", "climb": "s3://mine/%2e%2e/secret", "path": filepath.Dir(own), "file": "file://" + filepath.Dir(own),
		"local": "mlflow-artifacts:/local", "link": "mlflow-artifacts:/link", "redirect": "mlflow-artifacts:/redirect",
		"web": inside.URL + "/web", "host": "mlflow-artifacts://" + strings.TrimPrefix(inside.URL, "http://") + "/x", "named": "s3://mine/x",
	}
	signed := map[string]string{"local": inside.URL + "/f", "link": "http://169.254.169.254/latest/meta-data"}
	s := stranger(t, uris, signed, inside.URL+"/f")
	env := append([]string{"MLFLOWFS_ALLOW_ADDRESS=", "MLFLOW_HTTP_REQUEST_MAX_RETRIES=0", "MLFLOW_S3_ENDPOINT_URL=" + store.URL, "AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secret"}, "MLFLOWFS_ALLOW_STORE=s3://mine")
	m := mountAt(t, s.URL, env, "--allow-other")
	if err := os.Chmod(work, 0o755); err != nil { // so that others come to the mount
		t.Fatal(err)
	}
	for id := range uris {
		if id == "named" {
			continue
		}
		for _, user := range []uint32{0, 65534} {
			for _, script := range []string{`ls -lR "$1"`, `cat "$1/f" "$1/secret"`} {
				c := exec.Command("sh", "-c", script, "sh", m.path("runs", id))
				c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
				if out, err := c.CombinedOutput(); err == nil && !strings.Contains(script, "ls") || strings.HasPrefix(string(out), "secret") || strings.Contains(string(out), " secret\n") {
					t.Errorf("%s, as %d: %s, %v", id, user, out, err)
				}
			}
		}
	}
	if asked.Load() > 0 || reached.Load() > 0 {
		t.Errorf("the store was asked %d times, and what no setting names %d times", asked.Load(), reached.Load())
	}
	for _, want := range []string{"--allow-store", "--allow-address", "path of this machine"} {
		if !strings.Contains(m.log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, tail(m.log.String()))
		}
	}
	output("ls", m.path("runs", "named"))
	if asked.Load() == 0 {
		t.Error("the bucket that a setting names is not asked")
	}
}
