// Package dbserver runs real database servers for tests: PostgreSQL and MariaDB of the
// system's packages, each on a port and in a directory of its own, as a user that is not
// root, with rights of a reader besides those of who writes.
package dbserver

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
)

// Kind is a kind of server, by the name that SQLAlchemy has for it.
type Kind string

// The kinds that can be had here.
const (
	PostgreSQL Kind = "postgresql"
	MariaDB    Kind = "mysql"
)

// Kinds are all of them.
var Kinds = []Kind{PostgreSQL, MariaDB}

// Password is that of both users. It is to be found nowhere.
const Password = "pl@nted/s3cret?#"

// Writer may do anything; Reader may read.
const (
	Writer = "writer"
	Reader = "reader"
)

// Server is a running server.
type Server struct {
	Kind Kind
	Port int
	dir  string
	cmd  *exec.Cmd
}

// nobody owns the servers where the test is root's: PostgreSQL refuses root.
const nobody = 65534

// Start starts a server, which ends with the test.
func Start(t testing.TB, kind Kind) *Server {
	t.Helper()
	s, err := New(kind)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// New starts a server, with an empty database mlflow.
func New(kind Kind) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	dir, err := os.MkdirTemp("", "database-") // short: a socket's path has 107 bytes
	if err != nil {
		return nil, err
	}
	s := &Server{Kind: kind, Port: port, dir: dir}
	if os.Getuid() == 0 {
		err = os.Chown(dir, nobody, nobody)
	}
	for _, step := range []func() error{s.make, s.Start, s.users} {
		if err == nil {
			err = step()
		}
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, s.Log())
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close ends the server, and takes its files away.
func (s *Server) Close() {
	s.Stop()
	os.RemoveAll(s.dir)
}

// command is one of the server's own, as its user.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(program(name), args...)
	c.Dir, c.Env = s.dir, []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "HOME=" + s.dir, "TMPDIR=" + s.dir}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() == 0 {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return c
}

// program finds one of the server's own, which Debian keeps in directories of its own.
func program(name string) string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	found = append(found, "/usr/sbin/"+name, "/usr/bin/"+name)
	if i := slices.IndexFunc(found, func(p string) bool { _, err := os.Stat(p); return err == nil }); i >= 0 {
		return found[i]
	}
	return name
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// Socket is the directory of PostgreSQL's socket, or MariaDB's own.
func (s *Server) Socket() string {
	if s.Kind == MariaDB {
		return filepath.Join(s.dir, "socket")
	}
	return s.dir
}

// make makes the server's files.
func (s *Server) make() error {
	var c *exec.Cmd
	if s.Kind == MariaDB {
		c = s.command("mariadb-install-db", "--no-defaults", "--datadir="+s.data(), "--auth-root-authentication-method=normal", "--skip-test-db")
	} else {
		password := filepath.Join(s.dir, "password")
		if err := os.WriteFile(password, []byte(Password), 0o644); err != nil {
			return err
		}
		c = s.command("initdb", "-D", s.data(), "-U", Writer, "--pwfile", password, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	}
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", c.Path, err, out)
	}
	return nil
}

// Start starts the server, where it was stopped, and waits until it takes questions.
func (s *Server) Start() error { return s.StartWith() }

// StartWith is Start with more arguments for the server.
func (s *Server) StartWith(args ...string) error {
	var c *exec.Cmd
	port := strconv.Itoa(s.Port)
	if s.Kind == MariaDB {
		c = s.command("mariadbd", append([]string{"--no-defaults", "--datadir=" + s.data(), "--bind-address=127.0.0.1", "--port=" + port, "--socket=" + s.Socket(),
			"--pid-file=" + filepath.Join(s.dir, "pid"), "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M", "--skip-name-resolve"}, args...)...)
	} else {
		c = s.command("postgres", append([]string{"-D", s.data(), "-h", "127.0.0.1", "-p", port, "-k", s.dir, "-c", "fsync=off"}, args...)...)
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		return err
	}
	s.cmd = c
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = s.ask("SELECT 1"); err == nil || s.Kind == MariaDB && s.root("SELECT 1") == nil {
			return nil
		}
	}
	return fmt.Errorf("the %s server does not come up: %w", s.Kind, err)
}

// StartOverTLS is Start with a certificate and its key, as PEM.
func (s *Server) StartOverTLS(cert, key []byte) error {
	files := map[string][]byte{"cert.pem": cert, "key.pem": key}
	for name, b := range files {
		path := filepath.Join(s.dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return err
		}
		if os.Getuid() == 0 {
			if err := os.Chown(path, nobody, nobody); err != nil {
				return err
			}
		}
	}
	crt, k := filepath.Join(s.dir, "cert.pem"), filepath.Join(s.dir, "key.pem")
	if s.Kind == MariaDB {
		return s.StartWith("--ssl-cert="+crt, "--ssl-key="+k)
	}
	return s.StartWith("-c", "ssl=on", "-c", "ssl_cert_file="+crt, "-c", "ssl_key_file="+k)
}

// users makes the two users, and a database for the writer.
func (s *Server) users() error {
	quoted := "'" + Password + "'"
	if s.Kind == PostgreSQL {
		return errors.Join(s.ask("CREATE DATABASE mlflow"), s.ask("CREATE USER "+Reader+" PASSWORD "+quoted), s.ask("GRANT pg_read_all_data TO "+Reader))
	}
	return errors.Join(
		s.root("CREATE DATABASE mlflow CHARACTER SET utf8mb4"),
		s.root("CREATE USER "+Writer+"@'%' IDENTIFIED BY "+quoted), s.root("GRANT ALL ON *.* TO "+Writer+"@'%'"),
		s.root("CREATE USER "+Reader+"@'%' IDENTIFIED BY "+quoted), s.root("GRANT SELECT ON *.* TO "+Reader+"@'%'"))
}

// Partial makes a user of MariaDB's who may read some tables of the database mlflow alone.
func (s *Server) Partial(t testing.TB, user string, tables ...string) {
	t.Helper()
	stmts := []string{"CREATE USER " + user + "@'%' IDENTIFIED BY '" + Password + "'"}
	for _, table := range tables {
		stmts = append(stmts, "GRANT SELECT ON mlflow."+table+" TO "+user+"@'%'")
	}
	for _, stmt := range stmts {
		if err := s.root(stmt); err != nil {
			t.Fatal(stmt, err)
		}
	}
}

// ask runs a statement as the writer.
func (s *Server) ask(stmt string) error {
	db, err := s.Open("")
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.Exec(stmt)
	return err
}

// root runs a statement as MariaDB's own root.
func (s *Server) root(stmt string) error {
	return run("mysql", "root@unix("+s.Socket()+")/", stmt)
}

func run(driver, dsn, stmt string) error {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = db.ExecContext(ctx, stmt)
	return err
}

// Open opens a database as the writer; none is the server's first one.
func (s *Server) Open(name string) (*sql.DB, error) {
	if s.Kind == MariaDB {
		return sql.Open("mysql", fmt.Sprintf("%s:%s@tcp(127.0.0.1:%d)/%s?multiStatements=true", Writer, Password, s.Port, name))
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(Writer, Password), Host: fmt.Sprint("127.0.0.1:", s.Port), Path: "/" + cmp.Or(name, "postgres")}
	return sql.Open("pgx", u.String())
}

// Make makes a database.
func (s *Server) Make(t testing.TB, name string) {
	t.Helper()
	stmt := "CREATE DATABASE " + name
	if s.Kind == MariaDB {
		stmt += " CHARACTER SET utf8mb4"
	}
	if err := s.ask(stmt); err != nil {
		t.Fatal(err)
	}
}

// URI is that of a database as SQLAlchemy reads it, for a user.
func (s *Server) URI(user, name string) string {
	driver := map[Kind]string{PostgreSQL: "postgresql+psycopg2", MariaDB: "mysql+pymysql"}[s.Kind]
	return fmt.Sprintf("%s://%s:%s@127.0.0.1:%d/%s", driver, user, url.QueryEscape(Password), s.Port, name)
}

// Signal sends a signal to all of the server's processes.
func (s *Server) Signal(sig syscall.Signal) {
	if s.cmd != nil {
		syscall.Kill(-s.cmd.Process.Pid, sig)
	}
}

// Stop ends the server at once.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	sig := syscall.SIGQUIT // PostgreSQL's immediate shutdown, which takes its children along
	if s.Kind == MariaDB {
		sig = syscall.SIGTERM // the log of what was written last is not flushed
	}
	syscall.Kill(s.cmd.Process.Pid, syscall.SIGCONT)
	syscall.Kill(s.cmd.Process.Pid, sig)
	s.cmd.Wait()
	s.cmd = nil
}

// Log is what the server has said.
func (s *Server) Log() string {
	b, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(b)
}
