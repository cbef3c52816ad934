package meta

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBadTrackingURIIsRefused fails when a tracking URI that can't work is taken, or
// when the error does not say why, or holds the password.
func TestBadTrackingURIIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	notes := filepath.Join(dir, "notes.db")
	if err := os.WriteFile(notes, []byte("these are no tables"), 0o600); err != nil {
		t.Fatal(err)
	}
	for uri, want := range map[string]string{
		"http://":                               "http://",
		"http://[::1":                           "http://",
		"ftp://h/x":                             "can't be understood",
		"sqlite://x.db":                         "sqlite:///",
		"sqlite:///":                            "sqlite:///",
		"sqlite:///" + dir + "/none.db":         "can't be opened",
		"sqlite:///" + dir:                      "a directory",
		"sqlite:///" + notes:                    "can't be read",
		dir + "/none":                           "can't be opened",
		"postgresql://u:s3cret@h:x/db":          "a port that is no number",
		"postgresql://u:p@s3cret@h/db":          "%40 for an @",
		"postgresql://h:1/db?password=p@s3cret": "%40 for an @",
		"mysql+pymysql://u:s3cret@h/db?ssl_x=1": "ssl_x",
		"mssql://h/db?password=s3cret":          "mssql+pyodbc://user:password@host",
		"databricks://u:s3cret@profile":         "Databricks",
		"databricks":                            "DATABRICKS_HOST and DATABRICKS_TOKEN",
		"databricks://profile":                  "DATABRICKS_HOST and DATABRICKS_TOKEN",
		"databricks://scope:s3cret":             "secret scope",
		"databricks-uc":                         "MLFLOW_REGISTRY_URI",
		"uc:http://h:8080":                      "MLFLOW_REGISTRY_URI",
		"file://elsewhere/x":                    "file:///",
		"strange://u:s3cret@h?password=s3cret#": "can't be understood",
	} {
		s, _, err := Open(uri, env(nil), quiet)
		if err == nil {
			s.Close()
			t.Errorf("%s was opened", uri)
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

// TestDefaultTrackingURIFollowsMLflow fails when a mount without --tracking-uri shows
// another store than MLflow uses in the same directory.
func TestDefaultTrackingURIFollowsMLflow(t *testing.T) {
	t.Chdir(t.TempDir())
	if got := DefaultTrackingURI(); got != "sqlite:///mlflow.db" {
		t.Error(got)
	}
	if err := os.MkdirAll("mlruns/models/123", 0o755); err != nil {
		t.Fatal(err)
	}
	if got := DefaultTrackingURI(); got != "sqlite:///mlflow.db" {
		t.Error("an mlruns without experiments:", got)
	}
	if err := errors.Join(os.MkdirAll("mlruns/0", 0o755), os.WriteFile("mlruns/0/meta.yaml", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if got := DefaultTrackingURI(); got != "mlruns" {
		t.Error(got)
	}
}
