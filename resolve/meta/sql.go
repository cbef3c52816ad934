package meta

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// sqlStore is a database that MLflow keeps (mlflow.store.dbmodels): an sqlite file, or
// one of a server's. Each question is a few short statements whose rows are read to the
// end at once, so that a writing MLflow is never held up.
type sqlStore struct {
	database
	workspace string
	retries   int           // how often a database that does not answer is asked again
	patience  time.Duration // how long a question may take; 0: as long as it likes
}

var _ Store = (*sqlStore)(nil)

// database is where the tables of an sqlStore are. An error of its own that names no
// *sqlError is final.
type database interface {
	// view gives the tables as they are now. The caller must call done when it has read
	// what it wants, and must not use the view after it.
	view(ctx context.Context) (v sqlView, done func(), err error)
	// tables gives what is known of the tables, or nil, without asking.
	tables() *sqlSchema
	// kind is what kind of database it is, for a person.
	kind() string
	// name is what the database is, and where, without a password.
	name() string
	// Remote is [Store.Remote].
	Remote() bool

	Close() error
}

// sqlView is a database as it was when a question came.
type sqlView struct {
	db querier
	*sqlSchema
	workspace string

	// settled tells whether the tables are still those of the view, and none is just
	// being replaced: what they lack won't come by waiting.
	settled func(context.Context) bool
}

// newSQL makes a store of a database.
func newSQL(d database, env rest.Env) (Store, error) {
	set, err := rest.ReadSettings(env)
	s := &sqlStore{database: d, workspace: sqlWorkspace(env)}
	if d.Remote() {
		s.retries, s.patience = set.Retries, set.Silence
	}
	if err == nil && !workspaceName.MatchString(s.workspace) {
		err = fmt.Errorf("MLFLOW_WORKSPACE is %q: a workspace's name has lower-case letters, digits and hyphens", s.workspace)
	}
	if err != nil {
		d.Close()
	}
	return s, err
}

// workspaceName is what a workspace's name is (WorkspaceNameValidator).
var workspaceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

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

// upgradeWait is how long a question waits for tables that `mlflow db upgrade`
// is replacing: of sqlite, it makes a copy of a table, drops the old one, and renames the
// copy.
const upgradeWait = 5 * time.Second

// ask answers a question from the database as it is now. A database that can't be reached
// is asked again, as MLflow's client does
// (mlflow.store.db.utils.create_sqlalchemy_engine_with_retry).
func ask[T any](ctx context.Context, s *sqlStore, question func(context.Context, sqlView) (T, error)) (T, error) {
	asked := ctx
	if s.patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.patience, &sqlError{unreachable, "no answer for " + s.patience.String()})
		defer cancel()
	}
	retries := 0
	for begin := time.Now(); ; {
		out, settled, err := askOnce(ctx, s, question, begin)
		trouble := troubleOf(err)
		wait := 20 * time.Millisecond
		switch {
		case trouble == unasked:
			return out, err
		case ctx.Err() != nil:
			if asked.Err() != nil {
				return out, context.Cause(asked)
			}
			return out, s.unreadable(context.Cause(ctx))
		case trouble == unreachable && retries < s.retries:
			wait = min(100*time.Millisecond*(1<<min(retries, 5)-1), 3*time.Second)
			retries++
		case settled:
			return out, s.unreadable(err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// askOnce asks once, and tells whether what was refused won't come by waiting.
func askOnce[T any](ctx context.Context, s *sqlStore, question func(context.Context, sqlView) (T, error), begin time.Time) (out T, settled bool, err error) {
	v, done, err := s.view(ctx)
	if err != nil {
		return out, true, err
	}
	defer done()
	v.workspace = s.workspace
	out, err = question(ctx, v)
	return out, troubleOf(err) != noTable || time.Since(begin) > upgradeWait || v.settled(ctx), err
}

// unreadable says of which database and revision err is.
func (s *sqlStore) unreadable(err error) error {
	revision := ""
	if t := s.tables(); t != nil {
		revision = ", whose tables are " + t.words() + ","
	}
	return &sqlError{troubleOf(err), s.name() + revision + " can't be read: " + err.Error()}
}

// Ping asks for the places of the newest experiments.
func (s *sqlStore) Ping(ctx context.Context) (places []string, err error) {
	p, err := ask(ctx, s, func(ctx context.Context, v sqlView) (Page[Experiment], error) {
		return v.newestExperiments(ctx, pinged)
	})
	for _, e := range p.Items {
		places = append(places, e.Location)
	}
	return places, err
}

// Tell says of which revision the tables are, and which of them the user may not read.
func (s *sqlStore) Tell() []Remark {
	t := s.tables()
	if t == nil {
		return nil
	}
	r := Remark{What: s.kind(), Words: "the tables are " + t.words()}
	if t.age() == newer {
		r.Lesser, r.Mend = true, "use a newer mlflowfs; this one reads the tables and columns that it knows"
	}
	all := []Remark{r}
	if names := t.hidden(); len(names) > 0 {
		all = append(all, Remark{What: s.kind(), Lesser: true, Words: "this user may not read tables that its revision has: " + strings.Join(names, ", "),
			Mend: "give the user the right to read them (GRANT SELECT)"})
	}
	return all
}

func (s *sqlStore) Run(ctx context.Context, id string) (*Run, error) {
	return ask(ctx, s, func(ctx context.Context, v sqlView) (*Run, error) { return v.run(ctx, id) })
}

func (s *sqlStore) SearchRuns(ctx context.Context, which RunQuery, token string) (Page[Run], error) {
	return ask(ctx, s, func(ctx context.Context, v sqlView) (Page[Run], error) { return v.searchRuns(ctx, which, token) })
}

func (s *sqlStore) MetricHistory(ctx context.Context, runID, key, token string) (Page[Point], error) {
	return ask(ctx, s, func(ctx context.Context, v sqlView) (Page[Point], error) {
		return v.metricHistory(ctx, runID, key, token)
	})
}

func (s *sqlStore) SearchExperiments(ctx context.Context, name, token string) (Page[Experiment], error) {
	return ask(ctx, s, func(ctx context.Context, v sqlView) (Page[Experiment], error) {
		if name != "" {
			return only(v.experimentByName(ctx, name))
		}
		return v.searchExperiments(ctx, token)
	})
}

func (s *sqlStore) LoggedModel(ctx context.Context, id string) (*LoggedModel, error) {
	return ask(ctx, s, func(ctx context.Context, v sqlView) (*LoggedModel, error) { return v.loggedModel(ctx, id) })
}

func (s *sqlStore) SearchLoggedModels(ctx context.Context, experimentIDs []string, runID, token string) (Page[LoggedModel], error) {
	return ask(ctx, s, func(ctx context.Context, v sqlView) (Page[LoggedModel], error) {
		return v.searchLoggedModels(ctx, experimentIDs, runID, token)
	})
}

func (s *sqlStore) RegisteredModel(ctx context.Context, name string) (*RegisteredModel, error) {
	return ask(ctx, s, func(ctx context.Context, v sqlView) (*RegisteredModel, error) { return v.registeredModel(ctx, name) })
}

func (s *sqlStore) SearchRegisteredModels(ctx context.Context, token string) (Page[RegisteredModel], error) {
	return ask(ctx, s, func(ctx context.Context, v sqlView) (Page[RegisteredModel], error) {
		return v.searchRegisteredModels(ctx, token)
	})
}

func (s *sqlStore) Version(ctx context.Context, name, version string) (*Version, error) {
	return ask(ctx, s, func(ctx context.Context, v sqlView) (*Version, error) { return v.version(ctx, name, version) })
}

func (s *sqlStore) SearchVersions(ctx context.Context, name, token string) (Page[Version], error) {
	return ask(ctx, s, func(ctx context.Context, v sqlView) (Page[Version], error) { return v.searchVersions(ctx, name, token) })
}
