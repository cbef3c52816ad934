package meta

import (
	"context"
	"crypto/tls"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	mssql "github.com/microsoft/go-mssqldb"
)

// recorder is a database that has all tables, of which it gives rows, and notes what it
// is asked.
type recorder struct {
	mu    sync.Mutex
	asked []string
	args  []any // of all of them
	fails error
}

func (r *recorder) Connect(context.Context) (driver.Conn, error) { return recorded{r}, nil }
func (r *recorder) Driver() driver.Driver                        { return nil }

type recorded struct{ *recorder }

func (recorded) Prepare(string) (driver.Stmt, error) { return nil, errors.New("nothing is prepared") }
func (recorded) Close() error                        { return nil }
func (c recorded) Begin() (driver.Tx, error)         { return c, nil }
func (recorded) Commit() error                       { return nil }

// CheckNamedValue takes what the driver of a database does, as it is.
func (recorded) CheckNamedValue(*driver.NamedValue) error { return nil }

func (recorded) Rollback() error { return nil }
func (recorded) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) {
	return recorded{}, nil
}

func (c recorded) QueryContext(_ context.Context, stmt string, args []driver.NamedValue) (driver.Rows, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, stmt+fmt.Sprint(" -- ", len(args)))
	for _, a := range args {
		c.args = append(c.args, a.Value)
	}
	if c.fails != nil {
		return nil, c.fails
	}
	switch {
	case strings.Contains(strings.ToLower(stmt), "information_schema") || strings.Contains(stmt, "pg_attribute"):
		all := strings.Fields(`alembic_version.version_num runs.run_uuid runs.name experiments.workspace experiments.creation_time experiments.artifact_location registered_models.workspace
			registered_model_tags.key registered_model_tags.workspace registered_model_aliases.alias model_versions.name model_versions.status model_versions.storage_location
			model_versions.workspace logged_models.model_id latest_metrics.key latest_metrics.step metrics.step metrics.is_nan inputs.destination_type inputs.step datasets.dataset_uuid input_tags.input_uuid
			model_version_tags.key trace_info.request_id trace_info.session_id trace_info.trace_name trace_tags.request_id trace_request_metadata.request_id spans.content assessments.trace_id
			evaluation_datasets.dataset_id evaluation_datasets.workspace evaluation_dataset_records.dataset_id evaluation_dataset_records.outputs`)
		return &rowsOf{all, func(s string, to []driver.Value) {
			table, column, _ := strings.Cut(s, ".")
			to[0], to[1] = table, column
		}, 2}, nil
	case strings.HasPrefix(stmt, "SELECT name, creation_time, CASE"):
		return &rowsOf{[]string{"m", "n", "o"}, func(s string, to []driver.Value) { to[0], to[1], to[2] = s, int64(1), int64(0) }, 3}, nil
	case strings.HasPrefix(stmt, "SELECT t.request_id"):
		return &rowsOf{[]string{aTrace}, func(s string, to []driver.Value) { to[0], to[1], to[2], to[4] = s, "1", int64(1), "OK" }, 19}, nil
	case strings.HasPrefix(stmt, "SELECT e.experiment_id"):
		return &rowsOf{[]string{"1", "2"}, func(s string, to []driver.Value) { to[0] = s }, 1}, nil
	case strings.Contains(stmt, " of_page "):
		n := 0
		fmt.Sscanf(regexp.MustCompile(`(LIMIT|NEXT) [0-9]+`).FindString(stmt), "NEXT %d", &n) // as many as it asks for
		return &rowsOf{slices.Repeat([]string{"r"}, max(n, 1)), func(s string, to []driver.Value) { to[0], to[5] = s, int64(1) }, 7}, nil
	case strings.HasPrefix(stmt, "SELECT s.content") && !strings.Contains(stmt, "s.span_id >"): // the first page
		return &rowsOf{slices.Repeat([]string{"{}"}, spansPage+1), func(s string, to []driver.Value) { to[0], to[1], to[2], to[3] = s, int64(0), int64(1), "s" }, 4}, nil
	case strings.HasPrefix(stmt, "SELECT p.value FROM trace_tags"):
		return &rowsOf{[]string{trackingStore}, func(s string, to []driver.Value) { to[0] = s }, 1}, nil
	}
	return &rowsOf{}, nil
}

// rowsOf are rows, each made of a word.
type rowsOf struct {
	words []string
	fill  func(string, []driver.Value)
	width int
}

func (r *rowsOf) Columns() []string { return make([]string, r.width) }
func (r *rowsOf) Close() error      { return nil }
func (r *rowsOf) Next(to []driver.Value) error {
	if len(r.words) == 0 {
		return io.EOF
	}
	r.fill(r.words[0], to)
	r.words = r.words[1:]
	return nil
}

// aTrace is a trace that there is.
const aTrace = "tr-00000000000000000000000000000001"

// questions are all that an sqlStore may be asked.
func questions(ctx context.Context, s Store) map[string]error {
	out := map[string]error{}
	ask := func(what string, err error) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			out[what] = err
		}
	}
	_, err := s.Ping(ctx)
	ask("ping", err)
	_, err = s.Run(ctx, "r")
	ask("run", err)
	for _, token := range []string{"", "5 r", "null r"} {
		for _, whole := range []bool{true, false} {
			_, err = s.SearchRuns(ctx, RunQuery{Experiments: []string{"1", "2", "no number"}, JSON: whole}, token)
			ask("runs", err)
		}
	}
	_, err = s.MetricHistory(ctx, "r", "k", "25000")
	ask("metric", err)
	for _, name := range []string{"", "e"} {
		_, err = s.SearchExperiments(ctx, name, "")
		ask("experiments", err)
	}
	_, err = s.LoggedModel(ctx, "m-1")
	ask("logged model", err)
	_, err = s.SearchLoggedModels(ctx, []string{"1"}, "r", "")
	ask("logged models", err)
	_, err = s.RegisteredModel(ctx, "m")
	ask("registered model", err)
	_, err = s.SearchRegisteredModels(ctx, "")
	ask("registered models", err)
	_, err = s.Version(ctx, "m", "1")
	ask("version", err)
	_, err = s.SearchVersions(ctx, "m", "")
	ask("versions", err)
	_, err = s.SearchPrompts(ctx, "")
	ask("prompts", err)
	_, err = s.Prompt(ctx, "m", "1")
	ask("prompt", err)
	for _, token := range []string{"", "2026-01-01T00:00:00Z " + aTrace} {
		_, err = s.SearchTraces(ctx, "1", token)
		ask("traces", err)
	}
	found, err := s.Trace(ctx, aTrace)
	if ask("trace", err); err == nil {
		spans, err := s.Spans(ctx, found)
		if ask("spans", err); err == nil {
			_, err = io.Copy(io.Discard, spans)
			ask("spans", err)
		}
	}
	_, err = s.SearchDatasets(ctx, "")
	ask("datasets", err)
	for _, token := range []string{"", "1 r"} {
		_, err = s.DatasetRecords(ctx, "d", token)
		ask("records", err)
	}
	return out
}

// TestStatementsAreOfTheDialect fails when a statement for SQL Server, of which no server
// can be had here, or for another database, is not one that it takes: by its arguments,
// its quotes, its pages, its truths; or when one is there that does more than read.
func TestStatementsAreOfTheDialect(t *testing.T) {
	t.Parallel()
	for _, d := range []*dialect{&postgres, &mySQL, &sqlServerDialect} {
		r := &recorder{}
		var s Store = &sqlStore{database: openServer(r, "h/db", d, false), workspace: "team"}
		for what, err := range questions(t.Context(), s) {
			t.Errorf("%s: %s: %v", d.kind, what, err)
		}
		s.Close()
		if len(r.asked) < 47 {
			t.Errorf("%s: %d statements", d.kind, len(r.asked))
		}
		for _, asked := range r.asked {
			stmt, n, _ := strings.Cut(asked, " -- ")
			args, _ := strconv.Atoi(n)
			bare := regexp.MustCompile(`'[^']*'`).ReplaceAllString(stmt, "''")
			if !strings.HasPrefix(stmt, "SELECT ") || strings.ContainsAny(bare, ";") || regexp.MustCompile(`(?i)\b(insert|update|delete|drop|alter|into|for update)\b`).MatchString(bare) {
				t.Errorf("%s: does more than read: %s", d.kind, stmt)
			}
			marks := regexp.MustCompile(`\?|\$[0-9]+|@p[0-9]+`).FindAllString(bare, -1)
			want := make([]string, args)
			for i := range want {
				if want[i] = "?"; d.mark != "" {
					want[i] = d.mark + strconv.Itoa(i+1)
				}
			}
			if !slices.Equal(marks, want) && len(marks)+args > 0 {
				t.Errorf("%s: %v stand for %d arguments: %s", d.kind, marks, args, stmt)
			}
			if regexp.MustCompile(`\bkey\b`).MatchString(regexp.MustCompile("[`\"]key[`\"]").ReplaceAllString(bare, "")) || d.quote == "`" && strings.Contains(bare, `"`) || d.quote == `"` && strings.Contains(bare, "`") {
				t.Errorf("%s: a name that is a word of the language: %s", d.kind, stmt)
			}
			if d.most > 0 && args > d.most {
				t.Errorf("%s: %d arguments", d.kind, args)
			}
			if page := strings.Contains(bare, "FETCH NEXT"); d.fetch && (strings.Contains(bare, "LIMIT") || page && !strings.Contains(bare, "ORDER BY")) || !d.fetch && page {
				t.Errorf("%s: a page: %s", d.kind, stmt)
			}
			if d == &sqlServerDialect && (regexp.MustCompile(`(WHERE|AND|NOT) [01]( [^=]|\)|$)`).MatchString(bare) || regexp.MustCompile(`(SELECT|,) *(NOT )?EXISTS`).MatchString(bare) || strings.Contains(bare, "ORDER BY start_time IS")) {
				t.Errorf("%s: a truth: %s", d.kind, stmt)
			}
		}
	}
}

// TestTextsAreBoundAsTheirColumnsAre fails when SQL Server gets a text that its columns can
// hold as nvarchar, so that it uses no index, or another text as varchar, which loses
// letters; or when another database gets a type of SQL Server's.
func TestTextsAreBoundAsTheirColumnsAre(t *testing.T) {
	t.Parallel()
	for d, ascii := range map[*dialect]any{&sqlServerDialect: mssql.VarChar("a'b"), &postgres: "a'b", &mySQL: "a'b"} {
		r := &recorder{}
		s := &sqlStore{database: openServer(r, "h/db", d, false), workspace: "team"}
		defer s.Close()
		for _, id := range []string{"a'b", "früh", ""} {
			if _, err := s.Run(t.Context(), id); !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
		}
		empty := ascii
		if empty = any(""); d == &sqlServerDialect {
			empty = mssql.VarChar("")
		}
		if want := []any{ascii, "früh", empty}; !slices.Equal(r.args, want) {
			t.Errorf("%s: %#v", d.kind, r.args)
		}
		r.args = nil
		s.Version(t.Context(), "m", "7")
		if len(r.args) != 2 || r.args[1] != int64(7) {
			t.Errorf("%s: a number: %#v", d.kind, r.args)
		}
	}
}

// TestModelsAreAskedForTogether fails when a page of registered models costs statements for
// each of them, or with more arguments than there are models.
func TestModelsAreAskedForTogether(t *testing.T) {
	t.Parallel()
	for _, d := range []*dialect{&postgres, &mySQL, &sqlServerDialect} {
		r := &recorder{}
		s := &sqlStore{database: openServer(r, "h/db", d, false), workspace: "team"}
		defer s.Close()
		s.Version(t.Context(), "m", "1") // the tables are known
		r.asked, r.args = nil, nil
		p, err := s.SearchRegisteredModels(t.Context(), "")
		if err != nil || len(p.Items) != 3 || len(r.asked) != 3 || len(r.args) != 6 {
			t.Errorf("%s: %d models by %d statements of %d arguments: %v", d.kind, len(p.Items), len(r.asked), len(r.args), err)
		}
	}
}

// TestDatabaseErrorsAreTold fails when what SQL Server refuses is taken for a server that
// is gone, or the other way round.
func TestDatabaseErrorsAreTold(t *testing.T) {
	t.Parallel()
	for number, want := range map[int32]trouble{208: noTable, 207: noTable, 18456: denied, 229: denied, 4060: refused, 40613: unreachable, 102: refused, 2: refused, 20: refused} {
		if got := troubleOf(sqlServerDialect.classify(mssql.Error{Number: number, Message: "m"})); got != want {
			t.Errorf("%d: %v", number, got)
		}
	}
	if got := troubleOf(sqlServerDialect.classify(io.ErrUnexpectedEOF)); got != unreachable {
		t.Error(got)
	}
	if got := troubleOf(postgres.classify(fmt.Errorf("tls: %w", &tls.CertificateVerificationError{Err: io.EOF}))); got != refused {
		t.Error("a certificate that is not trusted:", got)
	}
	for code, want := range map[string]trouble{"57014": refused, "57P01": unreachable, "40001": unreachable, "3D000": refused, "42P01": noTable, "28P01": denied} {
		if got := troubleOf(postgres.classify(&pgconn.PgError{Code: code})); got != want {
			t.Errorf("%s: %v", code, got)
		}
	}
	r := &recorder{fails: mssql.Error{Number: 18456, Message: "Login failed"}}
	s := &sqlStore{database: openServer(r, "h/db", &sqlServerDialect, false), workspace: "default", retries: 5}
	defer s.Close()
	if _, err := s.Run(t.Context(), "r"); err == nil || len(r.asked) != 1 {
		t.Errorf("%v, asked %d times", err, len(r.asked))
	}
}

// TestSQLServerURIs fails when the URI of SQL Server's that pyodbc or pymssql takes leads
// elsewhere, or what can't be had is taken, or shows the password.
func TestSQLServerURIs(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]string{
		"mssql+pyodbc://u:s3cret@h:1444/db?driver=ODBC+Driver+17+for+SQL+Server": "h:1444 db u s3cret",
		"mssql+pymssql://u:s3cret@h/db?charset=utf8":                             "h:0 db u s3cret",
		"mssql+pyodbc:///?odbc_connect=Driver%3D%7BODBC+Driver+18%7D%3BServer%3Dtcp%3Ah%2C1433%3BDatabase%3Ddb%3BUID%3Du%3BPWD%3D%7Bs3c%7D%7Dret%3B%7D": "h:1433 db u s3c}ret;",
	} {
		u, err := parseSQL(uri)
		if err != nil {
			t.Error(uri, err)
			continue
		}
		if _, _, err := msSQLConnector(&u); err != nil {
			t.Error(uri, err)
		}
		if got := fmt.Sprintf("%s:%d %s %s %s", u.host, u.port, u.database, u.user, u.password); got != want {
			t.Errorf("%s: %s", uri, got)
		}
	}
	u, err := parseSQL(`mssql+pyodbc:///?odbc_connect=Server=h\SQLEXPRESS;UID=u;PWD=abc;s3cret;Database=db`)
	if c, left, cerr := msSQLConnector(&u); err != nil || cerr != nil || u.host != `h\SQLEXPRESS` || len(left) > 0 || c == nil {
		t.Errorf("a named instance, and a password that is cut: %v, %v, %q, %q", err, cerr, u.host, left)
	}
	for _, uri := range []string{"mssql://h/db", "mssql+pyodbc://u:s3cret@h/db?Trusted_Connection=yes", "mssql+pyodbc://u:s3cret@h/db?Authentication=ActiveDirectoryPassword", "mssql+pyodbc://u:s3cret@h/db?ColumnEncryption=yes"} {
		if s, _, err := Open(uri, env(nil), quiet); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, %v", uri, s, err)
		}
	}
}

// TestDatabaseURIsAgainstSQLAlchemy fails when a database's URI, of odd users, passwords,
// hosts and parameters, is read otherwise than by SQLAlchemy, or what it refuses is taken.
func TestDatabaseURIsAgainstSQLAlchemy(t *testing.T) {
	t.Parallel()
	var uris []string
	for _, user := range []string{"", "u@", "u:p@", "u%40d:p%2F%3F%25@", "ü:p/a?s#s@", "u:@", ":p@", "u:%zz@", "u:a%40b%c@", "a+b:c+d@"} {
		for _, host := range []string{"h", "h:1234", "[::1]:5", "", "h:x", "127.0.0.1"} {
			for _, end := range []string{"", "/", "/db", "/d%20b", "/db?a=1&b=%40&a=2", "/db?a=1;b=2", "?c=d+e", "/db?"} {
				uris = append(uris, "postgresql+psycopg2://"+user+host+end)
			}
		}
	}
	in, err := json.Marshal(uris)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(python("mlflow3"), "-c", `
import json, sys
from sqlalchemy.engine.url import make_url
out = []
for uri in json.load(sys.stdin):
    try:
        u = make_url(uri)
        q = {k: [v] if isinstance(v, str) else list(v) for k, v in u.query.items()}
        out.append([u.username or "", u.password or "", u.host or "", u.port or 0, u.database or "", q])
    except Exception:
        out.append(None)
json.dump(out, sys.stdout)`)
	c.Stdin = strings.NewReader(string(in))
	b, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	read := 0
	for i, uri := range uris {
		u, err := parseSQL(uri)
		if string(all[i]) == "null" {
			if err == nil {
				t.Errorf("%s is taken", uri)
			}
			continue
		}
		read++
		maps.DeleteFunc(u.query, func(_ string, v []string) bool { return len(v) == 1 && v[0] == "" })
		got, _ := json.Marshal([]any{u.user, u.password, u.host, u.port, u.database, u.query})
		var a, b any
		if err := errors.Join(err, json.Unmarshal(got, &a), json.Unmarshal(all[i], &b)); err != nil {
			t.Errorf("%s: %v", uri, err)
		} else if diff := gocmp.Diff(b, a); diff != "" {
			t.Errorf("%s: SQLAlchemy (-) and ours (+):\n%s", uri, diff)
		}
	}
	if read < 200 {
		t.Errorf("%d URIs were read", read)
	}
}

var _ interface {
	driver.QueryerContext
	driver.ConnBeginTx
} = recorded{}
