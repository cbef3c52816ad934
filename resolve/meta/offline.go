package meta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/mlflowfs/mlflowfs/resolve/answers"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// offlineStore is a store whose last answers are given where it can't be asked.
type offlineStore struct {
	Store
	answers *answers.Answers
	server  string
	uri     string
}

// WithLastAnswers makes a store of s, which is at uri, that gives the last answer from the
// answers where there is none to be had; identity is what the URI, as it is shown, does not
// tell (see [Identity]). A store of this machine stays as it is.
func WithLastAnswers(s Store, answers *answers.Answers, uri, identity string) Store {
	if !s.Remote() {
		return s
	}
	if identity != "" {
		identity = " " + identity
	}
	return &offlineStore{s, answers, rest.ServerOf(uri) + identity, rest.Redact(uri) + identity}
}

var _ Store = (*offlineStore)(nil)

// LenderOf is the registry as one that lends credentials; nil where it lends none. What
// it lends is kept by nothing: it is asked for anew in each process.
func LenderOf(s Store) Lender {
	if k, ok := s.(*offlineStore); ok {
		s = k.Store
	}
	l, _ := s.(Lender)
	return l
}

// staleIfError asks the store, or gives what it answered last to the question that
// what and args are.
func staleIfError[T any](ctx context.Context, k *offlineStore, ask func(context.Context) (T, error), what string, args ...string) (T, error) {
	return answers.StaleIfError(ctx, k.answers, k.server, fmt.Sprintf("%s %s %q", k.uri, what, args), ask, isAnswer)
}

// isAnswer tells whether err is an answer to what was asked, as [rest.IsAnswer] does.
func isAnswer(err error) bool {
	if t := troubleOf(err); t != unasked {
		return t != unreachable
	}
	return rest.IsAnswer(err)
}

func (k *offlineStore) Run(ctx context.Context, id string) (*Run, error) {
	return staleIfError(ctx, k, func(ctx context.Context) (*Run, error) { return k.Store.Run(ctx, id) }, "run", id)
}

func (k *offlineStore) SearchRuns(ctx context.Context, which RunQuery, token string) (Page[Run], error) {
	what := "runs"
	if which.JSON {
		what = "run data"
	}
	return staleIfError(ctx, k, func(ctx context.Context) (Page[Run], error) { return k.Store.SearchRuns(ctx, which, token) },
		what, strings.Join(which.Experiments, " "), token)
}

func (k *offlineStore) MetricHistory(ctx context.Context, runID, key, token string) (Page[Point], error) {
	return staleIfError(ctx, k, func(ctx context.Context) (Page[Point], error) { return k.Store.MetricHistory(ctx, runID, key, token) }, "metric", runID, key, token)
}

func (k *offlineStore) SearchExperiments(ctx context.Context, name, token string) (Page[Experiment], error) {
	which := []string{token}
	if name != "" {
		which = append(which, name)
	}
	return staleIfError(ctx, k, func(ctx context.Context) (Page[Experiment], error) {
		return k.Store.SearchExperiments(ctx, name, token)
	}, "experiments", which...)
}

func (k *offlineStore) LoggedModel(ctx context.Context, id string) (*LoggedModel, error) {
	return staleIfError(ctx, k, func(ctx context.Context) (*LoggedModel, error) { return k.Store.LoggedModel(ctx, id) }, "logged model", id)
}

func (k *offlineStore) SearchLoggedModels(ctx context.Context, experimentIDs []string, runID, token string) (Page[LoggedModel], error) {
	return staleIfError(ctx, k, func(ctx context.Context) (Page[LoggedModel], error) {
		return k.Store.SearchLoggedModels(ctx, experimentIDs, runID, token)
	}, "logged models", strings.Join(experimentIDs, " "), runID, token)
}

func (k *offlineStore) RegisteredModel(ctx context.Context, name string) (*RegisteredModel, error) {
	return staleIfError(ctx, k, func(ctx context.Context) (*RegisteredModel, error) { return k.Store.RegisteredModel(ctx, name) }, "registered model", name)
}

func (k *offlineStore) SearchRegisteredModels(ctx context.Context, token string) (Page[RegisteredModel], error) {
	return staleIfError(ctx, k, func(ctx context.Context) (Page[RegisteredModel], error) {
		return k.Store.SearchRegisteredModels(ctx, token)
	}, "registered models", token)
}

func (k *offlineStore) Version(ctx context.Context, name, version string) (*Version, error) {
	return staleIfError(ctx, k, func(ctx context.Context) (*Version, error) { return k.Store.Version(ctx, name, version) }, "version with its URI", name, version)
}

func (k *offlineStore) SearchVersions(ctx context.Context, name, token string) (Page[Version], error) {
	return staleIfError(ctx, k, func(ctx context.Context) (Page[Version], error) { return k.Store.SearchVersions(ctx, name, token) }, "versions", name, token)
}

func (k *offlineStore) SearchPrompts(ctx context.Context, token string) (Page[RegisteredModel], error) {
	return staleIfError(ctx, k, func(ctx context.Context) (Page[RegisteredModel], error) { return k.Store.SearchPrompts(ctx, token) }, "prompts", token)
}

func (k *offlineStore) Prompt(ctx context.Context, name, version string) (*Prompt, error) {
	return staleIfError(ctx, k, func(ctx context.Context) (*Prompt, error) { return k.Store.Prompt(ctx, name, version) }, "prompt", name, version)
}

func (k *offlineStore) SearchPromptVersions(ctx context.Context, name, token string) (Page[Version], error) {
	return staleIfError(ctx, k, func(ctx context.Context) (Page[Version], error) {
		return k.Store.SearchPromptVersions(ctx, name, token)
	}, "prompt versions", name, token)
}

func (k *offlineStore) Trace(ctx context.Context, id string) (*Trace, error) {
	return staleIfError(ctx, k, func(ctx context.Context) (*Trace, error) { return k.Store.Trace(ctx, id) }, "trace", id)
}

func (k *offlineStore) SearchTraces(ctx context.Context, experimentID, token string) (Page[Trace], error) {
	return staleIfError(ctx, k, func(ctx context.Context) (Page[Trace], error) {
		return k.Store.SearchTraces(ctx, experimentID, token)
	}, "traces", experimentID, token)
}

// keptSpans is how much of spans is kept for an outage, of one trace in bytes.
const keptSpans = 1 << 20

// errManySpans says that spans are too many to be kept. It is an answer, and not to be
// kept itself.
var errManySpans = fmt.Errorf("the trace has more spans than are kept for an outage: %w", errors.ErrUnsupported)

// Spans keeps those of a trace that has few. Of one that has many it asks once more, and
// leaves the answer to its reader.
func (k *offlineStore) Spans(ctx context.Context, t *Trace) (io.ReadCloser, error) {
	few, err := staleIfError(ctx, k, func(ctx context.Context) ([]byte, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		all, err := k.Store.Spans(ctx, t)
		if err != nil {
			return nil, err
		}
		defer all.Close()
		b, err := io.ReadAll(io.LimitReader(all, keptSpans+1))
		if err == nil && len(b) > keptSpans {
			return nil, errManySpans
		}
		return b, err
	}, "spans", t.ID)
	if errors.Is(err, errManySpans) {
		return k.Store.Spans(ctx, t)
	}
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(few)), nil
}

func (k *offlineStore) SearchDatasets(ctx context.Context, token string) (Page[Dataset], error) {
	return staleIfError(ctx, k, func(ctx context.Context) (Page[Dataset], error) { return k.Store.SearchDatasets(ctx, token) }, "datasets", token)
}

func (k *offlineStore) DatasetRecords(ctx context.Context, id, token string) (Page[string], error) {
	return staleIfError(ctx, k, func(ctx context.Context) (Page[string], error) { return k.Store.DatasetRecords(ctx, id, token) }, "dataset records", id, token)
}
