package test

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestStatusIsTrue fails when a mount says something else than what it did: in a
// file of its own, by commands, or to Prometheus.
func TestStatusIsTrue(t *testing.T) {
	t.Parallel()
	e := newEngineFiles(t, map[string]int{"f": 3 << 20, "g": 3 << 20})
	withSecret := strings.Replace(e.URL, "://", "://me:s3cret@", 1)
	m := mountAt(t, withSecret, fast, "--metrics-addr", ":0", "--pprof", "--log-format", "json", "--no-passthrough")
	var once atomic.Bool
	e.Break(func(w http.ResponseWriter, r *http.Request) bool {
		if isArtifact(r) || once.Swap(true) {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}, nil)
	e.same(t, m, "f")
	e.same(t, m, "f")
	if _, err := output("cat", m.path("runs", "00000000000000000000000000000000", "x")); err == nil {
		t.Error("a run that is none")
	}
	if out, err := output("ls", "-a", m.dir); err != nil || strings.Contains(string(out), "mlflowfs") {
		t.Errorf("the root lists %q, %v", out, err)
	}
	if out, err := output("ls", "-l", m.path(".mlflowfs")); err != nil || !strings.Contains(string(out), "status.json") {
		t.Errorf("%q, %v", out, err)
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := mlflowfs(t, nil, args...).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
		if strings.Contains(string(out), "s3cret") {
			t.Errorf("a password: %s", out)
		}
		return string(out)
	}
	var s struct {
		Mountpoint string
		Server     string
		PID        int
		Daemon     int     `json:"daemon_pid"`
		Uptime     float64 `json:"uptime_seconds"`
		HitRate    float64 `json:"cache_hit_rate"`
		Cache      struct {
			Misses      int64
			OriginBytes int64 `json:"origin_bytes"`
			Requests    int64 `json:"origin_requests"`
		}
		FUSE     struct{ Opens, Names int }
		Requests map[string]int64 `json:"server_requests"`
		Retries  map[string]int64 `json:"server_retries"`
	}
	if err := json.Unmarshal([]byte(run("status", "--json", m.dir)), &s); err != nil {
		t.Fatal(err)
	}
	if s.Mountpoint != m.dir || s.PID != m.cmd.Process.Pid || s.Daemon != m.daemon() || s.Uptime <= 0 || s.Cache.OriginBytes != 3<<20 || s.Cache.Requests < 1 || s.Cache.Misses < 1 ||
		s.FUSE.Opens < 2 || s.FUSE.Names < 3 || s.Requests["2xx"] < 3 || s.Requests["4xx"] < 1 || s.Retries["5xx"] != 1 || len(s.Retries) != 1 || s.HitRate <= 0 || s.HitRate > 1 {
		t.Errorf("%+v", s)
	}
	if out := run("status", m.dir); !strings.Contains(out, "3.0 MiB in") || !strings.Contains(out, m.dir) {
		t.Error(out)
	}
	var all []map[string]any
	if err := json.Unmarshal([]byte(run("status", "--json")), &all); err != nil || !slices.ContainsFunc(all, func(x map[string]any) bool { return x["mountpoint"] == m.dir && x["cache"] != nil }) {
		t.Errorf("of all mounts: %v, %v", all, err)
	}
	if out := run("list"); !regexp.MustCompile(regexp.QuoteMeta(m.dir) + ` +http://.*@?127.*up \d+s`).MatchString(out) {
		t.Error(out)
	}
	if out, err := mlflowfs(t, nil, "status", "/proc").CombinedOutput(); err == nil || !strings.Contains(string(out), "no mount of mlflowfs") {
		t.Errorf("%s, %v", out, err)
	}

	at := regexp.MustCompile(`http://127\.0\.0\.1:\d+/metrics`).FindString(m.log.String())
	page := func(url string) string {
		t.Helper()
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s, %v", url, resp.Status, err)
		}
		return string(b)
	}
	served := page(at)
	inside, err := read(m.path(".mlflowfs", "metrics"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{served, string(inside)} {
		for _, want := range []string{
			"mlflowfs_origin_bytes_total 3.145728e+06", `mlflowfs_fuse_request_seconds_count{op="read"}`, `mlflowfs_fuse_request_seconds_count{op="look-up"}`,
			`mlflowfs_server_requests_total{status="2xx"}`, `mlflowfs_server_retries_total{status="5xx"} 1`, `mlflowfs_server_retries_total{status="4xx"} 0`, "mlflowfs_cache_misses_total", "go_goroutines",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%s is not there:\n%s", want, tail(text))
			}
		}
	}
	if out := page(strings.Replace(at, "/metrics", "/debug/pprof/goroutine?debug=1", 1)); !strings.Contains(out, "goroutine profile") {
		t.Error(tail(out))
	}

	for l := range strings.Lines(m.log.String()) {
		var line struct{ Level, Msg string }
		if !strings.HasPrefix(l, "mlflowfs: ") && (json.Unmarshal([]byte(l), &line) != nil || line.Level == "") {
			t.Errorf("no JSON: %s", l)
		}
	}
	if strings.Contains(m.log.String(), "DEBUG") {
		t.Error("it is told to debug already")
	}
	m.cmd.Process.Signal(syscall.SIGUSR1)
	waitFor(t, "SIGUSR1 makes the log tell more", long, func() bool {
		return strings.Contains(m.log.String(), `"now":"DEBUG"`)
	})
	// A read can be followed to what it waited for.
	e.same(t, m, "g")
	followed := regexp.MustCompile(`"msg":"a read waits","request":(\d+),"block":0,"fetch":(\d+)`).FindStringSubmatch(m.log.String())
	if followed == nil || !strings.Contains(m.log.String(), `"msg":"read","request":`+followed[1]+`,"path":"/runs/`) ||
		!strings.Contains(m.log.String(), `"msg":"an origin was asked","fetch":`+followed[2]+",") {
		t.Errorf("the log joins no read with its request:\n%s", tail(m.log.String()))
	}
	m.cmd.Process.Signal(syscall.SIGUSR1)
	waitFor(t, "SIGUSR1 has the log tell as much as before", long, func() bool {
		return strings.Contains(m.log.String(), `"now":"INFO"`)
	})
}
