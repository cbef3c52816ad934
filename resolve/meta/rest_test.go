package meta

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

func env(vars map[string]string) rest.Env { return func(name string) string { return vars[name] } }

var quiet = slog.New(slog.DiscardHandler)

// TestVersionsOfAnyNameAreFound fails when a model whose name has quotes has no
// versions, or has another model's: a name that a filter can't quote is searched for
// among all versions.
func TestVersionsOfAnyNameAreFound(t *testing.T) {
	t.Parallel()
	for name, filter := range map[string]string{`echo`: `name='echo'`, `it's`: `name="it's"`, `a'b"c`: ""} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if got := r.URL.Query().Get("filter"); got != filter {
				t.Errorf("%s: the filter %q was sent", name, got)
			}
			json.NewEncoder(w).Encode(map[string]any{"model_versions": []map[string]any{{"name": "other", "version": "9"}, {"name": name, "version": "1"}}})
		}))
		u, _ := url.Parse(srv.URL)
		c, _ := rest.NewClient(u.String(), env(nil), quiet)
		p, err := NewREST(c).SearchVersions(context.Background(), name, "")
		if err != nil || len(p.Items) != 1 || p.Items[0].Version != "1" {
			t.Errorf("%s: %v %v", name, p, err)
		}
		srv.Close()
	}
}

// TestServerBefore128IsRead fails when a server that can't search experiments, and lists
// them, is taken for none.
func TestServerBefore128IsRead(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/2.0/mlflow/experiments/list" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, `{"experiments":[{"experiment_id":"7","name":"old"}],"next_page_token":"`+map[string]string{"": "p"}[r.FormValue("page_token")]+`"}`)
	}))
	defer srv.Close()
	c, err := rest.NewClient(srv.URL, env(nil), quiet)
	if err != nil {
		t.Fatal(err)
	}
	s := NewREST(c)
	if _, err := s.Ping(context.Background()); err != nil {
		t.Error(err)
	}
	for token, next := range map[string]string{"": "p", "p": ""} {
		p, err := s.SearchExperiments(context.Background(), "", token)
		if err != nil || len(p.Items) != 1 || p.Items[0].ID != "7" || p.Next != next {
			t.Errorf("%+v %v", p, err)
		}
	}
}

// TestWorkspaceWantsAServerThatHasThem fails when a server that knows no workspaces, or
// has them off, is asked for anything by somebody who asks for one: it would answer with
// everybody's. Held against MLflow's client by TestMountMeansWhatTheClientMeans (test).
func TestWorkspaceWantsAServerThatHasThem(t *testing.T) {
	t.Parallel()
	for info, wanted := range map[string]string{
		"":                             "/api/3.0/mlflow/server-info /api/3.0/mlflow/server-features",
		`{"workspaces_enabled":false}`: "/api/3.0/mlflow/server-info",
		`{"workspaces_enabled":true}`:  "/api/3.0/mlflow/server-info /api/2.0/mlflow/experiments/search /api/2.0/mlflow/experiments/search",
	} {
		var asked []string
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.URL.Path)
			switch isInfo := strings.HasPrefix(r.URL.Path, "/api/3.0/"); {
			case isInfo && info == "":
				http.NotFound(w, r)
			case isInfo:
				io.WriteString(w, info)
			default:
				io.WriteString(w, `{}`)
			}
		}))
		c, err := rest.NewClient(srv.URL, env(map[string]string{"MLFLOW_WORKSPACE": "team-a"}), quiet)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_, err := NewREST(c).Ping(t.Context())
			var refusal *rest.Error
			if isThere := strings.Contains(info, "true"); isThere != (err == nil) || err != nil && (!errors.As(err, &refusal) || !refusal.Final()) {
				t.Errorf("%q: %v", info, err)
			}
		}
		if got := strings.Join(asked, " "); got != wanted {
			t.Errorf("%q: asked %s", info, got)
		}
		srv.Close()
	}
}
