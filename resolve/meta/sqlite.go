package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"modernc.org/sqlite" // the driver "sqlite", without cgo
)

// sqliteFile is a database in one file. It is opened read-only, and each statement is on
// its own, so that no lock outlives it.
//
// Before each question it looks whether the path still names the file that is
// open, and whether its tables are still those that it knows: a file that was
// replaced is opened anew, and after `mlflow db upgrade` the tables are read
// again.
type sqliteFile struct {
	path string // absolute

	opening sync.Mutex // held while a file is opened
	mu      sync.Mutex // guards what follows; nothing waits under it
	file    *openSQLiteFile
	schema  *sqliteSchema
	closed  bool
}

var errClosed = errors.New("the store is closed")

// openSQLiteFile is an open file. The pool keeps one connection at least, so that
// the number of its inode is not given to another file.
type openSQLiteFile struct {
	db    *sql.DB
	id    os.FileInfo
	users sync.WaitGroup // the questions that read it
}

func (f *openSQLiteFile) querier() querier { return querier{f.db, &sqliteDialect} }

// sqliteSchema is the tables of a file.
type sqliteSchema struct {
	*sqlSchema
	of     *openSQLiteFile
	number int64 // sqlite's own, which each change of a table raises
}

var sqliteDialect = dialect{
	kind:     "sqlite",
	quote:    `"`,
	columns:  "SELECT m.name, p.name FROM sqlite_master m, pragma_table_info(m.name) p WHERE m.type = 'table'",
	troubles: map[string]trouble{"1": noTable}, // SQLITE_ERROR
	code: func(err error) string {
		if e := (*sqlite.Error)(nil); errors.As(err, &e) {
			return strconv.Itoa(e.Code())
		}
		return "other"
	},
}

// openSQLite opens the file at path.
func openSQLite(path string) (*sqliteFile, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(abs); err != nil {
		return nil, fmt.Errorf("the tracking URI names the sqlite file %s, which can't be opened: %w", path, err)
	}
	s := &sqliteFile{path: abs}
	v, done, err := s.view(context.Background())
	if err == nil {
		done()
		if v.has("runs", "run_uuid") {
			return s, nil
		}
		err = errors.New("it holds no tables of MLflow's")
	}
	s.Close()
	return nil, fmt.Errorf("%s can't be read: %w", s.name(), err)
}

func (s *sqliteFile) kind() string { return sqliteDialect.kind }

func (s *sqliteFile) name() string { return "the sqlite file " + s.path }

// Remote is false: the file is of this machine.
func (s *sqliteFile) Remote() bool { return false }

func (s *sqliteFile) tables() *sqlSchema {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.schema == nil {
		return nil
	}
	return s.schema.sqlSchema
}

func (s *sqliteFile) view(ctx context.Context) (v sqlView, done func(), err error) {
	f, err := s.current()
	if err != nil {
		return sqlView{}, nil, err
	}
	defer func() {
		if err != nil {
			f.users.Done()
		}
	}()
	schema, err := s.read(ctx, f)
	if err != nil {
		return sqlView{}, nil, err
	}
	settled := func(ctx context.Context) bool {
		for table := range schema.columns {
			if strings.HasPrefix(table, "_alembic_tmp_") { // alembic's batch_alter_table makes a copy
				return false
			}
		}
		number, err := f.number(ctx)
		return err != nil || number == schema.number
	}
	return sqlView{db: f.querier(), sqlSchema: schema.sqlSchema, settled: settled}, f.users.Done, nil
}

// read gives the tables of f, which are read anew where they, or their revision, changed.
func (s *sqliteFile) read(ctx context.Context, f *openSQLiteFile) (*sqliteSchema, error) {
	number, err := f.number(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	known := s.schema
	s.mu.Unlock()
	if known != nil && known.of == f && known.number == number {
		if !known.has("alembic_version", "version_num") {
			return known, nil
		}
		if revision, err := readRevision(ctx, f.querier()); err == nil && revision == known.revision {
			return known, nil
		}
	}
	tables, err := readSchema(ctx, f.querier())
	if err != nil {
		return nil, err
	}
	known = &sqliteSchema{tables, f, number}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.schema = known
	return known, nil
}

// number is sqlite's number of the tables.
func (f *openSQLiteFile) number(ctx context.Context) (n int64, err error) {
	err = f.db.QueryRowContext(ctx, "PRAGMA schema_version").Scan(&n)
	return n, sqliteDialect.classify(err)
}

// current gives the file that the path names now, counted as used.
func (s *sqliteFile) current() (*openSQLiteFile, error) {
	st, err := os.Stat(s.path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s can't be opened: %v", s.name(), err) // not fs.ErrNotExist: that would be about what was asked for
	case st.IsDir():
		return nil, fmt.Errorf("%s, which should be an sqlite file, is a directory", s.path)
	}
	if f, err := s.use(st); f != nil || err != nil {
		return f, err
	}
	s.opening.Lock()
	defer s.opening.Unlock()
	if f, err := s.use(st); f != nil || err != nil {
		return f, err // another question has opened it meanwhile
	}
	f, err := openFile(s.path, st)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		f.letGo()
		return nil, errClosed
	}
	s.file.letGo()
	s.file = f
	f.users.Add(1)
	return f, nil
}

// use counts a question on the open file, if that is the one that st is of.
func (s *sqliteFile) use(st os.FileInfo) (*openSQLiteFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, errClosed
	case s.file == nil || !os.SameFile(s.file.id, st):
		return nil, nil
	}
	s.file.users.Add(1)
	return s.file, nil
}

func openFile(path string, st os.FileInfo) (*openSQLiteFile, error) {
	// A writer holds its lock for milliseconds: wait for it rather than fail.
	dsn := (&url.URL{Scheme: "file", Path: path, RawQuery: "mode=ro&_pragma=busy_timeout(10000)&_pragma=query_only(1)"}).String()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, sqliteDialect.classify(err)
	}
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4)
	return &openSQLiteFile{db: db, id: st}, nil
}

// letGo closes the file's connections when its last question has been answered.
func (f *openSQLiteFile) letGo() {
	if f != nil {
		go func() {
			f.users.Wait()
			f.db.Close()
		}()
	}
}

// Close lets the file go. Questions after it fail.
func (s *sqliteFile) Close() error {
	s.mu.Lock()
	f := s.file
	s.file, s.closed = nil, true
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	f.users.Wait()
	return f.db.Close()
}
