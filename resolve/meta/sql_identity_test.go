package meta

import "testing"

// TestDatabasesAreToldApart fails when two databases, two users of one or two workspaces
// count as one, so that one is shown for the other, or when a new password makes another.
func TestDatabasesAreToldApart(t *testing.T) {
	t.Parallel()
	of := func(uri string, vars map[string]string) string { return Identity(uri, env(vars)) }
	for _, pair := range [][2]string{
		{"postgresql://u:p@/db?host=/cloudsql/a", "postgresql://u:p@/db?host=/cloudsql/b"},
		{"mysql://u:p@/db?unix_socket=/a", "mysql://u:p@/db?unix_socket=/b"},
		{"postgresql://h/db?options=-csearch_path%3Da", "postgresql://h/db?options=-csearch_path%3Db"},
		{"postgresql://me@a:p@a.example/db", "postgresql://me@b:p@b.example/db"},
		{"postgresql://a:p?w@h/db", "postgresql://b:p?w@h/db"},
		{"mssql+pyodbc:///?odbc_connect=Server=a;UID=u;PWD=p", "mssql+pyodbc:///?odbc_connect=Server=b;UID=u;PWD=p"},
		{"mssql+pyodbc:///?odbc_connect=Server=a;UID=u;PWD=p", "mssql+pyodbc:///?odbc_connect=Server=a;UID=v;PWD=p"},
	} {
		if a, b := of(pair[0], nil), of(pair[1], nil); a == b || a == "" {
			t.Errorf("%s is %s, and %s is %s", pair[0], a, pair[1], b)
		}
	}
	const uri = "postgresql://u:old@h/db?sslmode=require&password=old"
	if of(uri, nil) != of("postgresql+psycopg2://u:new@h/db?password=new&sslmode=require", nil) {
		t.Error("a new password makes another database")
	}
	for _, vars := range []map[string]string{{"PGUSER": "x"}, {"PGSERVICE": "x"}, {"MLFLOW_WORKSPACE": "team", "MLFLOW_ENABLE_WORKSPACES": "true"}} {
		if of(uri, nil) == of(uri, vars) {
			t.Errorf("%v makes no other", vars)
		}
	}
	if a := (map[string]string{"MLFLOW_WORKSPACE": "team"}); of("sqlite:///x", a) == of("sqlite:///x", map[string]string{"MLFLOW_WORKSPACE": "team", "MLFLOW_ENABLE_WORKSPACES": "1"}) {
		t.Error("a workspace of a sqlite file makes no other")
	}
}
