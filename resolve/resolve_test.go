package resolve

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/meta"
	"github.com/mlflowfs/mlflowfs/resolve/rest"
)

// TestFileWithALastSlashIsNotFound fails when a file of this machine, or what is below
// one, is found by a path that ends in a slash or goes on, or fails in another way than
// what is not there.
func TestFileWithALastSlashIsNotFound(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, uri := range []string{file + "/", "file://" + file + "/", file + "/x", file + "x"} {
		if _, err := resolver(t, "").Resolve(t.Context(), uri); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

// resolver has no server: it resolves places alone.
func resolver(t *testing.T, tracking string) *Resolver {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	web, err := rest.NewWebClient(func(string) string { return "" }, log)
	if err != nil {
		t.Fatal(err)
	}
	none := func(context.Context, string) (*artifact.Bucket, error) { return nil, errors.ErrUnsupported }
	opt := Options{Log: log, Web: web, Buckets: map[string]artifact.OpenBucket{"s3": none}}
	if tracking != "" {
		c, err := rest.NewClient(tracking, func(string) string { return "" }, log)
		if err != nil {
			t.Fatal(err)
		}
		opt.Client = c
	}
	return New(opt)
}

// TestArtifactURIsLeadToTheirStore fails when an artifact URI leads to another server,
// bucket, directory or key than in MLflow, when the error about one that can't be
// read is missing or holds its password, or when a local path is read although the
// user does not allow it.
func TestArtifactURIsLeadToTheirStore(t *testing.T) {
	t.Parallel()
	r := resolver(t, "https://u:p@mlflow.example:8443/prefix")
	api := "/api/2.0/mlflow-artifacts/artifacts"
	for uri, want := range map[string]string{
		"mlflow-artifacts:/1/r/artifacts":                       "https://mlflow.example:8443/prefix" + api + "/1/r/artifacts",
		"mlflow-artifacts:/":                                    "https://mlflow.example:8443/prefix" + api + "/",
		"mlflow-artifacts://other:99/1/r":                       "https://other:99/prefix" + api + "/1/r",
		"mlflow-artifacts:/a%41 b#c":                            "https://mlflow.example:8443/prefix" + api + "/a%41 b#c",
		"http://h:5/api/2.0/mlflow-artifacts/artifacts/1/a%20b": "http://h:5" + api + "/1/a b",
		"http://h:5/pre/api/2.0/mlflow-artifacts/artifacts":     "http://h:5/pre" + api + "/",
		"/data/x":               "file:/data/x",
		"file:///data/a%20b":    "file:/data/a b",
		"file://localhost/data": "file:/data",
		"s3://bucket/a%41 b#c/": "s3://bucket/a%41 b#c",
		"http://h/mlartifacts":  "web:http://h/mlartifacts",
	} {
		s, err := r.store(t.Context(), place{uri: uri})
		if err != nil || s.ID() != want {
			t.Errorf("%s: %v, want %s (%v)", uri, s, want, err)
		}
	}
	for _, uri := range []string{"nfs://user:pw@host/k", "s3:///k", "dbfs:/x", "hdfs://h/x", "file://elsewhere/x"} {
		s, err := r.store(t.Context(), place{uri: uri})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.List(context.Background(), "")
		if !errors.Is(err, errors.ErrUnsupported) || strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: %v", uri, err)
		}
	}
	s, err := resolver(t, "").store(t.Context(), place{uri: "mlflow-artifacts:/1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = s.List(context.Background(), ""); !errors.Is(err, errors.ErrUnsupported) {
		t.Error("mlflow-artifacts: without a server:", err)
	}
	r.opt.Allowed = &Allowed{}
	_, routes, err := r.routes(place{uri: "/etc", door: artifact.Door{RunID: "x"}})
	if err != nil || len(routes) != 2 || !strings.HasPrefix(routes[0].Store.ID(), "unsupported:") || routes[1].Access != artifact.Server {
		t.Error("a local path is served although none is allowed", routes, err)
	}
	// Nor where the server has no door to it: a version may name any path.
	for _, uri := range []string{"/etc", "file:///etc"} {
		_, routes, err = r.routes(place{uri: uri})
		if err != nil || len(routes) != 1 || !strings.HasPrefix(routes[0].Store.ID(), "unsupported:") {
			t.Error("a local path without a door is read although none is allowed", routes, err)
		}
	}
}

// TestRoutesAreTriedInOrder fails when a place is not tried by each route that may lead
// to it, in the order in which they are worth it, or when --access does not leave the
// others out.
func TestRoutesAreTriedInOrder(t *testing.T) {
	t.Parallel()
	r := resolver(t, "https://mlflow.example")
	run, model := artifact.Door{RunID: "r"}, artifact.Door{ModelID: "m"}
	for _, c := range []struct {
		p    place
		want string
	}{
		{place{uri: "s3://b/k", door: run}, "direct presigned server"},
		{place{uri: "s3://b/k", door: model}, "direct server"},
		{place{uri: "s3://b/k"}, "direct"},
		{place{uri: "sftp://h/k", door: run}, "presigned server"},
		{place{uri: "dbfs:/k", door: model}, "server"},
		{place{uri: "/data", door: run}, "direct server"},
		{place{uri: "/data"}, "direct"},
		{place{uri: "mlflow-artifacts:/1", door: run}, "presigned server"},
		{place{uri: "mlflow-artifacts://other/1", door: run}, "server"},
		{place{uri: "http://h/mlartifacts"}, "server direct"},
		{place{uri: "https://mlflow.example/mlartifacts"}, "presigned server direct"},
	} {
		_, routes, err := r.routes(c.p)
		if got := strings.ReplaceAll(names(routes), " and ", " "); got != c.want || err != nil {
			t.Errorf("%+v: %s, want %s (%v)", c.p, got, c.want, err)
		}
	}
	r.opt.Access = artifact.Presigned
	s, err := r.store(t.Context(), place{uri: "s3://b/k"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.List(t.Context(), ""); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "only direct") {
		t.Error(err)
	}
}

// TestMissingCredentialsAreLookedForOnce fails when each directory of a bucket waits
// again until it is known that there are no credentials for the bucket, or when another
// failure, which may pass, is remembered.
func TestMissingCredentialsAreLookedForOnce(t *testing.T) {
	t.Parallel()
	r := resolver(t, "")
	asked := 0
	fail := error(artifact.NoCredentials("none"))
	r.opt.Buckets["gs"] = func(context.Context, string) (*artifact.Bucket, error) {
		asked++
		return nil, fail
	}
	try := func(uri string) {
		t.Helper()
		s, err := r.store(t.Context(), place{uri: uri})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.List(t.Context(), ""); !errors.Is(err, fail) {
			t.Error(err)
		}
	}
	for _, key := range []string{"a", "b", "c"} {
		try("gs://bucket/" + key)
	}
	if asked != 1 {
		t.Errorf("it was tried %d times", asked)
	}
	fail = errors.New("broken")
	try("gs://other/a")
	try("gs://other/b")
	if asked != 3 {
		t.Errorf("a failure of another kind was tried %d times", asked-1)
	}
}

// TestURISplitsIntoDirectoryAndName fails when an artifact that is one file is looked
// for in another directory, or by another name.
func TestURISplitsIntoDirectoryAndName(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string][2]string{
		"s3://b":                   {"s3://b", ""},
		"s3://b/":                  {"s3://b", ""},
		"s3://b/k":                 {"s3://b/", "k"},
		"s3://b/a/k/":              {"s3://b/a/", "k"},
		"mlflow-artifacts:/1/x":    {"mlflow-artifacts:/1/", "x"},
		"mlflow-artifacts:/":       {"mlflow-artifacts:", ""},
		"dbfs:/x":                  {"dbfs:/", "x"},
		"http://h/a/f.bin?x=a/b&y": {"http://h/a/?x=a/b&y", "f.bin"},
	} {
		if dir, name := split(uri); dir != want[0] || name != want[1] {
			t.Errorf("%s: %q, %q", uri, dir, name)
		}
	}
}

// TestShownURIHasNoCredentials fails when a URI that is shown or logged holds a key, a
// password or a signature, or when one without them is shown as another one.
func TestShownURIHasNoCredentials(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]string{
		"s3://bucket/k":                                  "s3://bucket/k",
		"s3://key:secret@bucket/k":                       "s3://bucket/k",
		"wasbs://c@a.blob.core.windows.net/k":            "wasbs://c@a.blob.core.windows.net/k",
		"r2://b@x.r2.cloudflarestorage.com/k":            "r2://b@x.r2.cloudflarestorage.com/k",
		"http://u:p@h/f?sig=secret":                      "http://h/f",
		"s3://bucket/a?b#c@d":                            "s3://bucket/a?b#c@d",
		"wasbs://c@a.blob.core.windows.net/k?sv=1&sig=s": "wasbs://c@a.blob.core.windows.net/k",
	} {
		if got := Shown(uri); got != want {
			t.Errorf("%s is shown as %s", uri, got)
		}
	}
}

// TestLatestVersionIsOfTheStage fails when models:/NAME/latest, or a stage, leads to
// another version than in MLflow: the highest number, not the highest string.
func TestLatestVersionIsOfTheStage(t *testing.T) {
	t.Parallel()
	m := &meta.RegisteredModel{Latest: []meta.Version{{Version: "9", Stage: "None"}, {Version: "10", Stage: "Production"}, {Version: "3", Stage: "Staging"}}}
	for stage, want := range map[string]string{"": "10", "none": "9", "PRODUCTION": "10", "Staging": "3", "Archived": ""} {
		if v, ok := Latest(m, stage); v.Version != want || ok != (want != "") {
			t.Errorf("%q: %v", stage, v)
		}
	}
}

// TestSourcesInACircleAreAnError fails when a hostile store whose versions name each
// other as source hangs or ends the daemon.
func TestSourcesInACircleAreAnError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, source := range map[string]string{"a": "models:/b/1", "b": "models:/a/latest"} {
		p := filepath.Join(dir, "models", name, "version-1")
		if err := errors.Join(os.MkdirAll(p, 0o755),
			os.WriteFile(filepath.Join(p, "meta.yaml"), []byte("version: 1\ncurrent_stage: None\nsource: "+source+"\nstatus: READY\n"), 0o644),
			os.WriteFile(filepath.Join(filepath.Dir(p), "meta.yaml"), []byte("name: "+name+"\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	s, _, err := meta.Open(dir, func(string) string { return "" }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := New(Options{Tracking: s})
	if _, err := r.VersionDir(context.Background(), "a", "1"); err == nil || !strings.Contains(err.Error(), "circle") {
		t.Error(err)
	}
}
