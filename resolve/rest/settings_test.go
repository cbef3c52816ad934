package rest

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestBadSettingIsRefusedByName fails when a variable with a value that can't work is
// taken, or when the error does not name the variable.
func TestBadSettingIsRefusedByName(t *testing.T) {
	t.Parallel()
	for _, vars := range []map[string]string{
		{"MLFLOW_HTTP_REQUEST_TIMEOUT": "soon"},
		{"MLFLOW_HTTP_REQUEST_TIMEOUT": "inf"},
		{"MLFLOW_HTTP_REQUEST_TIMEOUT": "0"},
		{"MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "nan"},
		{"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "-1"},
		{"MLFLOW_TRACKING_SERVER_CERT_PATH": "/nowhere"},
		{"MLFLOW_TRACKING_CLIENT_CERT_PATH": "/nowhere"},
		{"MLFLOW_TRACKING_SERVER_CERT_PATH": "/dev/null", "MLFLOW_TRACKING_INSECURE_TLS": "true"},
	} {
		if _, err := NewClient("https://h", env(vars), quiet); err == nil {
			t.Errorf("%v was taken", vars)
		} else {
			for name := range vars {
				if strings.Contains(err.Error(), name) {
					err = nil
					break
				}
			}
			if err != nil {
				t.Errorf("%v: %v", vars, err)
			}
		}
	}
}

// TestWaitsAreMLflows fails when a command does not wait for a server as long as MLflow's
// client does (4 minutes), when a mount waits longer than 3 s, or when a server's word on
// when to ask again is not followed, or is where that is forbidden.
func TestWaitsAreMLflows(t *testing.T) {
	t.Parallel()
	read := func(vars map[string]string) Settings {
		s, err := ReadSettings(env(vars))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	command, mount := read(nil), read(map[string]string{WholeVariable: "30s"})
	if command.Retries != 7 {
		t.Errorf("%d retries", command.Retries)
	}
	for attempt, want := range []time.Duration{0, 4, 8, 16, 32, 64, 120} {
		want *= time.Second
		if got := command.wait(attempt, nil); got < want || got > want+time.Second {
			t.Errorf("after attempt %d a command waits %v, want %v", attempt, got, want)
		}
		if got := mount.wait(attempt, nil); got > longestWait {
			t.Errorf("after attempt %d a mount waits %v", attempt, got)
		}
	}
	told := &http.Response{StatusCode: 503, Header: http.Header{"Retry-After": {"7"}}}
	if got := command.wait(0, told); got != 7*time.Second {
		t.Errorf("a server says 7 s: %v", got)
	}
	if got := read(map[string]string{"MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false"}).wait(0, told); got != 0 {
		t.Errorf("a server says 7 s, and is not to be heard: %v", got)
	}
	if s := read(map[string]string{"MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "10"}); s.wait(1, nil) != 20*time.Second {
		t.Errorf("with factor 10, after attempt 1: %v", s.wait(1, nil))
	}
}
