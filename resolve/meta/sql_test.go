package meta

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mlflowfs/mlflowfs/test/dbserver"
)

// mlflowTables makes the least of MLflow's tables, and a run of a name.
func mlflowTables(t *testing.T, s *dbserver.Server, name string) {
	t.Helper()
	db, err := s.Open("mlflow")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, stmt := range aRun("r1", name) {
		if s.Kind == dbserver.MariaDB {
			stmt = strings.ReplaceAll(stmt, "key TEXT", "`key` TEXT")
			stmt = strings.ReplaceAll(stmt, "0584bdc529eb", revisions[0]) // what else there must be is taken for hidden
		}
		if _, err := db.Exec(stmt); err != nil {
			t.Fatal(stmt, err)
		}
	}
}

// TestDatabaseIsAskedByFewAndLeftAlone fails when fifty questions at once take more than
// four connections of a database's server, when one leaves a transaction open, when the
// store writes or could, or when a connection that the server ended meanwhile fails a
// question.
func TestDatabaseIsAskedByFewAndLeftAlone(t *testing.T) {
	t.Parallel()
	s := dbserver.Start(t, dbserver.PostgreSQL)
	mlflowTables(t, s, "first")
	store := openStore(t, s.URI(dbserver.Writer, "mlflow"), nil)
	admin, err := s.Open("mlflow")
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	admin.SetMaxOpenConns(1)
	const others = " FROM pg_stat_activity WHERE datname = 'mlflow' AND pid <> pg_backend_pid()"
	counted := func(what string) (n int) {
		t.Helper()
		if err := admin.QueryRow("SELECT count(*)" + others + what).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for range 2 {
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if got := nameOf(store, "r1"); got != "first" {
					t.Error(got)
				}
			})
		}
		wg.Wait()
		if n := counted(""); n == 0 || n > 4 {
			t.Errorf("%d connections", n)
		}
		if n := counted(" AND state <> 'idle'"); n != 0 {
			t.Errorf("%d transactions are left open", n)
		}
		if _, err := admin.Exec("SELECT pg_terminate_backend(pid)" + others); err != nil {
			t.Fatal(err)
		}
	}
	if got := nameOf(store, "r1"); got != "first" {
		t.Error(got)
	}
	v, done, err := store.(*sqlStore).view(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if _, err := v.db.db.(*sql.Tx).Exec("DELETE FROM runs"); err == nil || !strings.Contains(err.Error(), "read-only transaction") {
		t.Errorf("a question may write: %v", err)
	}
}

// TestDatabaseRefusals fails when a database that is not there, tables that are not
// MLflow's, a wrong password, a socket that is not there or a silent server is taken for
// a run that is not there, is asked for longer than may be, or shows a password; or when
// `mlflow db upgrade` under an open store is an error, or not seen.
func TestDatabaseRefusals(t *testing.T) {
	t.Parallel()
	for _, kind := range dbserver.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			s := dbserver.Start(t, kind)
			mlflowTables(t, s, "first")
			s.Make(t, "empty")
			uri := s.URI(dbserver.Reader, "mlflow")
			silent, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer silent.Close()
			port := ":" + strconv.Itoa(s.Port) + "/"
			for what, c := range map[string]struct {
				uri    string
				denied bool
				words  string
			}{
				"no tables":   {s.URI(dbserver.Reader, "empty"), false, "no tables of MLflow's"},
				"no database": {s.URI(dbserver.Writer, "other"), false, "other"},
				"password":    {strings.Replace(uri, "s3cret", "s3crit", 1), true, "check the user, the password"},
				"no server":   {strings.Replace(uri, port, ":1/", 1), false, "refused"},
				"silence":     {strings.Replace(uri, port, ":"+strconv.Itoa(silent.Addr().(*net.TCPAddr).Port)+"/", 1), false, "can't be read"},
				"no socket":   {strings.Replace(uri, "127.0.0.1"+port+"mlflow", "/mlflow?host=/none&unix_socket=/none/socket", 1), false, "/none"},
			} {
				store := openStore(t, c.uri, map[string]string{"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "1"})
				begin := time.Now()
				_, err := store.Run(t.Context(), "r1")
				if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) != c.denied || !strings.Contains(err.Error(), c.words) || time.Since(begin) > 3*time.Second {
					t.Errorf("%s: %v, in %v", what, err, time.Since(begin))
				}
				if err != nil && (strings.Contains(err.Error(), "s3cr") || strings.Contains(err.Error(), "plant")) {
					t.Errorf("%s: %v", what, err)
				}
				if isAnswer(err) != (c.denied || what == "no tables" || what == "no database") {
					t.Errorf("%s: is it the database's word? %v", what, err)
				}
			}
			store := openStore(t, uri, nil)
			if got := nameOf(store, "r1"); got != "first" {
				t.Fatal(got)
			}
			if _, err := store.Run(t.Context(), "none"); !errors.Is(err, fs.ErrNotExist) || !isAnswer(err) {
				t.Error(err)
			}
			db, err := s.Open("mlflow")
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			for _, stmt := range []string{"ALTER TABLE runs DROP COLUMN name", "UPDATE alembic_version SET version_num = 'fffffffffff0'", "INSERT INTO tags VALUES ('mlflow.runName', 'tagged', 'r1')"} {
				if _, err := db.Exec(stmt); err != nil {
					t.Fatal(err)
				}
			}
			if got := nameOf(store, "r1"); got != "tagged" {
				t.Errorf("a column that an upgrade dropped: %s", got)
			}
			if r := store.Tell(); len(r) != 1 || !strings.Contains(r[0].Words, "fffffffffff0") || strings.Contains(r[0].Words, "s3cret") {
				t.Errorf("%+v", r)
			}
			if _, err := db.Exec("DROP TABLE tags"); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Run(t.Context(), "r1"); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "tags") || !strings.Contains(err.Error(), "fffffffffff0") {
				t.Error(err)
			}
			// An end of the one who asks is his own.
			ctx, cancel := context.WithCancelCause(t.Context())
			own := errors.New("enough")
			cancel(own)
			if _, err := store.Run(ctx, "r1"); !errors.Is(err, own) {
				t.Error(err)
			}
		})
	}
}

// TestErrorsOfAURIShowNoSecret fails when what can't be used of a database's URI is told
// together with a password that is in it, however odd that is or what stands around it.
func TestErrorsOfAURIShowNoSecret(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, []byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF\n\nAAAA\n-----END EC PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, secret := range []string{"s3cret", "a's3cret", `a\'s3cret`, `a\\s3cret`, "a s3cret", "a' password='s3cret", "a`: s3cret", "s3cret`: s3cret", "a\ns3cret", "a=s3cret", "a;s3cret", "a&s3cret=b", "a@s3cret", "a@b/s3cret", "a@s3cret?b", "a@s3cret?b=c", "a@b/s3cret?d", "a/b@s3cret?x=1", "a#b@s3cret?", "a/s3cret", "ü's3cret%"} {
		escaped := url.QueryEscape(secret)
		for _, bad := range []string{"sslmode=none", "sslmode=verify-full&sslrootcert=/none", "sslcert=" + file + "&sslkey=" + file, "sslcert=/none", "sslcert=/none&sslkey=/none", "service=none&servicefile=/none", "port=x", "min_protocol_version=9",
			"channel_binding=x", "require_auth=x", "sslnegotiation=x", "target_session_attrs=x", "sslsni=x", "ssl_strange=x", "ssl_ca=/none", "ssl_cert=/none", "ssl_check_hostname=x", "driver=x&authentication=x"} {
			for _, uri := range []string{
				"postgresql://u:p@h/db?sslpassword=" + escaped + "&" + bad,
				"postgresql://u:p@h/db?" + bad + "&password=" + escaped,
				"postgresql://u:p@h/db?" + bad + "&sslpassword=" + secret,
				"postgresql://u:p@h/db?" + bad + "&sslpassword%3D" + escaped,
				"postgresql://u:p@h/db?" + bad + "&ssl_password=" + secret + "&sslx=1",
				"postgresql://u:" + escaped + "@h/db?" + bad,
				"postgresql://u:" + secret + "@h:x/db?" + bad,
				"postgresql://u:" + secret + "@h/db?" + bad,
				"mysql://u:" + escaped + "@h/db?" + bad,
				"mysql://u:p@h/db?" + bad + "&ssl_key_password=" + secret,
				"mssql+pyodbc://u:" + escaped + "@h/db?" + bad,
				"mssql+pyodbc:///?odbc_connect=Server%3Dh;UID%3Du;PWD%3D" + escaped + "%3B" + url.QueryEscape(bad),
			} {
				var logged strings.Builder
				s, _, err := Open(uri, env(nil), slog.New(slog.NewTextHandler(&logged, nil)))
				if err == nil {
					s.Close()
				} else {
					refused++
				}
				if words := fmt.Sprint(err) + logged.String(); strings.Contains(words, "s3cret") {
					t.Errorf("%s: %s", uri, words)
				}
			}
		}
	}
	if refused < 100 {
		t.Errorf("%d URIs were refused", refused)
	}
}

// TestDatabasePasswordsAndTLS fails when a password of PGPASSFILE, which changes, of
// MYSQL_PWD or of a query is not taken; when TLS that the URI or MLFLOW_MYSQL_SSL_CA asks
// for is not used, or takes another CA's server; or when a parameter that may secure the
// connection is passed over.
func TestDatabasePasswordsAndTLS(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	passfile, socket := filepath.Join(dir, "pgpass"), ""
	t.Setenv("PGPASSFILE", passfile) // libpq's own, which the driver reads
	ca, cert, key := certificate(t)
	other, _, _ := certificate(t)
	for _, kind := range dbserver.Kinds {
		s := dbserver.Start(t, kind)
		mlflowTables(t, s, "first")
		s.Stop()
		if err := s.StartOverTLS(cert, key); err != nil {
			t.Fatal(err)
		}
		socket = s.Socket()
		bare := strings.Replace(s.URI(dbserver.Reader, "mlflow"), ":pl%40nted%2Fs3cret%3F%23@", "@", 1)
		says := func(what, uri string, vars map[string]string, want string) {
			t.Helper()
			if vars == nil {
				vars = map[string]string{}
			}
			vars["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
			store, _, err := Open(uri, env(vars), quiet)
			if err == nil {
				defer store.Close()
				_, err = store.Run(t.Context(), "r1")
			}
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %s: %v", kind, what, err)
			}
		}
		full := s.URI(dbserver.Reader, "mlflow")
		says("a parameter that may secure it", full+"?ssl_strange=x", nil, "ssl_strange")
		says("one that may not", full+"?strange=x", nil, "")
		if kind == dbserver.MariaDB {
			says("no password", bare, nil, "check the user")
			says("MYSQL_PWD", bare, map[string]string{"MYSQL_PWD": dbserver.Password}, "")
			says("a CA", full, map[string]string{"MLFLOW_MYSQL_SSL_CA": ca}, "")
			says("another CA", full, map[string]string{"MLFLOW_MYSQL_SSL_CA": other}, "certificate")
			says("a CA in the URI", full+"?ssl_ca="+ca, nil, "")
			says("another in the URI", full+"?ssl_ca="+other, nil, "certificate")
			named := strings.Replace(full, "127.0.0.1", "localhost", 1) + "?ssl_ca="
			says("another name", named+ca, nil, "ssl_check_hostname=false")
			says("another name, by the variable", strings.TrimSuffix(named, "?ssl_ca="), map[string]string{"MLFLOW_MYSQL_SSL_CA": ca}, "ssl_check_hostname=false")
			says("what is said to be set", strings.Replace(named, "ssl_ca=", "ssl_check_hostname=false", 1), map[string]string{"MLFLOW_MYSQL_SSL_CA": ca}, "")
			says("that, and another CA", strings.Replace(named, "ssl_ca=", "ssl_check_hostname=false", 1), map[string]string{"MLFLOW_MYSQL_SSL_CA": other}, "certificate")
			says("another name, which is not to matter", named+ca+"&ssl_check_hostname=false", nil, "")
			says("another CA, of any name", named+other+"&ssl_check_hostname=false", nil, "certificate")
			says("no CA", full+"?ssl_ca=/none", nil, "MLFLOW_MYSQL_SSL_CA")
			says("a socket", strings.Replace(full, "127.0.0.1:"+strconv.Itoa(s.Port), "", 1)+"?unix_socket="+socket, nil, "")
			continue
		}
		write := func(password string) {
			t.Helper()
			line := "127.0.0.1:*:mlflow:" + dbserver.Reader + ":" + password + "\n"
			if err := os.WriteFile(passfile, []byte(line), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("wrong")
		says("a wrong one of PGPASSFILE", bare, nil, "check the user")
		store := openStore(t, bare, map[string]string{"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"})
		write(dbserver.Password)
		if got := nameOf(store, "r1"); got != "first" {
			t.Errorf("a password that was written after the store was opened: %s", got)
		}
		says("a query's", bare+"?password="+url.QueryEscape(dbserver.Password), nil, "")
		says("a query's with an @", bare+"?password="+dbserver.Password, nil, "write postgresql+psycopg2://user:password@host:port/database, with %40")
		says("TLS", full+"?sslmode=verify-full&sslrootcert="+ca, nil, "")
		says("another CA", full+"?sslmode=verify-full&sslrootcert="+other, nil, "certificate")
		named := strings.Replace(full, "127.0.0.1", "localhost", 1) + "?sslrootcert=" + ca + "&sslmode="
		says("another name", named+"verify-full", nil, "sslmode=verify-ca")
		says("another name, which is not to matter", named+"verify-ca", nil, "")
		says("a host in the query", strings.Replace(full, "127.0.0.1:"+strconv.Itoa(s.Port), "", 1)+"?host=127.0.0.1:1&host=127.0.0.1:"+strconv.Itoa(s.Port), nil, "")
		says("a socket", strings.Replace(full, "127.0.0.1:"+strconv.Itoa(s.Port), "", 1)+"?host="+socket+"&port="+strconv.Itoa(s.Port), nil, "")
	}
}

// certificate makes a certificate of 127.0.0.1 that is its own CA, and gives its file, and
// both parts as PEM.
func certificate(t *testing.T) (file string, cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	who := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "database"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, who, who, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	file = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, cert, 0o644); err != nil {
		t.Fatal(err)
	}
	return file, cert, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})
}
