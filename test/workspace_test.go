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

// TestArtifactsOfAWorkspaceAreListed fails when a directory of the artifact API is not
// shown where what lies beside it may not be listed; or when a workspace that is not
// there, or a server that has none, is shown as an empty one.
func TestArtifactsOfAWorkspaceAreListed(t *testing.T) {
	t.Parallel()
	with, without := shared.get(t, "server 3.17 with workspaces"), shared.get(t, "server 2.22")
	for _, c := range []struct {
		server, workspace, uri string
		want                   string // what is printed, of the output or the error
		code                   int
	}{
		{with.uri, "team-a", "mlflow-artifacts:/workspaces/team-a", "2", 0},
		{with.uri, "team-a", "mlflow-artifacts:/2/" + with.Spaces["team-a"] + "/artifacts/doc", "text.txt", 0},
		{with.uri, "none", "mlflow-artifacts:/", "Workspace 'none' not found", 3},
		{with.uri, "none", "runs:/" + with.Spaces["team-a"], "Workspace 'none' not found", 3},
		{without.uri, "team-a", "runs:/" + without.Wide, "the server has no workspaces", 1},
	} {
		cmd := mlflowfs(t, []string{"MLFLOWFS_CACHE_DIR=none", "MLFLOW_TRACKING_URI=" + c.server, "MLFLOW_WORKSPACE=" + c.workspace}, "ls", c.uri)
		out, err := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(string(out), c.want) {
			t.Errorf("%s in %s: %v\n%s", c.uri, c.workspace, err, out)
		}
	}
	dir := t.TempDir()
	cmd := mlflowfs(t, []string{"MLFLOWFS_CACHE_DIR=none", "MLFLOW_WORKSPACE=team-a"}, "mount", "--tracking-uri", without.uri, dir)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "the server has no workspaces") {
		t.Errorf("a mount: %v\n%s", err, out)
	}
}
