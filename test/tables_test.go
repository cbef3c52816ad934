package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mlflowfs/mlflowfs/test/count"
)

// rowsIn are the rows that tables.py printed.
func rowsIn(t *testing.T, out string) (rows []map[string]string) {
	t.Helper()
	if err := json.Unmarshal([]byte(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:]), &rows); err != nil {
		t.Fatal(err, tail(out))
	}
	return rows
}

// TestTableIsTheClients fails when the table of an experiment with more runs than its
// first page is not what MLflow's own search_runs gives, whichever program reads it
// first (cp, rsync, tar, wc, tail, pandas); or when its first lines, or a stat, cost
// more than one search.
func TestTableIsTheClients(t *testing.T) {
	t.Parallel()
	const n = 230
	s := shared.get(t, "server 3.17")
	name := "other tables of " + t.Name() // "other": TestExperimentsShowEachRun expects it
	experiment := newExperiment(t, s.uri, name, "")
	want := rowsIn(t, s.release.python(t, []string{"MLFLOW_TRACKING_URI=" + s.uri}, "", "tables.py", "make", experiment, fmt.Sprint(n)))
	p := proxyTo(t, s.uri)
	read := func(m *mount) string { return m.path("experiments", name, "runs.csv") }
	m := mountAt(t, p.URL, fast, "--metadata-ttl", "10m")
	p.Reset()
	head, err := output("sh", "-c", `stat "$1" >/dev/null && head -3 "$1"`, "sh", read(m))
	if requests, _ := p.Reset(); err != nil || strings.Count(string(head), "\n") < 3 || count.Of(requests, "runs/search") != 1 {
		t.Errorf("%s, %v, for\n%s", head, err, strings.Join(requests, "\n"))
	}
	whole, err := output("cat", read(m))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "runs.csv")
	if err := os.WriteFile(file, whole, 0o644); err != nil {
		t.Fatal(err)
	}
	sameRuns(t, rowsIn(t, s.release.python(t, nil, "", "tables.py", "read", file)), want)
	for _, script := range []string{
		`cp "$1" out`, `rsync "$1" out`, `tar -cf x.tar -C "$(dirname "$1")" runs.csv && tar -xOf x.tar runs.csv >out`,
		`tail -c +1 "$1" >out`, `test "$(wc -c <"$1")" = ` + fmt.Sprint(len(whole)) + ` && cp "$1" out`, `tail -n 100000 "$1" >out`,
	} {
		m, at := mountAt(t, s.uri, fast), t.TempDir()
		c := exec.CommandContext(t.Context(), "sh", "-c", script, "sh", read(m))
		c.Dir = at
		out, err := c.CombinedOutput()
		got, rerr := os.ReadFile(filepath.Join(at, "out"))
		if err != nil || rerr != nil || !bytes.Equal(got, whole) {
			t.Errorf("%s: %d bytes of %d, %v, %v, %s", script, len(got), len(whole), err, rerr, out)
		}
		m.stop()
	}
	m = mountAt(t, s.uri, fast)
	sameRuns(t, rowsIn(t, s.release.python(t, nil, "", "tables.py", "read", read(m))), want)
}

// sameRuns holds a table's rows against those of mlflow.search_runs.
func sameRuns(t *testing.T, got, want []map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d rows, and not %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		more := map[string]string{}
		if g["more"] != "" {
			if err := json.Unmarshal([]byte(g["more"]), &more); err != nil {
				t.Fatal(err)
			}
			maps.Copy(g, more)
		}
		for k, v := range w {
			known := k == "run_id" || k == "status" || strings.HasPrefix(k, "params.")
			if (known && g[k] != v) || (strings.HasPrefix(k, "metrics.") && !sameNumber(g[k], v)) {
				t.Fatalf("row %d: %s is %q, and not %q", i, k, g[k], v)
			}
		}
	}
}

// babbler is a tracking server with one experiment, whose search for runs answers with
// head, and then piece again and again until n bytes have come, and tail.
type babbler struct {
	head, piece, tail string
	n                 int
}

func (b *babbler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	const experiment = `{"experiment_id":"1","name":"big","lifecycle_stage":"active","creation_time":1,"last_update_time":1,"artifact_location":"mlflow-artifacts:/1"}`
	switch {
	case strings.HasSuffix(r.URL.Path, "/experiments/search"):
		io.WriteString(w, `{"experiments":[`+experiment+`]}`)
	case strings.HasSuffix(r.URL.Path, "/experiments/get-by-name"):
		io.WriteString(w, `{"experiment":`+experiment+`}`)
	case strings.HasSuffix(r.URL.Path, "/runs/search"):
		io.WriteString(w, b.head)
		many := strings.Repeat(b.piece, 1+(64<<10)/max(len(b.piece), 1))
		for sent := 0; sent < b.n; sent += len(many) {
			if _, err := io.WriteString(w, many); err != nil {
				return
			}
		}
		io.WriteString(w, b.tail)
	default:
		http.Error(w, `{"error_code":"ENDPOINT_NOT_FOUND","message":"none"}`, http.StatusNotFound)
	}
}

const babbledRun = `{"info":{"run_id":"0123456789abcdef0123456789abcdef","run_name":"one","experiment_id":"1","status":"FINISHED","start_time":1,"end_time":2,"lifecycle_stage":"active","artifact_uri":"mlflow-artifacts:/1/0123456789abcdef0123456789abcdef/artifacts"},"data":{}}`

// TestAnswerOfAGiBIsAnErrorWithinTheLimit fails when a server's answer of 1 GiB, of
// whatever it is made, is taken, or has the daemon pass its --memory-limit; the least one,
// 64 MiB, by half: it has 50 MiB resident without a request, most of it the program.
// The server is one that MLflow's own client understands, as a short answer of it
// shows. It measures memory, so it runs alone.
func TestAnswerOfAGiBIsAnErrorWithinTheLimit(t *testing.T) {
	short := httptest.NewServer(&babbler{head: `{"runs":[` + babbledRun, tail: `]}`})
	defer short.Close()
	c := exec.CommandContext(t.Context(), release("mlflow3").bin("python"), "-c", `import mlflow; print([r.info.run_name for r in mlflow.MlflowClient().search_runs(["1"])])`)
	c.Env = append(pythonEnv(), "MLFLOW_TRACKING_URI="+short.URL)
	if out, err := c.Output(); err != nil || strings.TrimSpace(string(out)) != "['one']" {
		t.Fatalf("MLflow's client: %s, %v", out, err)
	}
	kinds := map[string]*babbler{
		"runs":         {head: `{"runs":[` + babbledRun, piece: "," + babbledRun, tail: `]}`},
		"empty runs":   {head: `{"runs":[{}`, piece: ",{}", tail: `]}`},
		"tags":         {head: `{"runs":[{"data":{"tags":[{}`, piece: `,{"key":"k","value":"v"}`, tail: `]}}]}`},
		"string":       {head: `{"next_page_token":"`, piece: "xxxxxxxx", tail: `"}`},
		"other field":  {head: `{"zzz":"`, piece: "xxxxxxxx", tail: `"}`},
		"other values": {head: `{"zzz":[0`, piece: ",[]", tail: `]}`},
	}
	ask := func(name string, limit, most int) {
		t.Run(fmt.Sprintf("%s, %d MiB", name, limit), func(t *testing.T) {
			b := kinds[name]
			b.n = 1 << 30
			server := httptest.NewServer(b)
			defer server.Close()
			m := mountAt(t, server.URL, fast, "--memory-limit", fmt.Sprint(limit, "MiB"))
			for _, script := range []string{`ls "$1"`, `head -3 "$1/runs.csv"`} {
				out, err := output("sh", "-c", script+" 2>&1", "sh", m.path("experiments", "big"))
				if err == nil || !strings.Contains(string(out), "Input/output error") {
					t.Errorf("%s: %s, %v", script, tail(string(out)), err)
				}
			}
			peak := peakOf(t, m.daemon())
			figure(t, "1 GiB of %s, with a limit of %d MiB: %d MiB resident at the most", name, limit, peak)
			if peak > most {
				t.Errorf("the daemon had %d MiB resident", peak)
			}
		})
	}
	for name := range kinds {
		ask(name, 64, 96)
	}
	for _, name := range []string{"runs", "empty runs"} { // which take the most
		ask(name, 128, 128)
		ask(name, 256, 256)
	}
}
