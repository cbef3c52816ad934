package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// genai runs genai.py on a store with a release's client, and gives what it prints.
func genai(t *testing.T, r release, uri string, args ...string) string {
	t.Helper()
	return strings.TrimSpace(r.python(t, []string{"MLFLOW_TRACKING_URI=" + uri, "MLFLOW_REGISTRY_URI=" + uri}, "", "genai.py", args...))
}

// TestPromptsAreTheClients fails when what a mount shows of prompts, of a server (3.17,
// 2.22), a sqlite file or a FileStore, does not make the PromptVersion that MLflow's own
// client gives, when a name, a version or an alias is missing or invented, or when
// the commands give something else by the prompt's URI.
func TestPromptsAreTheClients(t *testing.T) {
	t.Parallel()
	for _, kind := range storeKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := shared.get(t, kind)
			genai(t, s.release, s.uri, "prompts", "make", "ask")
			m := mountAt(t, s.uri, fast)
			// MLflow 2's client has another object for a prompt.
			if said := genai(t, "mlflow3", readBy3(t, kind, s.uri), "prompts", "check", m.dir, "ask"); said != "" {
				t.Error(said)
			}
			if got, err := output("ls", m.path("models")); err != nil || strings.Contains(string(got), "ask") {
				t.Errorf("prompts among the models: %s, %v", got, err)
			}
			name := "ask.text"
			if s.release == "mlflow2" {
				name = "ask.old"
			}
			promptByCommands(t, m, s.uri, name)
		})
	}
}

// promptByCommands holds what the commands give of version 2, which has the alias prod,
// against what a mount shows.
func promptByCommands(t *testing.T, m *mount, uri, name string) {
	t.Helper()
	at := func(args ...string) string {
		t.Helper()
		out, err := mlflowfs(t, append(fast, "MLFLOW_TRACKING_URI="+uri), args...).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %s, %v", args, out, err)
		}
		return string(out)
	}
	dir := t.TempDir()
	for attr, want := range map[string]string{"uri": "prompts:/" + name + "/2", "prompt_version": name + "/2"} {
		value := make([]byte, 200)
		if n, err := unix.Lgetxattr(m.path("prompts", name, "2"), "user.mlflow."+attr, value); err != nil || string(value[:n]) != want {
			t.Errorf("the attribute %s is %q, %v", attr, value[:max(n, 0)], err)
		}
	}
	for _, of := range []string{"prompts:/" + name + "/2", "prompts:/" + name + "@prod"} {
		if got := at("ls", of); got != "prompt.json\ntemplate.txt\n" {
			t.Errorf("%s: %q", of, got)
		}
		for _, file := range []string{"prompt.json", "template.txt"} {
			shown, err := read(m.path("prompts", name+"@prod", file))
			if got := at("cat", of+"/"+file); err != nil || got != string(shown) || got == "" {
				t.Errorf("%s: %q, and not %q, %v", file, got, shown, err)
			}
		}
		if got := at("resolve", of); !strings.Contains(got, "prompt    "+name+" 2 -> ") {
			t.Errorf("resolve says %s", got)
		}
		to := filepath.Join(dir, filepath.Base(of))
		if got := at("download", "--quiet", "--dst", to, of); got != to+"\n" {
			t.Errorf("download says %q", got)
		}
		if out, err := output("diff", "-r", to, m.path("prompts", name, "2")); err != nil {
			t.Errorf("%s, %v", out, err)
		}
		if got := at("path", of); !strings.HasSuffix(got, "/prompts/"+name+"/2\n") { // on this mount, or another test's
			t.Errorf("path says %q", got)
		}
	}
	for _, none := range []string{"prompts:/" + name + "/99", "prompts:/" + name + "@none", "prompts:/none/1", "models:/" + name + "/2", "prompts:/" + name + "/2/none"} {
		if out, err := mlflowfs(t, append(fast, "MLFLOW_TRACKING_URI="+uri), "ls", none).CombinedOutput(); err == nil || !strings.Contains(string(out), "does not exist") && !strings.Contains(string(out), "not found") {
			t.Errorf("%s: %s, %v", none, out, err)
		}
	}
}

// TestPromptAliasMoves fails when an alias of a prompt that moves leads where it led,
// when `mlflowfs watch` or inotify do not tell, or when it costs a listing.
func TestPromptAliasMoves(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17")
	const name = "moving"
	genai(t, s.release, s.uri, "prompts", "make", name)
	p := proxyTo(t, s.uri)
	m := mountRaced(t, p.URL, fast, "--metadata-ttl", "500ms")
	watch := mlflowfs(t, fast, "watch", "--tracking-uri", s.uri, "--every", "200ms", "prompts:/"+name+".text@prod")
	said := &count.Log{}
	watch.Stdout, watch.Stderr = said, said
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		watch.Process.Signal(os.Interrupt)
		watch.Wait()
	}()
	says := func(text string) {
		t.Helper()
		waitFor(t, "no "+text+" in "+said.String(), long, func() bool { return strings.Contains(said.String(), text) })
	}
	p.Reset()
	link := m.path("prompts", name+".text@prod")
	if got, err := os.Readlink(link); err != nil || got != name+".text/2" {
		t.Fatalf("%q, %v", got, err)
	}
	says("@prod none 2\n")
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	in := os.NewFile(uintptr(fd), "inotify")
	defer in.Close()
	if _, err := unix.InotifyAddWatch(fd, link, unix.IN_DONT_FOLLOW|unix.IN_DELETE_SELF); err != nil {
		t.Fatal(err)
	}
	api(t, s.uri, "/api/2.0/mlflow/registered-models/alias", map[string]any{"name": name + ".text", "alias": "prod", "version": "1"})
	in.SetReadDeadline(time.Now().Add(long))
	if n, err := in.Read(make([]byte, 4096)); err != nil || n < unix.SizeofInotifyEvent {
		t.Errorf("the move is not heard of: %v", err)
	}
	if got, err := os.Readlink(link); err != nil || got != name+".text/1" {
		t.Errorf("%q, %v", got, err)
	}
	says("@prod 2 1\n")
	if requests, _ := p.Reset(); count.Of(requests, "/search") != 0 {
		t.Errorf("it cost a listing:\n%s", strings.Join(requests, "\n"))
	}
}

// TestTracesAreTheClients fails when the traces that a mount shows of an experiment, of a
// server (3.17, 2.22), a sqlite file or a FileStore, each by its id and all as lines,
// are not those that MLflow's own client reads: info, tags, metadata, assessments, spans,
// attributes, events, exceptions.
func TestTracesAreTheClients(t *testing.T) {
	t.Parallel()
	for _, kind := range storeKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := shared.get(t, kind)
			const name = "other traces" // "other": TestExperimentsShowEachRun expects it
			genai(t, s.release, s.uri, "traces", "make", name, "3")
			m := mountAt(t, s.uri, fast)
			// MLflow 2's client has another object for a trace.
			args := []string{"traces", "check", m.dir, name}
			if kind == "server 2.22" {
				args = append(args, "old")
			}
			if said := genai(t, "mlflow3", readBy3(t, kind, s.uri), args...); said != "" {
				t.Error(said)
			}
			if kind == "server 3.17" {
				linesAreWhole(t, s.uri, name)
			}
		})
	}
}

// readBy3 is a store that MLflow 3's client may read: a database of MLflow 2's is copied,
// for that client upgrades it.
func readBy3(t *testing.T, kind, uri string) string {
	t.Helper()
	if kind != "sqlite 2.22" {
		return uri
	}
	file := filepath.Join(t.TempDir(), "mlflow.db")
	release("mlflow3").code(t, t.TempDir(), nil, "", "-c", "import sqlite3, sys; sqlite3.connect(sys.argv[1]).backup(sqlite3.connect(sys.argv[2]))", strings.TrimPrefix(uri, "sqlite:///"), file)
	return "sqlite:///" + file
}

// linesAreWhole holds what programs read of traces.jsonl, which has no size before it is
// read, against each other.
func linesAreWhole(t *testing.T, uri, experiment string) {
	t.Helper()
	var want []byte
	for _, script := range []string{
		`cat "$1" >out`, `cp "$1" out`, `rsync "$1" out`, `tail -c +1 "$1" >out`,
		`tar -cf x.tar -C "$(dirname "$1")" traces.jsonl && tar -xOf x.tar traces.jsonl >out`,
	} {
		m := mountAt(t, uri, fast)
		c := exec.CommandContext(t.Context(), "sh", "-c", script, "sh", m.path("experiments", experiment, "traces.jsonl"))
		c.Dir = t.TempDir()
		said, err := c.CombinedOutput()
		got, rerr := os.ReadFile(filepath.Join(c.Dir, "out"))
		if want == nil {
			want = got
		}
		if err != nil || rerr != nil || len(got) < 200_000 || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes of %d, %v, %v, %s", script, len(got), len(want), err, rerr, said)
		}
		m.stop()
	}
}

// TestDatasetsAreTheClients fails when the lines that a mount shows of an evaluation
// dataset, of a server 3.17 or a database of its, do not make the records that MLflow's own
// client reads, in their order; when a dataset is missing or has another's name; or when
// a store that knows no datasets shows any, or says an error.
func TestDatasetsAreTheClients(t *testing.T) {
	t.Parallel()
	for _, kind := range storeKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := shared.get(t, kind)
			knows := strings.HasSuffix(kind, " 3.17") && kind != "files 3.17"
			if knows {
				genai(t, s.release, s.uri, "datasets", "make", "asked")
			}
			m := mountAt(t, s.uri, fast)
			if !knows {
				if got, err := output("ls", m.path("datasets")); err != nil || len(got) > 0 || strings.Contains(m.log.String(), "datasets") {
					t.Errorf("%s, %v\n%s", got, err, m.log)
				}
				return
			}
			if said := genai(t, s.release, s.uri, "datasets", "check", m.dir, "asked"); said != "" {
				t.Error(said)
			}
		})
	}
}

// TestRunsDatasetsAreTheClients fails when the run.json of a run that read datasets does not
// name them, with their tags, as MLflow's own client does.
func TestRunsDatasetsAreTheClients(t *testing.T) {
	t.Parallel()
	for _, kind := range storeKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := shared.get(t, kind)
			const name = "other inputs" // "other": TestExperimentsShowEachRun expects it
			genai(t, s.release, s.uri, "inputs", "make", name)
			m := mountAt(t, s.uri, fast)
			if said := genai(t, s.release, s.uri, "inputs", "check", m.dir, name); said != "" {
				t.Error(said)
			}
		})
	}
}

// TestOutageShowsPromptsTracesAndDatasets fails when a mount that is begun while the server
// is down does not show the prompts, traces and records that were read before, bit for bit.
func TestOutageShowsPromptsTracesAndDatasets(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17")
	const name = "other outage"
	genai(t, s.release, s.uri, "prompts", "make", "outage")
	genai(t, s.release, s.uri, "traces", "make", name, "1")
	genai(t, s.release, s.uri, "datasets", "make", "outage")
	p := proxyTo(t, s.uri)
	cached := t.TempDir()
	env := append([]string{"MLFLOWFS_CACHE_DIR=" + cached}, fast...)
	shows := func(m *mount) string {
		t.Helper()
		out, err := output("sh", "-c", `cd "$1" && ls prompts datasets "experiments/$2/traces" && cat prompts/outage.*@prod/* "experiments/$2"/traces/*.json "experiments/$2/traces.jsonl" datasets/outage*`, "sh", m.dir, name)
		if err != nil {
			t.Error(err)
		}
		return string(out)
	}
	m := mountAt(t, p.URL, env)
	want := shows(m)
	settled(func() int64 { return filesBelow(cached) }) // the last answers reach the disk
	m.stop()
	p.Break(down, nil)
	if got := shows(mountAt(t, p.URL, env)); got != want || len(got) < 500_000 {
		t.Errorf("%d bytes are shown, and %d were before", len(got), len(want))
	}
}

// newTraces puts n traces without spans, which go on, into an experiment of a server's
// database, and gives their ids.
func newTraces(t *testing.T, s *seeded, experiment string, n int) (ids []string) {
	t.Helper()
	for i := range n {
		ids = append(ids, fmt.Sprintf("tr-%032x", i+1))
	}
	s.release.code(t, t.TempDir(), nil, strings.Join(ids, "\n"), "-c", `
import sqlite3, sys
with sqlite3.connect(sys.argv[1], timeout=60) as db:
    db.executemany("INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, status) VALUES (?, ?, ?, 'IN_PROGRESS')",
                   [(id, sys.argv[2], 1_700_000_000_000 + i) for i, id in enumerate(sys.stdin.read().split())])
`, filepath.Join(s.server.dir, "mlflow.db"), experiment)
	return ids
}

// TestTracesCostWhatIsRead fails when to list an experiment, also with `ls -l` of its
// runs, lists its 3,000 traces; when their names cost more than a request for each
// two hundred, or its first names more than those of one read; or when a look-up of
// one depends on a listing.
func TestTracesCostWhatIsRead(t *testing.T) {
	t.Parallel()
	s := shared.get(t, "server 3.17")
	const n, name = 3000, "other crowd of traces"
	ids := newTraces(t, s, newExperiment(t, s.uri, name, ""), n)
	p := proxyTo(t, s.uri)
	m := mountAt(t, p.URL, fast, "--metadata-ttl", "10m")
	at := func(names ...string) string {
		return m.path(append([]string{"experiments", name}, names...)...)
	}
	costs := func(what string, most int, of string, args ...string) string {
		t.Helper()
		p.Reset()
		out, err := output(args[0], args[1:]...)
		requests, _ := p.Reset()
		if got := count.Of(requests, of); err != nil || got > most {
			t.Errorf("%s costs %d requests of %q, %v:\n%.2000s", what, got, of, err, strings.Join(requests, "\n"))
		}
		return string(out)
	}
	if got := costs("the experiment", 0, "/traces", "ls", "-l", at()); strings.Count(got, "\n") != 4 || !strings.Contains(got, "traces.jsonl") {
		t.Errorf("the experiment holds %q", got)
	}
	const first = `import os, sys; names = os.scandir(sys.argv[1]); print(next(names).name)` // the kernel reads 32 KiB of names
	if got := costs("the first names", 5, "/traces", "python3", "-c", first, at("traces")); got != ids[n-1]+".json\n" {
		t.Errorf("%q", got)
	}
	got := strings.Fields(costs("all names", n/200+2, "/traces", "ls", at("traces")))
	want := make([]string, n)
	for i, id := range ids {
		want[i] = id + ".json"
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d names, and not %d", len(got), n)
	}
	if got := costs("one trace", 1, "/traces", "cat", at("traces", ids[7]+".json")); !strings.Contains(got, ids[7]) {
		t.Errorf("%q", got)
	}
	costs("a name that is none", 0, "/", "sh", "-c", `! test -e "$1"`, "sh", at("traces", ".git"))
}

// TestGatewaySecretsAreShownNowhere fails when anything of the secrets that MLflow 3 keeps
// for its gateway is in a mount of a server or of its database, or when a server is asked
// for them.
func TestGatewaySecretsAreShownNowhere(t *testing.T) {
	t.Parallel()
	const secret, named = "sk-marker-of-a-secret", "name-of-a-secret"
	s := startServer(t, "mlflow3", []string{"MLFLOW_CRYPTO_KEK_PASSPHRASE=a passphrase of the test"})
	api(t, s.url(), "/api/3.0/mlflow/gateway/secrets/create", map[string]any{"secret_name": named, "secret_value": map[string]any{"api_key": secret}, "provider": "openai"})
	genai(t, "mlflow3", s.url(), "prompts", "make", "ask")
	p := proxyTo(t, s.url())
	for _, uri := range []string{p.URL, "sqlite:///" + filepath.Join(s.dir, "mlflow.db")} {
		m := mountAt(t, uri, fast)
		out, _ := exec.Command("grep", "-r", "-l", "-a", "-e", secret, "-e", named, m.dir).CombinedOutput()
		if len(out) > 0 {
			t.Errorf("%s: it is in\n%s", uri, out)
		}
		if names, err := output("find", m.dir, "-name", "*ecret*"); err != nil || len(names) > 0 {
			t.Errorf("%s: %s, %v", uri, names, err)
		}
		if got, err := output("ls", m.path("prompts")); err != nil || !strings.Contains(string(got), "ask.text@prod") {
			t.Errorf("%s: the prompts are %s, %v", uri, got, err)
		}
	}
	if requests, _ := p.Reset(); count.Of(requests, "gateway") != 0 || len(requests) < 10 {
		t.Errorf("the server was asked for\n%s", strings.Join(requests, "\n"))
	}
}
