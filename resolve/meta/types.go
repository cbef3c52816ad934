package meta

import (
	"context"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"time"
)

// Run is a run, with what runs/get and runs/search say of it.
type Run struct {
	ID           string
	Name         string
	ExperimentID string
	ArtifactURI  string
	Status       string // RUNNING, SCHEDULED, FINISHED, FAILED, KILLED
	Start, End   time.Time

	// JSON is the run as the server gives it; only Store.Run and SearchRunData
	// fill it.
	JSON []byte
}

// WithoutJSON is the run for who keeps it and needs no more than the rest.
func (r *Run) WithoutJSON() *Run {
	bare := *r
	bare.JSON = nil
	return &bare
}

// Final tells whether the run has ended, so that nothing is written to it any
// more (MLflow's RunStatus.is_terminated).
func (r *Run) Final() bool {
	return r.Status == "FINISHED" || r.Status == "FAILED" || r.Status == "KILLED"
}

// Mtime is when the run ended, or began where it has not ended.
func (r *Run) Mtime() time.Time {
	if !r.End.IsZero() {
		return r.End
	}
	return r.Start
}

// Experiment is an experiment that has not been deleted.
type Experiment struct {
	ID      string
	Name    string
	Created time.Time
}

// LoggedModel is a model that MLflow 3 logged.
type LoggedModel struct {
	ID           string // m- and 32 hexadecimal digits
	Name         string
	ExperimentID string
	SourceRunID  string
	ArtifactURI  string
	Status       string // LOGGED_MODEL_READY when nothing more is written
	Created      time.Time
}

// Final tells whether the model is ready, so that nothing is written to it.
func (m *LoggedModel) Final() bool { return m.Status == "LOGGED_MODEL_READY" }

// RegisteredModel is a registered model.
type RegisteredModel struct {
	Name    string
	Created time.Time
	Latest  []Version         // the latest version of each stage that holds one
	Aliases map[string]string // alias to version
}

// Version is a version of a registered model.
type Version struct {
	Name    string
	Version string // decimal digits
	Stage   string // None, Staging, Production, Archived
	Source  string
	RunID   string // empty where it is of no run, or the store does not tell
	Status  string // READY when nothing more is written
	Created time.Time

	// Prompt says that it is a prompt's (mlflow.genai.register_prompt): it has no
	// files, and its source means nothing.
	Prompt bool
}

// Final tells whether the version is ready.
func (v *Version) Final() bool { return v.Status == "READY" }

// Page is one page of a search. Next is the token of the page after it, empty
// on the last one.
type Page[T any] struct {
	Items []T
	Next  string
}

// Store is what answers questions about MLflow's metadata. All methods may be
// called by many at once; a missing thing is fs.ErrNotExist.
type Store interface {
	// Ping asks the least question there is, to learn whether the store
	// answers and takes the credentials.
	Ping(ctx context.Context) error

	Run(ctx context.Context, id string) (*Run, error)
	// SearchRuns gives the runs of the experiments that are not deleted, the
	// newest start first.
	SearchRuns(ctx context.Context, experimentIDs []string, token string) (Page[Run], error)
	// SearchRunData is SearchRuns with the runs' JSON.
	SearchRunData(ctx context.Context, experimentIDs []string, token string) (Page[Run], error)
	// MetricHistory gives all points of a metric of a run, by step, time and
	// value; none where there is no such metric.
	MetricHistory(ctx context.Context, runID, key, token string) (Page[Point], error)
	SearchExperiments(ctx context.Context, token string) (Page[Experiment], error)
	ExperimentByName(ctx context.Context, name string) (*Experiment, error)
	LoggedModel(ctx context.Context, id string) (*LoggedModel, error)
	// SearchLoggedModels gives the logged models of the experiments, newest
	// first; with a runID only those whose source is that run. A store that
	// knows no logged models gives none.
	SearchLoggedModels(ctx context.Context, experimentIDs []string, runID, token string) (Page[LoggedModel], error)

	RegisteredModel(ctx context.Context, name string) (*RegisteredModel, error)
	SearchRegisteredModels(ctx context.Context, token string) (Page[RegisteredModel], error)
	Version(ctx context.Context, name, version string) (*Version, error)
	// SearchVersions gives the versions of one registered model.
	SearchVersions(ctx context.Context, name, token string) (Page[Version], error)
	// DownloadURI gives where a version's files lie
	// (model-versions/get-download-uri): a storage URI, or a runs:/ or
	// models:/ URI that leads to one.
	DownloadURI(ctx context.Context, name, version string) (string, error)

	Close() error
}

// Page sizes: a run carries its params, metrics and tags, so that its pages
// are the smallest.
const (
	runsPage        = 200
	experimentsPage = 1000
	modelsPage      = 100
	versionsPage    = 1000
)

var (
	runID         = regexp.MustCompile(`^[a-zA-Z0-9][\w-]{0,255}$`) // mlflow.utils.validation
	loggedModelID = regexp.MustCompile(`^m-[0-9a-f]{32}$`)
)

// ValidRunID tells whether id can be a run's id.
func ValidRunID(id string) bool { return runID.MatchString(id) }

// ValidLoggedModelID tells whether id can be a logged model's id.
func ValidLoggedModelID(id string) bool { return loggedModelID.MatchString(id) }

// millis turns MLflow's milliseconds since 1970 into a time; 0 is none.
func millis(ms int64) time.Time {
	if ms <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// offsetToken and its inverse are the page tokens of the local stores.
func offsetToken(offset int) string { return strconv.Itoa(offset) }

func tokenOffset(token string) int {
	n, err := strconv.Atoi(token)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// notFound is the local stores' word for what a server answers with 404.
func notFound(kind, name string) error {
	return fmt.Errorf("%s %q: %w", kind, name, fs.ErrNotExist)
}
