package rest

import (
	"strings"
	"testing"
)

// TestRedactHidesCredentials fails when an address that is shown or logged holds a
// password, a token or a query, or when one without them is shown as another one.
func TestRedactHidesCredentials(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"http://h:5000":                         "http://h:5000",
		"https://user:s3cret@h/p":               "https://h/p",
		"http://s3cret@h":                       "http://h",
		"http://u:s3c@ret@h/p?t=s3cret":         "http://h/p",
		"http://u:s3cret/x@h/p":                 "http://…",
		"postgresql://u:s3cret@h:1/db":          "postgresql://h:1/db",
		"sqlite:////tmp/a@b/mlflow.db":          "sqlite:////tmp/a@b/mlflow.db",
		"./mlruns":                              "./mlruns",
		"http://h/p#s3cret":                     "http://h/p",
		"mysql+pymysql://u:s3cret@h/db?":        "mysql+pymysql://h/db",
		"sftp://u:s3c?ret@h/dir":                "sftp://…",
		"sftp://u:s3cret@h:22/dir":              "sftp://h:22/dir",
		"postgresql://u:s3/cret@h/db":           "postgresql://h/db",
		"postgresql://u:s3/c?r#et@h/db":         "postgresql://…",
		"postgresql://h:1/db?password=x@s3cret": "postgresql://…",
		"postgresql://u:s3c@s3cret?@h":          "postgresql://…",
		"MySQL://h/db?password=s3cret":          "MySQL://h/db",
		"mssql://u:s3cret@h/db?x=a@b":           "mssql://…",
		"mssql+pyodbc:///?odbc_connect=s3cret":  "mssql+pyodbc:///",
	} {
		if got := Redact(in); got != want {
			t.Errorf("%s is shown as %s", in, got)
		}
	}
}

// FuzzRedactHidesThePassword fails when some password is shown with the address that
// it stands in.
func FuzzRedactHidesThePassword(f *testing.F) {
	f.Add("s3cret")
	f.Add("p@ss/w?rd#")
	f.Fuzz(func(t *testing.T, password string) {
		if len(password) < 8 || strings.ContainsAny(password, "\x00") || strings.Contains("http://host:5000/path… postgresql://host:5000/path mysql+pymysql://host:5000/path", password) {
			return
		}
		for _, scheme := range []string{"http", "postgresql", "mysql+pymysql"} {
			if got := Redact(scheme + "://user:" + password + "@host:5000/path"); strings.Contains(got, password) {
				t.Errorf("%q is shown in %q", password, got)
			}
		}
	})
}
