package meta

import (
	"context"
	"fmt"
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

// WithLastAnswers makes a store of s, a tracking server at uri, that gives the last
// answer from the answers where there is none to be had.
func WithLastAnswers(s Store, answers *answers.Answers, uri string) Store {
	return &offlineStore{s, answers, rest.ServerOf(uri), rest.Redact(uri)}
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
	return answers.StaleIfError(ctx, k.answers, k.server, fmt.Sprintf("%s %s %q", k.uri, what, args), ask, rest.IsAnswer)
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
