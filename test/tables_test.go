package test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
)

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
// whatever it is made, is taken, or has the daemon, which has 50 MiB resident without a
// request, most of it the program, pass 128 MiB with a --memory-limit of 64 MiB.
// The server is one that MLflow's own client understands, as a short answer of it
// shows. It measures memory, so it runs alone.
func TestAnswerOfAGiBIsAnErrorWithinTheLimit(t *testing.T) {
	const limit, most = 64, 128
	short := httptest.NewServer(&babbler{head: `{"runs":[` + babbledRun, tail: `]}`})
	defer short.Close()
	c := exec.CommandContext(t.Context(), release("mlflow3").bin("python"), "-c", `import mlflow; print([r.info.run_name for r in mlflow.MlflowClient().search_runs(["1"])])`)
	c.Env = append(pythonEnv(), "MLFLOW_TRACKING_URI="+short.URL)
	if out, err := c.Output(); err != nil || strings.TrimSpace(string(out)) != "['one']" {
		t.Fatalf("MLflow's client: %s, %v", out, err)
	}
	for name, b := range map[string]*babbler{
		"runs":         {head: `{"runs":[` + babbledRun, piece: "," + babbledRun, tail: `]}`},
		"empty runs":   {head: `{"runs":[{}`, piece: ",{}", tail: `]}`},
		"tags":         {head: `{"runs":[{"data":{"tags":[{}`, piece: `,{"key":"k","value":"v"}`, tail: `]}}]}`},
		"string":       {head: `{"next_page_token":"`, piece: "xxxxxxxx", tail: `"}`},
		"other field":  {head: `{"zzz":"`, piece: "xxxxxxxx", tail: `"}`},
		"other values": {head: `{"zzz":[0`, piece: ",[]", tail: `]}`},
	} {
		t.Run(name, func(t *testing.T) {
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
			peak := peakOf(t, m.cmd.Process.Pid)
			figure(t, "1 GiB of %s: %d MiB resident at the most", name, peak)
			if peak > most {
				t.Errorf("the daemon had %d MiB resident", peak)
			}
		})
	}
}
