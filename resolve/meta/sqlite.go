package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/rest"

	"modernc.org/sqlite" // the driver "sqlite", without cgo
)

// sqliteStore is a database that MLflow keeps in one sqlite file
// (mlflow.store.dbmodels). It is opened read-only; each question is a few short
// statements whose rows are read to the end at once, so that no lock outlives
// them and a writing MLflow is never held up.
//
// Before each question it looks whether the path still names the file that is
// open, and whether its tables are still those that it knows: a file that was
// replaced is opened anew, and after `mlflow db upgrade` the tables are read
// again.
type sqliteStore struct {
	path      string // absolute
	workspace string

	opening sync.Mutex // held while a file is opened
	mu      sync.Mutex // guards what follows; nothing waits under it
	file    *sqliteFile
	schema  *sqliteSchema
	closed  bool
}

var (
	_         Store = (*sqliteStore)(nil)
	errClosed       = errors.New("the store is closed")
)

// sqliteFile is an open file. The pool keeps one connection at least, so that
// the number of its inode is not given to another file.
type sqliteFile struct {
	db    *sql.DB
	id    os.FileInfo
	users sync.WaitGroup // the questions that read it
}

func openSQLite(path, workspace string) (Store, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(abs); err != nil {
		return nil, fmt.Errorf("the tracking URI names the sqlite file %s, which can't be opened: %w", path, err)
	}
	s := &sqliteStore{path: abs, workspace: workspace}
	v, done, err := s.view(context.Background())
	if err == nil {
		done()
		if v.has("runs", "run_uuid") {
			return s, nil
		}
		err = fmt.Errorf("the sqlite file %s holds no MLflow tables", path)
	}
	s.Close()
	return nil, err
}

// sqlWorkspace is the workspace that MLflow's client reads of a database: it
// obeys MLFLOW_WORKSPACE only where workspaces are enabled
// (mlflow.tracking._tracking_service.utils, mlflow.utils.workspace_context).
func sqlWorkspace(env rest.Env) string {
	if w := strings.TrimSpace(env("MLFLOW_WORKSPACE")); w != "" && rest.Truthy(env("MLFLOW_ENABLE_WORKSPACES")) {
		return w
	}
	return defaultWorkspace
}

const defaultWorkspace = "default"

// view gives the database as it is now. The caller must call done when it has
// read what it wants.
func (s *sqliteStore) view(ctx context.Context) (v sqlView, done func(), err error) {
	f, err := s.current()
	if err != nil {
		return sqlView{}, nil, err
	}
	defer func() {
		if err != nil {
			f.users.Done()
			err = s.unreadable(err)
		}
	}()
	generation, err := generationOf(ctx, f.db)
	if err != nil {
		return sqlView{}, nil, err
	}
	s.mu.Lock()
	known := s.schema
	s.mu.Unlock()
	if known == nil || known.file != f || known.generation != generation {
		if known, err = readSchema(ctx, f, generation); err != nil {
			return sqlView{}, nil, err
		}
		s.mu.Lock()
		s.schema = known
		s.mu.Unlock()
	}
	return sqlView{f.db, known, s.workspace}, f.users.Done, nil
}

// current gives the file that the path names now, counted as used.
func (s *sqliteStore) current() (*sqliteFile, error) {
	st, err := os.Stat(s.path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the sqlite file %s can't be opened: %v", s.path, err) // not fs.ErrNotExist: that would be about what was asked for
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
		return nil, s.unreadable(err)
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
func (s *sqliteStore) use(st os.FileInfo) (*sqliteFile, error) {
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

func openFile(path string, st os.FileInfo) (*sqliteFile, error) {
	// A writer holds its lock for milliseconds: wait for it rather than fail.
	dsn := (&url.URL{Scheme: "file", Path: path, RawQuery: "mode=ro&_pragma=busy_timeout(10000)&_pragma=query_only(1)"}).String()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4)
	return &sqliteFile{db: db, id: st}, nil
}

// letGo closes the file's connections when its last question has been answered.
func (f *sqliteFile) letGo() {
	if f != nil {
		go func() {
			f.users.Wait()
			f.db.Close()
		}()
	}
}

// Close lets the file go. Questions after it fail.
func (s *sqliteStore) Close() error {
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

// unreadable says of which file and revision err is.
func (s *sqliteStore) unreadable(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	revision := ""
	if s.schema != nil {
		revision = ", whose tables are " + s.schema.words() + ","
	}
	return fmt.Errorf("the sqlite file %s%s can't be read: %w", s.path, revision, err)
}

// upgradeWait is how long a question waits for tables that `mlflow db upgrade`
// is replacing: it makes a copy of a table, drops the old one, and renames the
// copy.
const upgradeWait = 5 * time.Second

// ask answers a question from the database as it is now.
func ask[T any](ctx context.Context, s *sqliteStore, question func(sqlView) (T, error)) (out T, err error) {
	for begin := time.Now(); ; {
		v, done, err := s.view(ctx)
		if err != nil {
			return out, err
		}
		out, err = question(v)
		done()
		var refusal *sqlite.Error
		if err == nil || !errors.As(err, &refusal) {
			return out, err
		}
		const noSuchTableOrColumn = 1 // SQLITE_ERROR
		if refusal.Code() != noSuchTableOrColumn || time.Since(begin) > upgradeWait || v.settled(ctx) {
			return out, s.unreadable(err)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return out, context.Cause(ctx)
		}
	}
}

func (s *sqliteStore) Ping(ctx context.Context) ([]string, error) {
	_, err := ask(ctx, s, func(v sqlView) (struct{}, error) { return struct{}{}, nil })
	return nil, err
}

// Tell says of which revision the file is.
func (s *sqliteStore) Tell() []Remark {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.schema == nil {
		return nil
	}
	r := Remark{What: "sqlite", Words: "the tables are " + s.schema.words()}
	if s.schema.age() == newer {
		r.Lesser, r.Mend = true, "use a newer mlflowfs; this one reads the tables and columns that it knows"
	}
	return []Remark{r}
}

func (s *sqliteStore) Run(ctx context.Context, id string) (*Run, error) {
	return ask(ctx, s, func(v sqlView) (*Run, error) { return v.run(ctx, id) })
}

func (s *sqliteStore) SearchRuns(ctx context.Context, which RunQuery, token string) (Page[Run], error) {
	return ask(ctx, s, func(v sqlView) (Page[Run], error) { return v.searchRuns(ctx, which, token) })
}

func (s *sqliteStore) MetricHistory(ctx context.Context, runID, key, token string) (Page[Point], error) {
	return ask(ctx, s, func(v sqlView) (Page[Point], error) { return v.metricHistory(ctx, runID, key, token) })
}

func (s *sqliteStore) SearchExperiments(ctx context.Context, name, token string) (Page[Experiment], error) {
	return ask(ctx, s, func(v sqlView) (Page[Experiment], error) {
		if name != "" {
			return only(v.experimentByName(ctx, name))
		}
		return v.searchExperiments(ctx, token)
	})
}

func (s *sqliteStore) LoggedModel(ctx context.Context, id string) (*LoggedModel, error) {
	return ask(ctx, s, func(v sqlView) (*LoggedModel, error) { return v.loggedModel(ctx, id) })
}

func (s *sqliteStore) SearchLoggedModels(ctx context.Context, experimentIDs []string, runID, token string) (Page[LoggedModel], error) {
	return ask(ctx, s, func(v sqlView) (Page[LoggedModel], error) {
		return v.searchLoggedModels(ctx, experimentIDs, runID, token)
	})
}

func (s *sqliteStore) RegisteredModel(ctx context.Context, name string) (*RegisteredModel, error) {
	return ask(ctx, s, func(v sqlView) (*RegisteredModel, error) { return v.registeredModel(ctx, name) })
}

func (s *sqliteStore) SearchRegisteredModels(ctx context.Context, token string) (Page[RegisteredModel], error) {
	return ask(ctx, s, func(v sqlView) (Page[RegisteredModel], error) { return v.searchRegisteredModels(ctx, token) })
}

func (s *sqliteStore) Version(ctx context.Context, name, version string) (*Version, error) {
	return ask(ctx, s, func(v sqlView) (*Version, error) { return v.version(ctx, name, version) })
}

func (s *sqliteStore) SearchVersions(ctx context.Context, name, token string) (Page[Version], error) {
	return ask(ctx, s, func(v sqlView) (Page[Version], error) { return v.searchVersions(ctx, name, token) })
}
