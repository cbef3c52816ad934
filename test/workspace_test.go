package test

import (
	"os"
	"strings"
	"testing"
)

// TestAskersShareACacheAndNoAnswer fails when, of two mounts with one cache directory
// that ask a server in two workspaces, or as two users, one shows what the other was
// told: beside each other, or while the server is down; or when it does not show then
// what it was told itself.
func TestAskersShareACacheAndNoAnswer(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17 with workspaces")
	theirs, ours := s.Spaces["team-a"], s.Spaces["default"]
	model := "models/shared@champion/MLmodel"
	for kind, asks := range map[string][2][]string{
		"workspaces": {{"MLFLOW_WORKSPACE=team-a"}, {"MLFLOW_WORKSPACE=default"}},
		"users":      {{"MLFLOW_WORKSPACE=team-a", "MLFLOW_TRACKING_USERNAME=ann", "MLFLOW_TRACKING_PASSWORD=a"}, {"MLFLOW_WORKSPACE=team-a", "MLFLOW_TRACKING_USERNAME=bob", "MLFLOW_TRACKING_PASSWORD=b"}},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			p, cached := proxyTo(t, s.uri), "MLFLOWFS_CACHE_DIR="+t.TempDir()
			as := func(n int) *mount {
				return mountAt(t, p.URL, append(append([]string{cached}, asks[n]...), fast...), "--metadata-ttl", "200ms")
			}
			hasAll := func(m *mount) {
				t.Helper()
				for name, want := range map[string]string{"runs/" + theirs + "/doc/text.txt": "of team-a", model: "model of team-a"} {
					if b, err := os.ReadFile(m.path(name)); string(b) != want {
						t.Errorf("%s: %q, %v", name, b, err)
					}
				}
				if out, err := output("ls", m.path("runs")); !strings.Contains(string(out), theirs) {
					t.Errorf("runs: %s, %v", out, err)
				}
			}
			first := as(0)
			hasAll(first)
			if kind == "workspaces" {
				second := as(1)
				if b, err := os.ReadFile(second.path(model)); string(b) != "model of default" {
					t.Errorf("in the other workspace: %q, %v", b, err)
				}
				if out, err := output("ls", second.path("runs")); !strings.Contains(string(out), ours) || strings.Contains(string(out), theirs) {
					t.Errorf("runs of the other workspace: %s, %v", out, err)
				}
				hasAll(first)
				second.stop()
			}
			first.stop()
			p.Break(down, nil)
			second := as(1)
			for _, name := range []string{"runs/" + theirs + "/doc/text.txt", "runs/" + theirs, "models/shared/2"} {
				if _, err := os.Stat(second.path(name)); err == nil {
					t.Errorf("%s is there", name)
				}
			}
			if b, _ := os.ReadFile(second.path(model)); strings.Contains(string(b), "team-a") {
				t.Errorf("%s: %q", model, b)
			}
			if out, _ := output("ls", second.path("runs")); strings.Contains(string(out), theirs) {
				t.Errorf("runs: %s", out)
			}
			second.stop()
			hasAll(as(0))
		})
	}
}
