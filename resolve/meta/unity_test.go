package meta

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestUnityCatalogNamesAPlaceOrIsAnError fails when a version for which a Unity Catalog, of
// either kind, names no place, or the root of something, in an answer of status 200 is
// given as if it had one; when the error does not say which version that is; or when a place
// that is one is refused.
func TestUnityCatalogNamesAPlaceOrIsAnError(t *testing.T) {
	t.Parallel()
	var place string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tags := []map[string]string{{"key": promptTag, "value": "true"}}
		var out map[string]any
		switch {
		case strings.HasSuffix(r.URL.Path, "/get-download-uri"):
			out = map[string]any{"artifact_uri": place}
		case strings.HasSuffix(r.URL.Path, "/model-versions/get"):
			out = map[string]any{"model_version": map[string]any{"name": "a.b.c", "version": "1", "tags": tags}}
		default:
			out = map[string]any{"catalog_name": "a", "schema_name": "b", "model_name": "c", "version": 1, "storage_location": place}
		}
		json.NewEncoder(w).Encode(out)
	}))
	defer srv.Close()
	vars := env(map[string]string{"DATABRICKS_HOST": srv.URL, "DATABRICKS_TOKEN": "t", "MLFLOW_UC_OSS_TOKEN": "t"})
	open, err := rest.NewUnityClient("uc:"+srv.URL, vars, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer open.CloseIdleConnections()
	theirs, err := rest.NewDatabricksClient("databricks-uc", vars, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.CloseIdleConnections()
	for kind, s := range map[string]Store{"open source": NewUnity(open), "Databricks": NewDatabricksRegistry(theirs, true)} {
		for _, place = range []string{"", " ", ".", "x/y", "/", "//", "/..", "file:", "file:///", "file:///.", "s3://bucket", "s3://bucket/", "s3:///", "dbfs:/", "s3://u:s3cret@bucket"} {
			v, err := s.Version(t.Context(), "a.b.c", "1")
			if err == nil || !strings.Contains(err.Error(), "names no place for the files of a.b.c version 1") || strings.Contains(err.Error(), "s3cret") || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: the place %q: %v, %v", kind, place, v, err)
			}
		}
		for _, place = range []string{"/a", "file:/a", "file:///a", "s3://bucket/k", "abfss://c@account.dfs.core.windows.net/k", "dbfs:/x"} {
			if v, err := s.Version(t.Context(), "a.b.c", "1"); err != nil || v.URI != place || !v.Managed || v.Prompt {
				t.Errorf("%s: the place %q: %v, %v", kind, place, v, err)
			}
		}
	}
}

// TestWorkspaceWithoutPromptsHasModels fails when a workspace that has no prompts, or does
// not tell of them, makes a model that is not there another error; or when a prompt whose
// template is none is shown with another text.
func TestWorkspaceWithoutPromptsHasModels(t *testing.T) {
	t.Parallel()
	status, code := 0, ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/versions/1") {
			json.NewEncoder(w).Encode(map[string]any{"name": "a.b.c", "version": "1", "template": "Say it"})
			return
		}
		s, c := status, code
		if !strings.Contains(r.URL.Path, "/prompts/") {
			s, c = http.StatusNotFound, "RESOURCE_DOES_NOT_EXIST"
		}
		w.WriteHeader(s)
		json.NewEncoder(w).Encode(map[string]any{"error_code": c, "message": "no"})
	}))
	defer srv.Close()
	c, err := rest.NewDatabricksClient("databricks-uc", env(map[string]string{"DATABRICKS_HOST": srv.URL, "DATABRICKS_TOKEN": "t"}), quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdleConnections()
	s := NewDatabricksRegistry(c, true)
	for status, code = range map[int]string{400: "FEATURE_DISABLED", 403: "PERMISSION_DENIED", 404: "ENDPOINT_NOT_FOUND"} {
		if m, err := s.RegisteredModel(t.Context(), "a.b.c"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, %v", code, m, err)
		}
	}
	if p, err := s.Prompt(t.Context(), "a.b.c", "1"); err == nil || !strings.Contains(err.Error(), "a.b.c version 1") {
		t.Errorf("%v, %v", p, err)
	}
}
