package meta

import (
	"context"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// Tracking tells of experiments, their runs and the models that were logged in these.
// Its methods may be called by many at once; a missing thing is fs.ErrNotExist. A
// search gives a page; the token of the first is empty.
type Tracking interface {
	Traces
	Datasets

	Run(ctx context.Context, id string) (*Run, error)
	// SearchRuns gives runs that are not deleted, the newest start first.
	SearchRuns(ctx context.Context, which RunQuery, token string) (Page[Run], error)
	// MetricHistory gives all points of a metric of a run, by step, time and
	// value; none where there is no such metric.
	MetricHistory(ctx context.Context, runID, key, token string) (Page[Point], error)
	// SearchExperiments gives the experiments that are not deleted, or the one of a
	// name that is not empty.
	SearchExperiments(ctx context.Context, name, token string) (Page[Experiment], error)
	LoggedModel(ctx context.Context, id string) (*LoggedModel, error)
	// SearchLoggedModels gives the logged models of the experiments, newest
	// first; with a runID only those whose source is that run. A store that
	// knows no logged models gives none.
	SearchLoggedModels(ctx context.Context, experimentIDs []string, runID, token string) (Page[LoggedModel], error)
}

// RunQuery says which runs, and what of them.
type RunQuery struct {
	Experiments []string // their ids
	JSON        bool     // fill Run.JSON
}

// Registry tells of registered models and their versions, by the same rules as
// [Tracking].
type Registry interface {
	Prompts

	RegisteredModel(ctx context.Context, name string) (*RegisteredModel, error)
	SearchRegisteredModels(ctx context.Context, token string) (Page[RegisteredModel], error)
	// Version gives a version with its URI: a storage URI, or a runs:/ or models:/
	// URI that leads to one. That of a prompt, which has no files, may be empty.
	Version(ctx context.Context, name, version string) (*Version, error)
	// SearchVersions gives the versions of one registered model.
	SearchVersions(ctx context.Context, name, token string) (Page[Version], error)
}

// Lender is a registry that lends credentials for where the files of a version lie,
// which is managed: for reading, and for a while.
type Lender interface {
	Lend(ctx context.Context, name, version string) (rest.Lent, error)
}

// Store is what holds MLflow's metadata: each is both, though a user may take the
// one of one and the other of another.
type Store interface {
	Tracking
	Registry

	// Ping asks the least question there is, to learn whether the store
	// answers and takes the credentials. places are where it says that artifacts lie: the
	// storage URIs of the experiments that it met, if any.
	Ping(ctx context.Context) (places []string, err error)

	// Remote tells whether the store is another machine's: it may be out of reach, and others
	// than who may write to this machine's files write to it.
	Remote() bool

	// Tell gives remarks for `doctor` and `status`, by what was read so far: it
	// reads nothing itself, so that it never waits. A tracking server tells none.
	Tell() []Remark

	Close() error
}

// Remark is a sentence about a store.
type Remark struct {
	What   string // what it is about, in a word
	Words  string
	Lesser bool   // something is not shown that could be
	Mend   string // what to do about it; empty where nothing is
}
