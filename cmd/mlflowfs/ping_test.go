package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestRefusalIsTheServersWord fails when a mount takes a server of MLflow's that refuses,
// as for a workspace that is not there, for another program, or for one that is down.
func TestRefusalIsTheServersWord(t *testing.T) {
	t.Parallel()
	quiet := slog.New(slog.DiscardHandler)
	for body, want := range map[string]string{
		`{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"Workspace 'none' not found"}`: "Workspace 'none' not found",
		`<h1>not here</h1>`: "is no MLflow tracking server",
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, body)
		}))
		c, err := rest.NewClient(srv.URL, func(string) string { return "" }, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if err := ping(t.Context(), &stores{tracking: meta.NewREST(c)}, srv.URL, quiet); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", body, err)
		}
		srv.Close()
	}
}
