package resolve

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
)

// TestSpansOpenNothingThatArtifactsDoNot fails when the place that a trace names for its
// spans opens a bucket with the client's keys, or a directory of this machine, that the
// settings don't name; when spans without a place are those of the working directory; or
// when the server's own door is not asked for what nothing here may read.
func TestSpansOpenNothingThatArtifactsDoNot(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, p := range []string{"traces.json", "tr-1/artifacts/traces.json"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(`{"spans": ["of this machine"]}`), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	var asked atomic.Int64
	has := true
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ajax-api/2.0/mlflow/get-trace-artifact" || r.URL.Query().Get("request_id") != "tr-1" || !has {
			http.NotFound(w, r)
			return
		}
		asked.Add(1)
		io.WriteString(w, `{"spans": ["of the server"]}`)
	}))
	defer srv.Close()
	r := resolver(t, srv.URL)
	r.tracking = meta.NewREST(r.opt.Client)
	opened := 0
	r.opt.Buckets["s3"] = func(context.Context, string) (*artifact.Bucket, error) {
		opened++
		return nil, errors.ErrUnsupported
	}
	r.opt.Allowed, _ = ParseAllowed(nil)
	for _, has = range []bool{true, false} {
		for _, uri := range []string{"s3://secret/1/traces/tr-1/artifacts", "s3://secret/x", dir, "file://" + dir, dir + "/tr-1/artifacts", "", ".", "sftp://host/x"} {
			s, err := r.spansOf(t.Context(), &meta.Trace{ID: "tr-1", URI: uri, Ended: true})
			if !has {
				if err == nil || !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: %v", uri, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", uri, err)
				continue
			}
			if got, err := io.ReadAll(s); err != nil || string(got) != `{"spans": ["of the server"]}` {
				t.Errorf("%s: %s, %v", uri, got, err)
			}
			s.body.Close()
		}
	}
	if opened > 0 || asked.Load() != 8 {
		t.Errorf("%d buckets were opened, and the server was asked %d times", opened, asked.Load())
	}
	r = resolver(t, srv.URL) // a mount of this user's alone
	r.tracking = meta.NewREST(r.opt.Client)
	s, err := r.spansOf(t.Context(), &meta.Trace{ID: "tr-1", URI: dir + "/tr-1/artifacts", Ended: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.body.Close()
	if s, err := r.spansOf(t.Context(), &meta.Trace{ID: "tr-1", Ended: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a trace without a place has the spans of the working directory: %v, %v", s, err)
	}
	if got, err := io.ReadAll(s); err != nil || !strings.Contains(string(got), "of this machine") {
		t.Errorf("%s, %v", got, err)
	}
}
