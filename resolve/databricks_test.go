package resolve

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestDBFSPlacesAreOfTheWorkspace fails when a dbfs: URI leads to another path than
// MLflow's client takes it for, or to another workspace than the tracking server; or when,
// with --allow-other, a path that the workspace names is read with this client's token,
// however it is written.
func TestDBFSPlacesAreOfTheWorkspace(t *testing.T) {
	t.Parallel()
	var asked atomic.Value
	asked.Store("")
	var requests atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		asked.Store(r.URL.Path + "?" + r.URL.RawQuery)
		io.WriteString(w, "{}")
	}))
	t.Cleanup(srv.Close)
	env := map[string]string{"DATABRICKS_HOST": srv.URL, "DATABRICKS_TOKEN": "t"}
	c, err := rest.NewDatabricksClient("databricks", func(name string) string { return env[name] }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	r := New(Options{Tracking: meta.NewREST(c), Client: c, Log: slog.New(slog.DiscardHandler)})
	run := artifact.Door{RunID: "mine"}
	list := func(p place) (string, error) {
		s, err := r.store(t.Context(), p)
		if err == nil {
			requests.Store(0)
			_, err = s.List(t.Context(), "")
		}
		return asked.Load().(string), err
	}
	const root = "dbfs:/databricks/mlflow-tracking/1/"
	for _, c := range []struct {
		p          place
		want       string
		ofAnybodys bool // what --allow-other does not close
	}{
		{place{uri: root + "mine/artifacts", door: run}, "/api/2.0/mlflow/artifacts/list?run_id=mine", true},
		{place{uri: root + "other/artifacts", door: run}, "/api/2.0/mlflow/artifacts/list?run_id=mine", true},
		{place{uri: root + "r/artifacts/a/b"}, "/api/2.0/mlflow/artifacts/list?path=a%2Fb&run_id=r", true},
		{place{uri: root + "logged_models/m-1/artifacts/a"}, "/api/2.0/mlflow/logged-models/m-1/artifacts/directories?artifact_directory_path=a", true},
		{place{uri: "dbfs://databricks/databricks/mlflow-tracking/1/r/artifacts"}, "/api/2.0/mlflow/artifacts/list?run_id=r", true},
		{place{uri: "dbfs:/Volumes/c/s/v/d", door: run}, "/api/2.0/fs/directories/Volumes/c/s/v/d?", false},
		{place{uri: "dbfs:/databricks/mlflow-tracking/1/../../../Volumes/c/s/v", door: run}, "/api/2.0/fs/directories/Volumes/c/s/v?", false},
		{place{uri: "dbfs:/my dir", door: run}, "/api/2.0/dbfs/list?path=%2Fmy+dir", false},
		{place{uri: "dbfs:///my"}, "/api/2.0/dbfs/list?path=%2Fmy", false},
		{place{uri: "dbfs:/databricks/mlflow-registry/x", door: run}, "/api/2.0/dbfs/list?path=%2Fdatabricks%2Fmlflow-registry%2Fx", false},
	} {
		r.opt.Allowed = nil
		if got, err := list(c.p); got != c.want || err != nil || requests.Load() != 1 {
			t.Errorf("%s leads to %s, %v", c.p.uri, got, err)
		}
		r.stores.Drop(c.p)
		r.opt.Allowed, _ = ParseAllowed(nil)
		_, err := list(c.p)
		if c.ofAnybodys && err != nil || !c.ofAnybodys && (!errors.Is(err, errors.ErrUnsupported) || requests.Load() != 0) {
			t.Errorf("%s with --allow-other: %v, %d requests", c.p.uri, err, requests.Load())
		}
		r.stores.Drop(c.p)
	}
	r.opt.Allowed = nil
	for _, uri := range []string{"dbfs://other@databricks/x", "dbfs://scope:key@databricks/x", "dbfs://evil.example/x", root + "r", root + "tr-1/x"} {
		_, err := list(place{uri: uri})
		if !errors.Is(err, errors.ErrUnsupported) || requests.Load() != 0 {
			t.Errorf("%s: %v, %d requests", uri, err, requests.Load())
		}
	}
	// What is no dbfs: place has none of the doors that an MLflow server has.
	_, routes, err := r.routes(place{uri: "s3://b/k", door: run})
	if err != nil || len(routes) != 1 || !strings.Contains(routes[0].Store.ID(), "unsupported") {
		t.Errorf("%v, %v", routes, err)
	}
}
