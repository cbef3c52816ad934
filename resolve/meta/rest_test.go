package meta

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
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
	if err := s.Ping(context.Background()); err != nil {
		t.Error(err)
	}
	for token, next := range map[string]string{"": "p", "p": ""} {
		p, err := s.SearchExperiments(context.Background(), "", token)
		if err != nil || len(p.Items) != 1 || p.Items[0].ID != "7" || p.Next != next {
			t.Errorf("%+v %v", p, err)
		}
	}
}
