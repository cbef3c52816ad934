package test

import (
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestDoctorSaysWhatToMend fails when the doctor does not find what is well, or
// does not say how to mend what is not.
func TestDoctorSaysWhatToMend(t *testing.T) {
	t.Parallel()
	doctor := func(code int, env []string, args ...string) string {
		t.Helper()
		out, err := mlflowfs(t, append(fast, env...), append([]string{"doctor", "--cache-dir", t.TempDir()}, args...)...).CombinedOutput()
		got := 0
		if x, ok := err.(*exec.ExitError); ok {
			got = x.ExitCode()
		}
		if got != code {
			t.Errorf("%v ends with %d, and not %d:\n%s", args, got, code, out)
		}
		return string(out)
	}
	holds := func(out string, wants ...string) {
		t.Helper()
		for _, w := range wants {
			if !strings.Contains(out, w) {
				t.Errorf("no %q in\n%s", w, out)
			}
		}
	}
	s := shared.get(t, "server 3.17")
	p := proxyTo(t, s.uri)
	holds(doctor(0, nil, strings.Replace(p.URL, "://", "://me:s3cret@", 1)),
		"ok      /dev/fuse", "ok      server", "ok      credentials", "ok      version      MLflow 3.17", "ok      clock", ": mlflow-artifacts:/, server: each read is one GET of the tracking server", "descriptors  a mount may open", "holds 0 B of 10 GiB")
	holds(doctor(0, nil, shared.get(t, "server 2.22").uri), "MLflow 2.22", "in one stream", ": mlflow-artifacts:/, server: each file is streamed through the server as a whole", "presigned is left")
	holds(doctor(0, nil, shared.get(t, "sqlite 3.17").uri), "wide", ", direct: each file is opened where it lies")
	holds(doctor(1, nil, "http://127.0.0.1:1"), "BROKEN  server", "check the address")
	holds(doctor(1, nil, startOther(t)), "is no MLflow tracking server")
	holds(doctor(0, []string{"MLFLOW_HTTP_POOL_MAXSIZE=5"}, p.URL), "better  variable     MLFLOW_HTTP_POOL_MAXSIZE is not honoured: --parallelism")

	p.Break(nil, func(r *http.Response) error {
		r.Header.Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		return nil
	})
	holds(doctor(0, nil, p.URL), "better  clock", "ahead of that of 127.0.0.1", "15 minutes", "NTP")
	p.Break(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(401); return true }, nil)
	out := doctor(1, nil, strings.Replace(p.URL, "://", "://me:s3cret@", 1))
	holds(out, "BROKEN  credentials", "MLFLOW_TRACKING_USERNAME")
	if strings.Contains(out, "s3cret") {
		t.Errorf("a password: %s", out)
	}
}
