package meta

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// databricksStore is a Databricks workspace, which is asked as any tracking server. It keeps
// traces and datasets in ways of its own, which are not read.
type databricksStore struct{ restStore }

// databricksRegistry is the model registry of a workspace itself. It keeps the files of versions, and signs URLs for them.
type databricksRegistry struct{ databricksStore }

// databricksUnity is the Unity Catalog of a Databricks workspace, which is asked the same
// below another path (databricks_uc_registry_service.proto), and lends credentials. It has
// no stages and no latest versions.
type databricksUnity struct{ databricksStore }

var (
	_ Store  = (*databricksStore)(nil)
	_ Store  = (*databricksRegistry)(nil)
	_ Store  = (*databricksUnity)(nil)
	_ Lender = (*databricksUnity)(nil)
)

// NewDatabricksRegistry makes a registry of the workspace behind c: of its Unity Catalog,
// or of its own.
func NewDatabricksRegistry(c *rest.Client, unity bool) Store {
	if unity {
		return &databricksUnity{databricksStore{restStore{c: c, below: "unity-catalog/"}}}
	}
	return &databricksRegistry{databricksStore{restStore{c: c}}}
}

// SearchPrompts gives none.
func (d *databricksStore) SearchPrompts(context.Context, string) (Page[RegisteredModel], error) {
	return Page[RegisteredModel]{}, nil
}

// Prompt finds none.
func (d *databricksStore) Prompt(_ context.Context, name, _ string) (*Prompt, error) {
	return nil, notFound("prompt", name)
}

// SearchPromptVersions gives none.
func (d *databricksStore) SearchPromptVersions(context.Context, string, string) (Page[Version], error) {
	return Page[Version]{}, nil
}

// Trace finds none.
func (d *databricksStore) Trace(_ context.Context, id string) (*Trace, error) {
	return nil, notFound("trace", id)
}

// SearchTraces gives none.
func (d *databricksStore) SearchTraces(context.Context, string, string) (Page[Trace], error) {
	return Page[Trace]{}, nil
}

// SearchDatasets gives none.
func (d *databricksStore) SearchDatasets(context.Context, string) (Page[Dataset], error) {
	return Page[Dataset]{}, nil
}

// DatabricksPlace is a URI for the files of a version, where the workspace alone knows
// more of where they lie.
func DatabricksPlace(name, version string) string {
	return "databricks:/models/" + name + "/" + version
}

// Version asks for a version. Where its files lie is not asked: the workspace has routes
// of their own to them (mlflow.store.artifact.databricks_models_artifact_repo).
func (r *databricksRegistry) Version(ctx context.Context, name, version string) (*Version, error) {
	v, err := r.version(ctx, url.Values{"name": {name}, "version": {version}})
	if err != nil {
		return nil, err
	}
	v.URI, v.Managed = DatabricksPlace(name, version), true
	return &v, nil
}

func (r *databricksUnity) RegisteredModel(ctx context.Context, name string) (*RegisteredModel, error) {
	parts, err := unityName(name)
	if err != nil {
		return nil, err
	}
	m, err := r.restStore.RegisteredModel(ctx, name)
	if err != nil {
		return r.orPrompt(ctx, name, unityDenied(r.c, err, parts))
	}
	m.Stageless = true
	return m, nil
}

func (r *databricksUnity) SearchRegisteredModels(ctx context.Context, token string) (Page[RegisteredModel], error) {
	p, err := r.restStore.SearchRegisteredModels(ctx, token)
	return p, unityDenied(r.c, err, nil)
}

// Version asks for a version and for where its files lie. In storage that the workspace
// shares with nobody (StorageMode.DEFAULT_STORAGE) that may not be told, nor is it needed.
func (r *databricksUnity) Version(ctx context.Context, name, version string) (*Version, error) {
	parts, err := unityName(name)
	if err != nil {
		return nil, err
	}
	v, err := r.restStore.Version(ctx, name, version)
	if v != nil && err != nil && rest.IsAnswer(err) {
		v.URI, err = DatabricksPlace(name, version), nil
	}
	if err != nil {
		return nil, unityDenied(r.c, err, parts)
	}
	v.Managed = true
	return v, placed(v)
}

func (r *databricksUnity) SearchVersions(ctx context.Context, name, token string) (Page[Version], error) {
	parts, err := unityName(name)
	if err != nil {
		return Page[Version]{}, err
	}
	p, err := r.restStore.SearchVersions(ctx, name, token)
	return p, unityDenied(r.c, err, parts)
}

// Lend asks for credentials that read the files of a version. Of files in the workspace's
// own storage there are none, and URLs are signed.
func (r *databricksUnity) Lend(ctx context.Context, name, version string) (rest.Lent, error) {
	parts, err := unityName(name)
	if err != nil {
		return rest.Lent{}, err
	}
	var out struct {
		Credentials lentJSON `json:"credentials"`
	}
	body := map[string]any{"name": name, "version": version, "operation": "MODEL_VERSION_OPERATION_READ"}
	if err := r.c.API(ctx, r.below+"model-versions/generate-temporary-credentials", nil, body, &out); err != nil {
		return rest.Lent{}, unityDenied(r.c, err, parts)
	}
	if out.Credentials.Mode == "DEFAULT_STORAGE" {
		return rest.Lent{}, fmt.Errorf("the files lie in the workspace's own storage, for which no credentials are lent: %w", errors.ErrUnsupported)
	}
	return out.Credentials.lent(r.c), nil
}

// Ping asks for one model.
func (r *databricksUnity) Ping(ctx context.Context) ([]string, error) {
	return nil, r.c.API(ctx, r.below+"registered-models/search", search(1, "", ""), nil, &struct{}{})
}
