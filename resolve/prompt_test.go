package resolve

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// TestPromptOfAServerHasNoFiles fails when models:/<prompt>/1 of a tracking server
// leads to the directory "dummy-source" of whoever asks, and not to nothing.
func TestPromptOfAServerHasNoFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("dummy-source/private", 0o755); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "get-download-uri") {
			io.WriteString(w, `{"artifact_uri": "dummy-source"}`)
			return
		}
		io.WriteString(w, `{"model_version": {"name": "p", "version": "1", "source": "dummy-source", "status": "READY",
			"tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}, {"key": "mlflow.prompt.text", "value": "say {{it}}"}]}}`)
	}))
	defer srv.Close()
	s, c, err := meta.Open(srv.URL, func(string) string { return "" }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := New(Options{Tracking: s, Client: c, Web: c, Log: slog.New(slog.DiscardHandler)})
	f, err := r.Resolve(context.Background(), "models:/p/1")
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "prompt") {
		t.Errorf("%+v, %v", f, err)
	}
}
