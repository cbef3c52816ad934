package test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	mountfs "github.com/mlflowfs/mlflowfs/fs"
)

// recorded is the program, which writes a line of its arguments to the file ran each time
// that it is run.
func recorded(t *testing.T) (program, ran string) {
	t.Helper()
	real, err := shipped()
	if err != nil {
		t.Fatal(err)
	}
	program, ran = filepath.Join(t.TempDir(), "mlflowfs"), filepath.Join(t.TempDir(), "ran")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho \"$@\" >>"+ran+"\nexec "+real+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return program, ran
}

// TestPluginGoesByMLflowsOwnWord fails when the plug-in reads for MLflow what another
// package's repository reads, or asks for it without another package's headers or login;
// when a file of settings sends it to another registry; when no destination is the working
// directory; when a mount that it has made lies in a directory that MLflow deletes; or when
// MLflow's classes lose their names.
func TestPluginGoesByMLflowsOwnWord(t *testing.T) {
	t.Parallel()
	plugin := withPlugin(t)
	program, ran := recorded(t)
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte("registry-uri: http://127.0.0.1:1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	plugin = append(plugin, "MLFLOWFS_PROGRAM="+program, "MLFLOWFS_CONFIG="+config)
	u := newPluginUser(t, "mlflow3", "", "MLFLOW_TRACKING_URI="+proxyTo(t, shared.get(t, "server 3.17").uri).URL) // no other test mounts that
	text := lastLine(first(u.script([]string{"MLFLOWFS_PLUGIN=off"}, "plugin_others.py", "as it is", u.seed)))
	ours := strings.TrimPrefix(plugin[0], "PYTHONPATH=")
	declares := func(points string) string { // a package with entry points
		info := filepath.Join(t.TempDir(), "theirs-1.dist-info")
		os.Mkdir(info, 0o755)
		os.WriteFile(filepath.Join(info, "METADATA"), []byte("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n"), 0o644)
		if err := os.WriteFile(filepath.Join(info, "entry_points.txt"), []byte(points), 0o644); err != nil {
			t.Fatal(err)
		}
		return filepath.Dir(info)
	}
	repository := declares("[mlflow.artifact_repository]\nmlflow-artifacts = plugin_theirs:Others\ns3 = plugin_theirs:Others\n")
	headers := declares("[mlflow.request_header_provider]\nunused = plugin_theirs:Tenant\n")
	for what, x := range map[string]struct {
		env  []string
		want string
		runs bool // the program
	}{
		"repository behind": {[]string{"PYTHONPATH=" + ours + ":" + repository}, `"by another package"`, false},
		"repository before": {[]string{"PYTHONPATH=" + repository + ":" + ours}, `"by another package"`, false},
		"headers declared":  {[]string{"PYTHONPATH=" + ours + ":" + headers}, text, false},

		"as it is":       {nil, text, true},
		"headers":        {nil, text, false},
		"repository":     {nil, `"by another package"`, false},
		"login":          {[]string{"MLFLOW_TRACKING_AUTH=theirs"}, text, false},
		"no destination": {nil, "[" + text + `, "mine"]`, true},
		"names":          {nil, `["GCSArtifactRepository", "AzureBlobArtifactRepository", "AzureDataLakeArtifactRepository", "S3ArtifactRepository"]`, false},
	} {
		t.Run(what, func(t *testing.T) {
			os.Remove(ran)
			out, errs := u.script(slices.Concat(plugin, x.env), "plugin_others.py", what, u.seed)
			if lastLine(out) != x.want || strings.Contains(errs, "without mlflowfs") || (readFile(ran) != "") != x.runs {
				t.Errorf("%s gives %s, want %s; the program ran: %q\n%s", what, lastLine(out), x.want, readFile(ran), tail(errs))
			}
		})
	}
	t.Run("temporary", func(t *testing.T) {
		tmp := t.TempDir()
		out, errs := u.script(append(slices.Clone(plugin), "XDG_RUNTIME_DIR=", "TMPDIR="+tmp, "MLFLOWFS_AUTOMOUNT=1"), "plugin_others.py", "temporary", u.seed)
		a := &asker{t: t, run: tmp}
		points := a.automounts()
		if !strings.HasPrefix(lastLine(out), `[{"a": [1, 2.5], "b": null}, ["mlflowfs-`) || len(points) != 1 || filepath.Dir(filepath.Dir(points[0])) != tmp {
			t.Errorf("it gives %s, and the mounts are %v\n%s", out, points, tail(errs))
		}
		for _, p := range points {
			if said, err := mlflowfs(t, nil, "unmount", p).CombinedOutput(); err != nil {
				t.Errorf("%s, %v", said, err)
			}
		}
		waitFor(t, "a mount stays", 20*time.Second, func() bool { return !strings.Contains(leftovers(), tmp) })
	})
}

// TestPluginAsksOnce fails when MLflow's client asks its server where the artifacts lie, for
// a download that the program answers.
func TestPluginAsksOnce(t *testing.T) {
	t.Parallel()
	plugin := withPlugin(t)
	u := newPluginUser(t, "mlflow3", "", "MLFLOW_TRACKING_URI="+shared.get(t, "server 3.17").uri)
	dir := t.TempDir()
	program := filepath.Join(dir, "mlflowfs") // the last name in the URI is that of the path
	script := "#!/bin/sh\nfor uri; do :; done\nat=" + dir + "/$(basename \"$uri\")\ntouch \"$at\"\necho '{\"how\": \"mount\", \"path\": \"'\"$at\"'\"}'\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	out, errs := u.script(append(plugin, "MLFLOWFS_PROGRAM="+program, "MLFLOW_TRACKING_URI=http://127.0.0.1:1"), "plugin_others.py", "questions", u.seed)
	var paths []string
	if err := json.Unmarshal([]byte(lastLine(out)), &paths); err != nil || len(paths) != 4 {
		t.Errorf("%q, %v\n%s", out, err, tail(errs))
	}
	for _, p := range paths {
		if filepath.Dir(p) != dir {
			t.Errorf("it gives %s", p)
		}
	}
}

// TestPluginListsFromTheMount fails when list_artifacts gives otherwise by a mount than by
// MLflow's own code, is not answered by a mount that lives, or has the program run where
// there is none.
func TestPluginListsFromTheMount(t *testing.T) {
	t.Parallel()
	plugin := withPlugin(t)
	program, ran := recorded(t)
	plugin = append(plugin, "MLFLOWFS_PROGRAM="+program)
	u := newPluginUser(t, "mlflow3", "", "MLFLOW_TRACKING_URI="+proxyTo(t, shared.get(t, "server 3.17").uri).URL) // no other test mounts that
	want := lastLine(first(u.script([]string{"MLFLOWFS_PLUGIN=off"}, "plugin_others.py", "lists", u.seed)))
	m := mountAt(t, "", u.env)
	out, errs := u.script(plugin, "plugin_others.py", "lists", u.seed)
	asked := lines([]byte(readFile(ran)))
	if lastLine(out) != want || strings.Contains(errs, "without mlflowfs") || len(asked) != 6 {
		t.Errorf("it gives %s\nwant %s\nby %q\n%s", lastLine(out), want, asked, tail(errs))
	}
	for _, line := range asked {
		uri := line[strings.LastIndex(line, " ")+1:]
		if said := readFile(m.path(mountfs.ListPath(uri))); !strings.HasPrefix(line, "ls --json --mounted") || !strings.HasPrefix(said, "[{") {
			t.Errorf("%s: the mount says %q", line, said)
		}
	}
}

// TestPluginLeavesOutagesToMLflow fails when, while the server can't be asked, the plug-in
// gives what the server said before of an alias or a directory, where MLflow says that it
// can't be asked.
func TestPluginLeavesOutagesToMLflow(t *testing.T) {
	t.Parallel()
	plugin := withPlugin(t)
	p := proxyTo(t, shared.get(t, "server 3.17").uri)
	u := newPluginUser(t, "mlflow3", "", "MLFLOW_TRACKING_URI="+p.URL, "MLFLOW_HTTP_REQUEST_MAX_RETRIES=0")
	m := mountAt(t, "", u.env)
	if out, errs := u.script(plugin, "plugin_others.py", "outage", u.seed); lastLine(out) != `["MLmodel", 4, true]` {
		t.Fatalf("it gives %s\n%s", out, tail(errs))
	}
	p.Break(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}, nil)
	stock := lastLine(first(u.script([]string{"MLFLOWFS_PLUGIN=off"}, "plugin_others.py", "outage", u.seed)))
	out, errs := u.script(plugin, "plugin_others.py", "outage", u.seed)
	if lastLine(out) != stock || !strings.Contains(stock, "MlflowException") {
		t.Errorf("it gives %s, want %s\n%s", lastLine(out), stock, tail(errs))
	}
	var seed struct{ Prefix string }
	if err := json.Unmarshal([]byte(readFile(u.seed)), &seed); err != nil {
		t.Fatal(err)
	}
	if out, err := output("cat", m.path("models", seed.Prefix+"sk@champion", "MLmodel")); err != nil || len(out) == 0 {
		t.Error("the mount does not show it meanwhile:", err)
	}
}

// first is the first of two.
func first(a, _ string) string { return a }
