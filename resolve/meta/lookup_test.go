package meta

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// lookUps are the questions for one thing by its name.
func lookUps(t *testing.T, s Store) map[string]func() error {
	return map[string]func() error{
		"run":              func() error { _, err := s.Run(t.Context(), "r"); return err },
		"experiment":       func() error { _, err := s.SearchExperiments(t.Context(), "e", ""); return err },
		"logged model":     func() error { _, err := s.LoggedModel(t.Context(), "m"); return err },
		"registered model": func() error { _, err := s.RegisteredModel(t.Context(), "a:b"); return err },
		"version":          func() error { _, err := s.Version(t.Context(), "a", "1"); return err },
		"prompt":           func() error { _, err := s.Prompt(t.Context(), "a", "1"); return err },
	}
}

// restOf is a server that answers everything alike.
func restOf(t *testing.T, status int, body string) Store {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	c, err := rest.NewClient(s.URL, env(nil), quiet)
	if err != nil {
		t.Fatal(err)
	}
	return NewREST(c)
}

// TestRefusedNameIsNotThere fails when a name that MLflow refuses, such as a model's
// with a colon, is an I/O error and not a name that is not there; or when a refused
// search is taken for an empty one.
func TestRefusedNameIsNotThere(t *testing.T) {
	t.Parallel()
	s := restOf(t, http.StatusBadRequest, `{"error_code":"INVALID_PARAMETER_VALUE","message":"Invalid model name"}`)
	for what, look := range lookUps(t, s) {
		if err := look(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "Invalid model name") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.SearchRegisteredModels(t.Context(), ""); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a search: %v", err)
	}
}

// TestEmptyAnswerIsSaid fails when an answer of status 200 that holds nothing of what
// was asked for is taken for a thing without a name, or told of in the words of a JSON
// decoder.
func TestEmptyAnswerIsSaid(t *testing.T) {
	t.Parallel()
	for what, look := range lookUps(t, restOf(t, http.StatusOK, "{}")) {
		if err := look(); err == nil || !strings.Contains(err.Error(), "holds no") || strings.Contains(err.Error(), "JSON") || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
