package meta

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// sqlServer is a database of a server's, which is asked by few connections. A question is
// a transaction that can't write. Nothing of a session is set, so that a pooler that gives
// one connection to many clients in turn may stand before it.
type sqlServer struct {
	db    *sql.DB
	at    string // host and database, for a person
	talks *dialect

	offline bool // nothing is asked

	mu     sync.Mutex // guards what follows; nothing waits under it
	schema *sqlSchema
	read   time.Time // when the schema was last known to be that of the server
}

const (
	sqlConnections = 4
	// schemaLife is how long the tables are believed to be the same: `mlflow db upgrade`
	// runs while a server is stopped, and what has changed is found by its error, too.
	schemaLife = 5 * time.Second
)

// openServer makes a database of what makes connections; none is made yet.
func openServer(c driver.Connector, at string, talks *dialect, offline bool) *sqlServer {
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(sqlConnections)
	db.SetMaxIdleConns(sqlConnections)
	db.SetConnMaxIdleTime(time.Minute)
	db.SetConnMaxLifetime(10 * time.Minute) // a name may lead to another server by then
	return &sqlServer{db: db, at: at, talks: talks, offline: offline}
}

func (s *sqlServer) kind() string { return s.talks.kind }

func (s *sqlServer) name() string { return "the " + s.talks.kind + " database " + s.at }

// Remote is true.
func (s *sqlServer) Remote() bool { return true }

func (s *sqlServer) tables() *sqlSchema {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.schema
}

func (s *sqlServer) view(ctx context.Context) (v sqlView, done func(), err error) {
	if s.offline {
		return v, nil, rest.ErrOffline
	}
	tx, err := s.db.BeginTx(ctx, s.talks.begin)
	if err != nil {
		return v, nil, s.talks.classify(err)
	}
	done = func() { tx.Rollback() } // there is nothing to commit
	q := querier{tx, s.talks}
	schema, err := s.current(ctx, q)
	if err != nil {
		done()
		return v, nil, err
	}
	settled := func(ctx context.Context) bool {
		done() // a transaction in which a statement was refused takes no other
		now, err := s.readAnew(ctx, querier{s.db, s.talks})
		return err != nil || maps.EqualFunc(now.columns, schema.columns, func(a, b map[string]bool) bool { return maps.Equal(a, b) })
	}
	return sqlView{db: q, sqlSchema: schema, settled: settled}, done, nil
}

// current gives the tables, which are read anew where their revision changed.
func (s *sqlServer) current(ctx context.Context, q querier) (*sqlSchema, error) {
	s.mu.Lock()
	known, age := s.schema, time.Since(s.read)
	s.mu.Unlock()
	switch {
	case known == nil:
	case age < schemaLife:
		return known, nil
	case known.revision != "":
		revision, err := readRevision(ctx, q)
		if err != nil {
			return nil, err
		}
		if revision == known.revision {
			s.keep(known)
			return known, nil
		}
	}
	return s.readAnew(ctx, q)
}

func (s *sqlServer) readAnew(ctx context.Context, q querier) (*sqlSchema, error) {
	schema, err := readSchema(ctx, q)
	if err != nil {
		return nil, err
	}
	if !schema.has("runs", "run_uuid") {
		return nil, &sqlError{refused, "it holds no tables of MLflow's that this user may read: give the database, the schema and the user that `mlflow server --backend-store-uri` has"}
	}
	s.keep(schema)
	return schema, nil
}

func (s *sqlServer) keep(schema *sqlSchema) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.schema, s.read = schema, time.Now()
}

// Close ends the connections.
func (s *sqlServer) Close() error { return s.db.Close() }

// sqlDialer makes the connections: one whose peer is gone is noticed in seconds, however
// long a statement may take.
func sqlDialer() *net.Dialer {
	return &net.Dialer{
		Timeout:         5 * time.Second,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 3 * time.Second, Interval: time.Second, Count: 3},
		Control:         endUnacknowledged,
	}
}

// sqlTables are the tables that are read; a database may hold others'.
const sqlTables = `'alembic_version', 'experiments', 'runs', 'params', 'tags', 'metrics', 'latest_metrics', 'datasets', 'inputs', 'input_tags',
	'logged_models', 'registered_models', 'registered_model_tags', 'registered_model_aliases', 'model_versions', 'model_version_tags',
	'trace_info', 'trace_tags', 'trace_request_metadata', 'spans', 'assessments', 'evaluation_datasets', 'evaluation_dataset_records', 'entity_associations'`
