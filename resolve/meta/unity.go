package meta

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// unityStore is the registry of an open source Unity Catalog server, asked as MLflow's
// client asks it (mlflow.store._unity_catalog.registry.uc_oss_rest_store). It has no
// stages, no aliases and no latest versions.
type unityStore struct {
	noTracking
	noPrompts
	c *rest.Client
}

var (
	_ Store  = (*unityStore)(nil)
	_ Lender = (*unityStore)(nil)
)

// NewUnity makes a registry of the Unity Catalog server behind c.
func NewUnity(c *rest.Client) Store { return &unityStore{c: c} }

const (
	unityModels      = "/api/2.1/unity-catalog/models"
	unityCredentials = "/api/2.1/unity-catalog/temporary-model-version-credentials"
)

type unityModel struct {
	Catalog string   `json:"catalog_name"`
	Schema  string   `json:"schema_name"`
	Name    string   `json:"name"`
	Created rest.Int `json:"created_at"`
}

func (m *unityModel) model() RegisteredModel {
	out := RegisteredModel{Created: millis(int64(m.Created)), Aliases: map[string]string{}, Stageless: true}
	if m.Name != "" {
		out.Name = m.Catalog + "." + m.Schema + "." + m.Name
	}
	return out
}

type unityVersion struct {
	Catalog  string   `json:"catalog_name"`
	Schema   string   `json:"schema_name"`
	Model    string   `json:"model_name"`
	Version  rest.Int `json:"version"`
	Created  rest.Int `json:"created_at"`
	Source   string   `json:"source"`
	Location string   `json:"storage_location"`
	RunID    string   `json:"run_id"`
	Status   string   `json:"status"`
}

func (v *unityVersion) version() Version {
	out := Version{
		Name: v.Catalog + "." + v.Schema + "." + v.Model, Source: v.Source, URI: v.Location, RunID: v.RunID,
		Status: v.Status, Created: millis(int64(v.Created)), Managed: true,
	}
	if v.Version > 0 {
		out.Version = strconv.FormatInt(int64(v.Version), 10)
	}
	return out
}

// unityName are the parts of a model's name. What has another number of them is no
// model's name in any Unity Catalog, and nobody is asked for it.
func unityName(name string) (parts []string, err error) {
	parts = strings.Split(name, ".")
	if len(parts) == 3 && parts[0] != "" && parts[1] != "" && parts[2] != "" {
		return parts, nil
	}
	return nil, fmt.Errorf("%q is no model of Unity Catalog, whose names have three parts: write catalog.schema.name: %w", name, fs.ErrNotExist)
}

// unityDenied adds to a refusal what a user can do, or has to be given to read a model.
func unityDenied(c *rest.Client, err error, parts []string) error {
	var refusal *rest.Error
	switch {
	case !errors.As(err, &refusal):
		return err
	case refusal.Status == http.StatusUnauthorized:
		return fmt.Errorf("%w: %s", err, c.Mend())
	case refusal.Status != http.StatusForbidden || len(parts) == 0:
		return err
	}
	return fmt.Errorf("%w: to read it takes EXECUTE on the model %s, USE SCHEMA on %s and USE CATALOG on %s: ask the model's owner to grant them",
		err, strings.Join(parts, "."), strings.Join(parts[:2], "."), parts[0])
}

// lookUp asks for what is at a path below that of a model.
func (s *unityStore) lookUp(ctx context.Context, name, below string, query url.Values, out any) error {
	parts, err := unityName(name)
	if err != nil {
		return err
	}
	return unityDenied(s.c, s.c.JSON(ctx, unityModels+"/"+url.PathEscape(name)+below, query, nil, out), parts)
}

func (s *unityStore) RegisteredModel(ctx context.Context, name string) (*RegisteredModel, error) {
	var out unityModel
	if err := s.lookUp(ctx, name, "", nil, &out); err != nil {
		return nil, err
	}
	m := out.model()
	return &m, has(nil, "registered model", name, m.Name)
}

func (s *unityStore) SearchRegisteredModels(ctx context.Context, token string) (Page[RegisteredModel], error) {
	var out struct {
		Models []unityModel `json:"registered_models"`
		Next   string       `json:"next_page_token"`
	}
	err := s.c.JSON(ctx, unityModels, search(modelsPage, token, ""), nil, &out)
	return page(out.Models, out.Next, (*unityModel).model), unityDenied(s.c, err, nil)
}

func (s *unityStore) Version(ctx context.Context, name, version string) (*Version, error) {
	var out unityVersion
	if err := s.lookUp(ctx, name, "/versions/"+url.PathEscape(version), nil, &out); err != nil {
		return nil, err
	}
	v := out.version()
	if err := has(nil, "version", name+" "+version, v.Version); err != nil {
		return nil, err
	}
	return &v, placed(&v)
}

// placed is an error unless the files of a version lie below the root of something, as
// those of any Unity Catalog do: in a bucket, or on a machine.
func placed(v *Version) error {
	at := v.URI
	if scheme, after, ok := strings.Cut(at, ":"); ok && !strings.Contains(scheme, "/") {
		at = after
	}
	if after, ok := strings.CutPrefix(at, "//"); ok {
		host, _, _ := strings.Cut(after, "/")
		at = strings.TrimPrefix(after, host)
	}
	if !strings.HasPrefix(at, "/") || path.Clean(at) == "/" {
		return errNoPlace(v)
	}
	return nil
}

func (s *unityStore) SearchVersions(ctx context.Context, name, token string) (Page[Version], error) {
	var out struct {
		Versions []unityVersion `json:"model_versions"`
		Next     string         `json:"next_page_token"`
	}
	err := s.lookUp(ctx, name, "/versions", search(unityVersionsPage, token, ""), &out)
	p := page(out.Versions, out.Next, (*unityVersion).version)
	p.Items = filter(p.Items, func(v *Version) bool { return v.Name == name && v.Version != "" })
	return p, err
}

// unityVersionsPage is the most that the API gives in a page.
const unityVersionsPage = 100

// lentJSON are temporary credentials as both kinds of Unity Catalog give them
// (unity_catalog_messages.proto and databricks_uc_registry_messages.proto, message
// TemporaryCredentials).
type lentJSON struct {
	AWS   lentKeys `json:"aws_temp_credentials"`
	R2    lentKeys `json:"r2_temp_credentials"`
	Azure struct {
		SAS string `json:"sas_token"`
	} `json:"azure_user_delegation_sas"`
	Google struct {
		Token string `json:"oauth_token"`
	} `json:"gcp_oauth_token"`
	Until rest.Int `json:"expiration_time"` // ms since 1970
	Mode  string   `json:"storage_mode"`
}

type lentKeys struct {
	Key     string `json:"access_key_id"`
	Secret  string `json:"secret_access_key"`
	Session string `json:"session_token"`
}

// Lend asks for credentials that read the files of a version.
func (s *unityStore) Lend(ctx context.Context, name, version string) (rest.Lent, error) {
	parts, err := unityName(name)
	if err != nil {
		return rest.Lent{}, err
	}
	number, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		return rest.Lent{}, fmt.Errorf("%q is no version's number: %w", version, fs.ErrNotExist)
	}
	var out lentJSON
	body := map[string]any{
		"catalog_name": parts[0], "schema_name": parts[1], "model_name": parts[2],
		"version": number, "operation": "READ_MODEL_VERSION",
	}
	if err := s.c.JSON(ctx, unityCredentials, nil, body, &out); err != nil {
		return rest.Lent{}, unityDenied(s.c, err, parts)
	}
	return out.lent(s.c), nil
}

func (l *lentJSON) lent(c *rest.Client) rest.Lent {
	keys := l.AWS
	if keys.Key == "" {
		keys = l.R2
	}
	out := rest.Lent{Key: keys.Key, Secret: keys.Secret, Session: keys.Session, SAS: strings.TrimPrefix(l.Azure.SAS, "?"), Token: l.Google.Token}
	if l.Until > 0 {
		out.Until = c.Clocks().Here(c.Base().Host, time.UnixMilli(int64(l.Until)))
	}
	return out
}

// Ping asks for one model.
func (s *unityStore) Ping(ctx context.Context) ([]string, error) {
	return nil, s.c.JSON(ctx, unityModels, search(1, "", ""), nil, &struct{}{})
}

// Remote is true.
func (s *unityStore) Remote() bool { return true }

// Tell tells nothing: a server's state is its own.
func (s *unityStore) Tell() []Remark { return nil }

func (s *unityStore) Close() error {
	s.c.CloseIdleConnections()
	return nil
}
