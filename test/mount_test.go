package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// refuses runs a command that must fail at once, with the exit code, and with
// a sentence that holds all of words.
func refuses(t *testing.T, code int, env, args []string, words ...string) {
	t.Helper()
	out, err := mlflowfs(t, env, args...).CombinedOutput()
	exit, ok := err.(*exec.ExitError)
	if !ok || exit.ExitCode() != code {
		t.Errorf("mlflowfs %v: %v, want exit code %d\n%s", args, err, code, out)
	}
	said := strings.TrimSpace(string(out))
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("mlflowfs %v does not speak of %q:\n%s", args, w, said)
		}
	}
	if last := said[strings.LastIndexByte(said, '\n')+1:]; !strings.HasPrefix(last, "mlflowfs: ") || strings.Contains(said, "s3cret") {
		t.Errorf("mlflowfs %v says:\n%s", args, said)
	}
}

// TestRefusalsSayWhatToDo fails when what can't be mounted is not refused at
// once, with a sentence that says what to do.
func TestRefusalsSayWhatToDo(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "sqlite 3.17")
	dir := t.TempDir()
	empty, full, file := filepath.Join(dir, "empty"), filepath.Join(dir, "full"), filepath.Join(dir, "file")
	for _, d := range []string{empty, filepath.Join(full, "x")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	m := mountAt(t, s.uri, nil)
	at := func(point string) []string { return []string{"mount", "--tracking-uri", s.uri, point} }
	refuses(t, 1, nil, at(filepath.Join(dir, "none")), "does not exist", "mkdir")
	refuses(t, 1, nil, at(file), "is a file")
	refuses(t, 1, nil, at(full), "not empty")
	refuses(t, 1, nil, at(m.dir), "mounted already", "unmount")
	refuses(t, 1, nil, at(m.path("runs")), "not empty")
	for _, uri := range []string{"ftp://u:s3cret@h", "http://", "http://u:s3cret@[::1", "sqlite://relative", "postgresql://u:s3cret@h:x/db"} {
		refuses(t, 1, nil, []string{"mount", "--tracking-uri", uri, empty}, "tracking URI")
	}
	refuses(t, 3, nil, []string{"mount", "--tracking-uri", "sqlite:///" + dir + "/none.db", empty}, "none.db")
	refuses(t, 2, nil, append(at(empty), "--mount-uris", "s3://bucket,/etc"), "--mount-uris", "/etc", "s3://bucket")
	refuses(t, 2, nil, append(at(empty), "--artifact-access", "magic"), "magic", "presigned")
	refuses(t, 2, nil, []string{"mount"}, "MOUNTPOINT")
	refuses(t, 2, nil, []string{"mount", "--nonsense", empty}, "--nonsense", "--help")
	refuses(t, 2, nil, []string{"mount", "--memory-limit", "much", empty}, "much", "MiB")
	refuses(t, 2, nil, []string{"mount", "--memory-limit", "1KB", empty}, "64 MiB")
	refuses(t, 2, nil, []string{"mount", "--cache-size", "1KB", empty}, "16 MiB", "none")
	refuses(t, 2, nil, []string{"mount", "--parallelism", "0", empty}, "parallelism")
	refuses(t, 2, []string{"MLFLOWFS_METADATA_TTL=soon"}, at(empty), "MLFLOWFS_METADATA_TTL")
	refuses(t, 2, []string{"MLFLOWFS_LOG_LEVEL=loud"}, at(empty), "loud")
	refuses(t, 1, nil, []string{"unmount", empty}, "no mount point")
	refuses(t, 1, nil, []string{"unmount", "/proc"}, "something else")
	refuses(t, 2, nil, []string{"unknown"}, "unknown")

	other := startOther(t)
	refuses(t, 1, nil, []string{"mount", "--tracking-uri", other, empty}, "no MLflow tracking server")
}

// TestEachFlagHasAVariable fails when a flag's help does not name its variable,
// or the variable does not work.
func TestEachFlagHasAVariable(t *testing.T) {
	t.Parallel()
	out, err := mlflowfs(t, nil, "mount", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	flags := 0
	for _, l := range lines(out) {
		if f := strings.TrimSpace(l); strings.HasPrefix(f, "--") {
			flags++
			if !strings.Contains(f, "[$MLFLOW") && !strings.HasPrefix(f, "--daemon") { // that is of the command line alone
				t.Errorf("no variable is named: %s", f)
			}
		}
	}
	if flags < 8 {
		t.Errorf("%d flags", flags)
	}
	s := shared.get(t, "sqlite 3.17")
	m := mountAt(t, "", []string{"MLFLOW_TRACKING_URI=" + s.uri, "MLFLOWFS_MEMORY_LIMIT=80MiB"})
	if got, err := read(m.path("models", "echo@champion", "MLmodel")); err != nil || len(got) == 0 {
		t.Error(err)
	}
}

// TestDefaultStoreIsTheClients fails when with no tracking URI the mount does not
// show what the MLflow client would take.
func TestDefaultStoreIsTheClients(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"sqlite 3.17", "files 2.22"} {
		s := shared.get(t, kind)
		dir := filepath.Dir(strings.TrimPrefix(s.uri, "sqlite:///"))
		point := t.TempDir()
		c := mlflowfs(t, nil, "mount", point)
		c.Dir = dir
		m := launch(t, point, c)
		if got, err := read(filepath.Join(point, "models", "echo@champion", "MLmodel")); err != nil || len(got) == 0 {
			t.Errorf("%s: %v", kind, err)
		}
		m.stop()
	}
}

// TestWritesAreRefused fails when a write of some kind does not answer EROFS.
func TestWritesAreRefused(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "sqlite 3.17")
	m := mountAt(t, s.uri, nil)
	file := m.path("runs", s.Wide, "doc", "text.txt")
	for _, c := range [][]string{
		{"touch", m.path("new")}, {"touch", m.path("runs", s.Wide, "new")}, {"mkdir", m.path("d")}, {"rm", file}, {"rm", m.path("models", "echo@champion")},
		{"rmdir", m.path("runs")}, {"mv", file, m.path("x")}, {"ln", "-s", "a", m.path("l")}, {"ln", file, m.path("l")}, {"chmod", "600", file},
		{"chown", "1", file}, {"truncate", "-s", "1", file}, {"dd", "if=/dev/null", "of=" + file}, {"dd", "if=/dev/null", "conv=notrunc", "oflag=append", "of=" + file}, {"setfattr", "-n", "user.x", "-v", "1", file}, {"mkfifo", m.path("p")},
	} {
		if c[0] == "setfattr" {
			c = []string{"python3", "-c", "import os,sys; os.setxattr(sys.argv[1], 'user.x', b'1')", file}
		}
		if _, err := output(c[0], c[1:]...); err == nil || !strings.Contains(err.Error(), "Read-only file system") {
			t.Errorf("%v: %v", c[:1], err)
		}
	}
}

// TestAttributesAreTrueAndStay fails when stat says a wrong mode, owner, time or
// size, or when inode numbers change.
func TestAttributesAreTrueAndStay(t *testing.T) {
	s := shared.get(t, "server 3.17")
	m := mountAt(t, s.uri, nil, "--metadata-ttl", "100ms")
	stat := func(format string, parts ...string) string {
		t.Helper()
		out, err := output("stat", "-c", format, m.path(parts...))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	who := fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
	for path, want := range map[string]string{
		"":                                    "755 directory " + who,
		"runs":                                "755 directory " + who,
		"runs/" + s.Wide + "/doc/text.txt":    "644 regular file " + who,
		"runs/" + s.Wide + "/empty":           "644 regular empty file " + who,
		"models/echo@champion":                "777 symbolic link " + who,
		"models/echo/1/registered_model_meta": "644 regular file " + who,
		"experiments/wide/wide/run.json":      "644 regular file " + who,
		"experiments/wide/wide/artifacts":     "777 symbolic link " + who,
	} {
		if got := stat("%a %F %u:%g", path); got != want {
			t.Errorf("%s: %s", path, got)
		}
	}
	if got := stat("%s", "runs", s.Wide, "big.bin"); got != fmt.Sprint(64<<20) {
		t.Error("size", got)
	}
	var doc struct {
		Info struct {
			End int64 `json:"end_time"`
		} `json:"info"`
	}
	b, err := read(m.path("experiments", "wide", "wide", "run.json"))
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	if got := stat("%Y", "runs", s.Wide, "doc", "text.txt"); got != fmt.Sprint(doc.Info.End/1000) || err != nil {
		t.Errorf("a file is of %s, and its run ended at %d", got, doc.Info.End)
	}
	before, err := output("find", m.dir, "-printf", "%i %p\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil && os.Getuid() == 0 {
		t.Log("the kernel's caches stay:", err)
	}
	settled(func() int64 { return m.status().FUSE.Names })
	after, err := output("find", m.dir, "-printf", "%i %p\n")
	if err != nil || !bytes.Equal(before, after) {
		t.Error("inode numbers change", err)
	}
	seen := map[string]string{}
	for _, l := range lines(before) {
		ino, path, _ := strings.Cut(l, " ")
		if seen[ino] != "" {
			t.Errorf("%s and %s are one inode", path, seen[ino])
		}
		seen[ino] = path
	}
	if len(seen) < 300 {
		t.Errorf("only %d inodes", len(seen))
	}
}

// TestExperimentsShowEachRun fails when the experiments' side of the tree does
// not show each run under a name that can be a file's.
func TestExperimentsShowEachRun(t *testing.T) {
	t.Parallel()
	for _, kind := range storeKinds {
		s := shared.get(t, kind)
		m := mountAt(t, s.uri, nil)
		out, err := output("ls", "-A", m.path("experiments"))
		names := slices.DeleteFunc(lines(out), func(n string) bool { return n == "metadata" || strings.HasPrefix(n, "other ") }) // which other tests make
		want := "%2E%2E|100%252F|Default|odd%2Fname|wide|é😀"
		if strings.HasPrefix(kind, "files") { // in a directory that was there MLflow makes no Default
			want = strings.Replace(want, "Default|", "", 1)
		}
		if got := strings.Join(names, "|"); err != nil || got != want {
			t.Errorf("%s: %s, %v", kind, got, err)
		}
		id := map[string]string{}
		var twice []string
		for _, r := range s.Runs {
			if r[0] == "twice" {
				twice = append(twice, "twice-"+r[1][:8])
			}
			id[r[0]] = r[1]
		}
		for name, run := range map[string]string{"a%2Fb": id["a/b"], "%2E%2E": id[".."], "100%252F": id["100%2F"], twice[1]: id["twice"], "wide": s.Wide, "running": s.Running} {
			to, err := output("readlink", m.path("experiments", "wide", name, "artifacts"))
			if err != nil || strings.TrimSpace(string(to)) != "../../../runs/"+run {
				t.Errorf("%s: %s leads to %s, %v", kind, name, to, err)
			}
		}
		for _, gone := range []string{"experiments/wide/twice", "experiments/wide/deleted", "experiments/deleted experiment", "experiments/odd"} {
			if _, err := output("stat", m.path(gone)); err == nil || !strings.Contains(err.Error(), "No such file") {
				t.Errorf("%s: %s: %v", kind, gone, err)
			}
		}
		runs, err := output("ls", m.path("runs"))
		if err != nil || strings.Contains(string(runs), s.Deleted) || !strings.Contains(string(runs), s.Running) {
			t.Errorf("%s: runs/ shows a deleted run, or not one that is running: %v", kind, err)
		}
	}
}

// TestUnreadableArtifactsSayWhy fails when artifacts that nothing here reads do
// not answer EOPNOTSUPP, or those that no credentials are there for EACCES, each
// with a line in the log that names them; or when with --allow-other a server
// chooses this machine's files.
func TestUnreadableArtifactsSayWhy(t *testing.T) {
	t.Parallel()
	// They lie in a store of their own: what is added to a shared one can be read.
	// No server stands behind it, that could send what the client can't read.
	store := filepath.Join(t.TempDir(), "mlruns")
	locations := []string{"nfs4://host/key", "s3://bucket/key"}
	out := release("mlflow3").code(t, filepath.Dir(store), []string{"MLFLOW_TRACKING_URI=" + store}, "", append([]string{"-c", `
import mlflow, sys
c = mlflow.MlflowClient()
for uri in sys.argv[1:]:
    print(c.create_run(c.create_experiment(uri[:2], artifact_location=uri)).info.run_id)
`}, locations...)...)
	ids := strings.Fields(out)
	if len(ids) != len(locations) {
		t.Fatal(out)
	}
	runs := map[string]string{locations[0]: ids[0], locations[1]: ids[1]}
	m := mountAt(t, store, fast)
	for uri, errno := range map[string]string{locations[0]: "not supported", locations[1]: "Permission denied"} {
		for range 3 {
			if _, err := output("ls", m.path("runs", runs[uri])); err == nil || !strings.Contains(err.Error(), errno) {
				t.Error(err)
			}
		}
		if _, err := output("cat", m.path("runs", runs[uri], "x")); err == nil || !strings.Contains(err.Error(), errno) {
			t.Error(err)
		}
	}
	for _, what := range []string{`\"nfs4\"`, "no AWS credentials"} {
		waitFor(t, "the log does not name "+what, long, func() bool { return strings.Contains(m.log.String(), what) })
		if n := strings.Count(m.log.String(), what); n > 2 {
			t.Errorf("the log names %s %d times:\n%s", what, n, m.log)
		}
	}

	// To all users of the machine a server does not choose this machine's
	// files: it may send them itself.
	s := shared.get(t, "server 3.17").server
	p := proxyTo(t, s.url())
	dir := t.TempDir()
	run := newRun(t, s.url(), newExperiment(t, s.url(), "other local", dir))
	file := filepath.Join(dir, run, "artifacts", "f.txt")
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte("by the server"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for flag, sent := range map[string]int{"--allow-other": 1, "--allow-other=false": 0} {
		m := mountAt(t, p.URL, fast, flag)
		p.Reset()
		if got, err := read(m.path("runs", run, "f.txt")); err != nil || string(got) != "by the server" {
			t.Error(string(got), err)
		}
		if requests, _ := p.Reset(); count.Of(requests, "/get-artifact") != sent {
			t.Errorf("with %s:\n%s", flag, strings.Join(requests, "\n"))
		}
	}
}

// TestBesideAWriterBothGetOn fails when a mount and an MLflow that writes to the
// same store disturb each other.
func TestBesideAWriterBothGetOn(t *testing.T) {
	t.Parallel()
	for kind, location := range map[string]string{"sqlite": "sqlite:///%s/mlflow.db", "files": "%s/mlruns"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			besideAWriter(t, dir, fmt.Sprintf(location, dir))
		})
	}
}

func besideAWriter(t *testing.T, dir, uri string) {
	script := `
import mlflow, sys
for i in range(20):
    with mlflow.start_run(run_name=f"r{i}"):
        mlflow.log_metric("m", i)
        mlflow.log_text(str(i), "i.txt")
`
	env := []string{"MLFLOW_TRACKING_URI=" + uri}
	release("mlflow3").code(t, dir, env, "", "-c", "import mlflow; mlflow.set_experiment('first')")
	m := mountRaced(t, uri, nil, "--metadata-ttl", "50ms")
	done := make(chan error, 1)
	go func() {
		_, err := release("mlflow3").run(dir, append(pythonEnv(), env...), "", "-c", script)
		done <- err
	}()
	reads := 0
	for busy := true; busy; reads++ {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal("the writer: ", err)
			}
			busy = false
		default:
		}
		if _, err := output("ls", "-lR", m.path("experiments")); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the last run is not seen", 10*time.Second, func() bool {
		out, err := output("cat", m.path("experiments", "Default", "r19", "artifacts", "i.txt"))
		return err == nil && string(out) == "19"
	})
	if reads < 3 {
		t.Errorf("it was read %d times while it was written: nothing was tested", reads)
	}
	if strings.Contains(m.log.String(), "failed") {
		t.Error(m.log)
	}
}
