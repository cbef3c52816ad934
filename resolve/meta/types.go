package meta

import (
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

	// JSON is the run as the server gives it; a search fills it on demand.
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
	ID       string
	Name     string
	Created  time.Time
	Location string // a URI: the artifacts of a new run lie below it; empty where it is not told
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
	Prompt  bool              // it is a prompt: see [Prompts]

	// Stageless says that the registry has no stages, and calls no version the latest.
	Stageless bool
}

// Version is a version of a registered model.
type Version struct {
	Name    string
	Version string // decimal digits
	Stage   string // None, Staging, Production, Archived
	Source  string
	URI     string // where its files lie: see [Registry]. A search need not tell it
	RunID   string // empty where it is of no run, or the store does not tell
	Status  string // READY when nothing more is written
	Created time.Time

	// Managed says that its files are the registry's own copies, at URI, and no run's: a
	// [Lender] opens them, but for a URI of this machine.
	Managed bool

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

// only is the page of one item.
func only[T any](item *T, err error) (Page[T], error) {
	if err != nil {
		return Page[T]{}, err
	}
	return Page[T]{Items: []T{*item}}, nil
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
	runID         = regexp.MustCompile(`^[a-zA-Z0-9][\w-]*$`)
	loggedModelID = regexp.MustCompile(`^m-[0-9a-f]{32}$`)
)

// ValidRunID tells whether id can be a run's id (mlflow.utils.validation).
func ValidRunID(id string) bool { return len(id) <= 256 && runID.MatchString(id) }

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
