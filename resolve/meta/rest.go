package meta

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// restStore is a tracking server, asked through its REST API (MLflow's
// service.proto and model_registry.proto, version 2.0).
type restStore struct {
	c         *rest.Client
	oldTraces atomic.Int64 // until when the server is asked for traces as MLflow 2's; ns since 1970
	below     string       // what stands before the registry's paths; empty but for a Unity Catalog
}

var _ Store = (*restStore)(nil)

// NewREST makes a Store of the tracking server behind c.
func NewREST(c *rest.Client) Store { return &restStore{c: c} }

type restLoggedModel struct {
	Info struct {
		ModelID      string   `json:"model_id"`
		ExperimentID string   `json:"experiment_id"`
		Name         string   `json:"name"`
		Created      rest.Int `json:"creation_timestamp_ms"`
		ArtifactURI  string   `json:"artifact_uri"`
		Status       string   `json:"status"`
		SourceRunID  string   `json:"source_run_id"`
	} `json:"info"`
}

func (m *restLoggedModel) model() LoggedModel {
	i := &m.Info
	return LoggedModel{
		ID: i.ModelID, Name: i.Name, ExperimentID: i.ExperimentID, SourceRunID: i.SourceRunID,
		ArtifactURI: i.ArtifactURI, Status: i.Status, Created: millis(int64(i.Created)),
	}
}

type restVersion struct {
	Name         string   `json:"name"`
	Version      string   `json:"version"`
	Created      rest.Int `json:"creation_timestamp"`
	CurrentStage string   `json:"current_stage"`
	Source       string   `json:"source"`
	RunID        string   `json:"run_id"`
	Status       string   `json:"status"`
	Tags         []Pair   `json:"tags"`
}

func (s *restStore) versionOf(v *restVersion) Version {
	return Version{
		Prompt: s.isPrompt(v.Tags),
		Name:   v.Name, Version: v.Version, Stage: v.CurrentStage, Source: v.Source, RunID: v.RunID,
		Status: v.Status, Created: millis(int64(v.Created)),
	}
}

type restModel struct {
	Name    string        `json:"name"`
	Created rest.Int      `json:"creation_timestamp"`
	Latest  []restVersion `json:"latest_versions"`
	Aliases []struct{ Alias, Version string }
	Tags    []Pair `json:"tags"`
}

// isPrompt tells whether tags are of a prompt, or a version of one. Databricks keeps its
// prompts apart: there the tag means nothing, and MLflow's client lists what has it as a
// model.
func (s *restStore) isPrompt(tags []Pair) bool {
	return !s.c.Databricks() && slices.Contains(tags, Pair{promptTag, "true"})
}

func (s *restStore) modelOf(m *restModel) RegisteredModel {
	out := RegisteredModel{Name: m.Name, Created: millis(int64(m.Created)), Aliases: map[string]string{}, Prompt: s.isPrompt(m.Tags)}
	for i := range m.Latest {
		out.Latest = append(out.Latest, s.versionOf(&m.Latest[i]))
	}
	for _, a := range m.Aliases {
		out.Aliases[a.Alias] = a.Version
	}
	return out
}

// pinged is how many experiments a server is asked for by Ping.
const pinged = 20

// Ping asks for some experiments. A server that forbids that, and answers another question,
// has taken the credentials.
func (s *restStore) Ping(ctx context.Context) (places []string, err error) {
	var out struct {
		Experiments []restExperiment `json:"experiments"`
	}
	err = s.searchExperiments(ctx, pinged, "", &out)
	var e *rest.Error
	if errors.As(err, &e) && e.Status == http.StatusForbidden && !s.c.Databricks() && s.c.API(ctx, "registered-models/search", search(1, "", ""), nil, &out) == nil {
		return nil, nil
	}
	for _, e := range out.Experiments {
		places = append(places, e.Where)
	}
	return places, err
}

// searchExperiments asks a server before MLflow 1.28, which has no search, for a list.
// Databricks documents the search by POST alone.
func (s *restStore) searchExperiments(ctx context.Context, max int, token string, out any) error {
	if s.c.Databricks() {
		body := map[string]any{"max_results": max}
		if token != "" {
			body["page_token"] = token
		}
		return s.c.API(ctx, "experiments/search", nil, body, out)
	}
	err := s.c.API(ctx, "experiments/search", search(max, token, ""), nil, out)
	var e *rest.Error
	if errors.As(err, &e) && e.NoSuchEndpoint() {
		err = s.c.API(ctx, "experiments/list", search(max, token, ""), nil, out)
	}
	return err
}

// lookUp asks for one thing by its name.
func (s *restStore) lookUp(ctx context.Context, path string, query url.Values, out any) error {
	return name(s.c.API(ctx, path, query, nil, out))
}

// has is the error of a look-up: err, or that an answer of status 200 does not hold
// what was asked for, of which got is a part that is never empty.
func has(err error, kind, name, got string) error {
	if err == nil && got == "" {
		return fmt.Errorf("the server's answer holds no %s %q: something in front of it, or that is no MLflow server, has answered", kind, name)
	}
	return err
}

// page turns a page as JSON gives it into one of ours.
func page[J, T any](in []J, next string, f func(*J) T) Page[T] {
	p := Page[T]{Next: next}
	for i := range in {
		p.Items = append(p.Items, f(&in[i]))
	}
	return p
}

type restExperiment struct {
	ID      string   `json:"experiment_id"`
	Name    string   `json:"name"`
	Created rest.Int `json:"creation_time"`
	Stage   string   `json:"lifecycle_stage"`
	Where   string   `json:"artifact_location"`
}

func (e *restExperiment) experiment() Experiment {
	return Experiment{ID: e.ID, Name: e.Name, Created: millis(int64(e.Created)), Location: e.Where}
}

func (s *restStore) SearchExperiments(ctx context.Context, name, token string) (Page[Experiment], error) {
	if name != "" {
		return only(s.experiment(ctx, name))
	}
	var out struct {
		Experiments []restExperiment `json:"experiments"`
		Next        string           `json:"next_page_token"`
	}
	err := s.searchExperiments(ctx, experimentsPage, token, &out)
	return page(out.Experiments, out.Next, (*restExperiment).experiment), err
}

// search is the query of a search by GET.
func search(max int, token, filter string) url.Values {
	q := url.Values{"max_results": {strconv.Itoa(max)}}
	if token != "" {
		q.Set("page_token", token)
	}
	if filter != "" {
		q.Set("filter", filter)
	}
	return q
}

func (s *restStore) experiment(ctx context.Context, name string) (*Experiment, error) {
	var out struct {
		Experiment restExperiment `json:"experiment"`
	}
	if err := s.lookUp(ctx, "experiments/get-by-name", url.Values{"experiment_name": {name}}, &out); err != nil {
		return nil, err
	}
	if out.Experiment.Stage == "deleted" {
		return nil, notFound("experiment", name)
	}
	e := out.Experiment.experiment()
	return &e, has(nil, "experiment", name, e.ID)
}

func (s *restStore) LoggedModel(ctx context.Context, id string) (*LoggedModel, error) {
	var out struct {
		Model restLoggedModel `json:"model"`
	}
	if err := s.lookUp(ctx, "logged-models/"+url.PathEscape(id), nil, &out); err != nil {
		return nil, err
	}
	m := out.Model.model()
	return &m, has(nil, "logged model", id, m.ID)
}

func (s *restStore) SearchLoggedModels(ctx context.Context, experimentIDs []string, runID, token string) (Page[LoggedModel], error) {
	if len(experimentIDs) == 0 {
		return Page[LoggedModel]{}, nil
	}
	var out struct {
		Models []restLoggedModel `json:"models"`
		Next   string            `json:"next_page_token"`
	}
	most := modelsPage
	if s.c.Databricks() {
		most = 50 // which is the most there
	}
	body := map[string]any{"experiment_ids": experimentIDs, "max_results": most}
	if token != "" {
		body["page_token"] = token
	}
	if runID != "" {
		body["filter"] = "source_run_id = '" + runID + "'"
	}
	err := s.c.API(ctx, "logged-models/search", nil, body, &out)
	var e *rest.Error
	if errors.As(err, &e) && e.NoSuchEndpoint() {
		return Page[LoggedModel]{}, nil // MLflow 2
	}
	p := page(out.Models, out.Next, (*restLoggedModel).model)
	if runID != "" {
		p.Items = filter(p.Items, func(m *LoggedModel) bool { return m.SourceRunID == runID })
	}
	return p, err
}

// filter keeps the items that f is true of: a filter is a request to the
// server, not its promise.
func filter[T any](in []T, f func(*T) bool) []T {
	out := in[:0]
	for i := range in {
		if f(&in[i]) {
			out = append(out, in[i])
		}
	}
	return out
}

func (s *restStore) RegisteredModel(ctx context.Context, name string) (*RegisteredModel, error) {
	var out struct {
		Model restModel `json:"registered_model"`
	}
	if err := s.lookUp(ctx, s.below+"registered-models/get", url.Values{"name": {name}}, &out); err != nil {
		return nil, err
	}
	m := s.modelOf(&out.Model)
	return &m, has(nil, "registered model", name, m.Name)
}

func (s *restStore) SearchRegisteredModels(ctx context.Context, token string) (Page[RegisteredModel], error) {
	var out struct {
		Models []restModel `json:"registered_models"`
		Next   string      `json:"next_page_token"`
	}
	err := s.c.API(ctx, s.below+"registered-models/search", search(modelsPage, token, ""), nil, &out)
	return page(out.Models, out.Next, s.modelOf), err
}

// Version asks for a version and, beside that, for where its files lie, which of a prompt
// says nothing. Where the server tells the one alone, it is given with the error.
func (s *restStore) Version(ctx context.Context, name, version string) (*Version, error) {
	which := url.Values{"name": {name}, "version": {version}}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var place struct {
		URI string `json:"artifact_uri"`
	}
	placed := make(chan error, 1)
	go func() {
		placed <- cache.Guard(func() error { return s.lookUp(ctx, s.below+"model-versions/get-download-uri", which, &place) })
	}()
	v, err := s.version(ctx, which)
	if err != nil {
		return nil, err
	}
	if v.Prompt {
		return &v, nil
	}
	err = <-placed
	if v.URI = place.URI; err == nil && v.URI == "" {
		err = errNoPlace(&v)
	}
	return &v, err
}

// errNoPlace says that a registry knows a version, and does not tell where its files lie.
func errNoPlace(v *Version) error {
	return fmt.Errorf("the registry names no place for the files of %s version %s (its URI is %.100q): if it was not registered to the end, register it anew; else see what stands in front of the registry", v.Name, v.Version, rest.Redact(v.URI))
}

// version asks for a version, if the server has not told of it; its URI is not filled.
func (s *restStore) version(ctx context.Context, which url.Values) (Version, error) {
	if v := told(ctx); v != nil {
		return *v, nil
	}
	var out struct {
		Version restVersion `json:"model_version"`
	}
	if err := s.lookUp(ctx, s.below+"model-versions/get", which, &out); err != nil {
		return Version{}, err
	}
	v := s.versionOf(&out.Version)
	return v, has(nil, "version", which.Get("name")+" "+which.Get("version"), v.Version)
}

func (s *restStore) SearchVersions(ctx context.Context, name, token string) (Page[Version], error) {
	return s.searchVersions(ctx, name, token, "")
}

// searchVersions asks for the versions of one name that are as also says, where that is
// not empty.
func (s *restStore) searchVersions(ctx context.Context, name, token, also string) (Page[Version], error) {
	var out struct {
		Versions []restVersion `json:"model_versions"`
		Next     string        `json:"next_page_token"`
	}
	// A name that no quotes hold is searched for among all versions.
	var by []string
	if q := quote(name); q != "" {
		by = append(by, "name="+q)
	}
	if also != "" {
		by = append(by, also)
	}
	err := s.c.API(ctx, s.below+"model-versions/search", search(versionsPage, token, strings.Join(by, " AND ")), nil, &out)
	p := page(out.Versions, out.Next, s.versionOf)
	p.Items = filter(p.Items, func(v *Version) bool { return v.Name == name })
	return p, err
}

// quote puts a name between quotes of MLflow's search syntax, which knows no
// escape; it gives nothing for a name that holds both kinds.
func quote(name string) string {
	for _, q := range []string{"'", `"`} {
		if !strings.Contains(name, q) {
			return q + name + q
		}
	}
	return ""
}

// Remote is true.
func (s *restStore) Remote() bool { return true }

// Tell tells nothing: a server's state is its own.
func (s *restStore) Tell() []Remark { return nil }

func (s *restStore) Close() error {
	s.c.CloseIdleConnections()
	return nil
}
