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
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/resolve/artifact"
	"github.com/mlflowfs/mlflowfs/resolve/mlflow"
)

func TestParseURI(t *testing.T) {
	id := "m-" + strings.Repeat("0a", 16)
	for s, want := range map[string]URI{
		"runs:/abc":                {RunID: "abc"},
		"runs:/abc/":               {RunID: "abc"},
		"runs:/abc/a b/c#d":        {RunID: "abc", Path: "a b/c#d"},
		"models:/echo/3":           {Name: "echo", Version: "3"},
		"models:/echo/3/x/y":       {Name: "echo", Version: "3", Path: "x/y"},
		"models:/echo/Latest":      {Name: "echo"},
		"models:/echo/production":  {Name: "echo", Stage: "production"},
		"models:/echo@champ":       {Name: "echo", Alias: "champ"},
		"models:/echo@3/MLmodel":   {Name: "echo", Alias: "3", Path: "MLmodel"},
		"models:/a@b@c":            {Name: "a@b", Alias: "c"},
		"models:/a@b/1":            {Name: "a@b", Version: "1"},
		"models:/" + id:            {ModelID: id},
		"models:/" + id + "/x":     {ModelID: id, Path: "x"},
		"models:/m-notanid/1":      {Name: "m-notanid", Version: "1"},
		"models:/ .dotted name /2": {Name: " .dotted name ", Version: "2"},
	} {
		got, found, err := ParseURI(s)
		if d := cmp.Diff(want, got); d != "" || !found || err != nil {
			t.Errorf("%s: %v %v %s", s, found, err, d)
		}
	}
	for _, s := range []string{"runs:", "runs:/", "runs:/../x", "runs://host/abc", "models:/", "models:/echo", "models:/echo@", "models:/@a", "models:/ /1"} {
		if u, found, err := ParseURI(s); err == nil || !found {
			t.Errorf("%s was taken as %+v", s, u)
		}
	}
	for _, s := range []string{"s3://b/k", "mlflow-artifacts:/1", "/tmp/x", "", "file:///x"} {
		if _, found, err := ParseURI(s); found || err != nil {
			t.Errorf("%s is a place: %v", s, err)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	for _, s := range []string{"runs:/a/b", "models:/a@b/c", "models:/a/1/x", "models:/a/latest", "models:/m-00000000000000000000000000000000/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, found, err := ParseURI(s)
		if !found || err != nil {
			return
		}
		again, found, err := ParseURI(u.String())
		if again != u || !found || err != nil {
			t.Errorf("%q is %+v, printed as %q, read as %+v, %v", s, u, u, again, err)
		}
	})
}

// resolver has no server: it resolves places alone.
func resolver(t *testing.T, tracking string) *Resolver {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	opt := Options{Log: log}
	if tracking != "" {
		c, err := mlflow.NewClient(tracking, func(string) string { return "" }, log)
		if err != nil {
			t.Fatal(err)
		}
		opt.Client = c
	}
	return New(opt)
}

func TestStorage(t *testing.T) {
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
	} {
		s, err := r.storage(uri)
		if err != nil || s.ID() != want {
			t.Errorf("%s: %v, want %s (%v)", uri, s.ID(), want, err)
		}
	}
	for _, uri := range []string{"s3://user:pw@bucket/k", "gs://b", "dbfs:/x", "hdfs://h/x", "http://h/mlartifacts", "file://elsewhere/x"} {
		s, err := r.storage(uri)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.List(context.Background(), "")
		if !errors.Is(err, errors.ErrUnsupported) || strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: %v", uri, err)
		}
	}
	s, err := resolver(t, "").storage("mlflow-artifacts:/1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = s.List(context.Background(), ""); !errors.Is(err, errors.ErrUnsupported) {
		t.Error("mlflow-artifacts: without a server:", err)
	}
	r.opt.NoLocal = true
	if s, _ = r.storage("/etc"); !strings.HasPrefix(s.ID(), "unsupported:") {
		t.Error("a local path is served in spite of NoLocal")
	}
}

// files is a store of names with sizes; a name that ends in / is a directory.
type files map[string][]string

func (f files) ID() string { return "files" }
func (f files) List(_ context.Context, dir string) ([]artifact.Entry, error) {
	names, ok := f[dir]
	if !ok {
		return nil, fs.ErrNotExist
	}
	var out []artifact.Entry
	for _, n := range names {
		name, isDir := strings.CutSuffix(n, "/")
		out = append(out, artifact.Entry{Name: name, IsDir: isDir, Size: int64(len(dir))})
	}
	return out, nil
}

func (f files) ReadRange(context.Context, string, int64, int64) (*cache.Body, error) {
	return nil, errors.ErrUnsupported
}

func TestUnion(t *testing.T) {
	r := resolver(t, "")
	st := files{
		"run":         {"model/", "a", "other/", "plain"},
		"run/model":   {"MLmodel", "extra", "sub/"},
		"m":           {"MLmodel", "data", "sub/"},
		"m/sub":       {"x"},
		"run/other":   {},
		"run/nothing": nil,
	}
	o := Origin{
		Layers: []Layer{{st, "run"}}, Mtime: time.Unix(5, 0), Final: true,
		Mounts: []Mount{
			{"model", Origin{Layers: []Layer{{st, "m"}}, Meta: metaOf("", ""), Final: true}},
			{"plain", Origin{Layers: []Layer{{st, "m"}}, Final: false}},
		},
	}
	show := func(o *Origin) (out []string) {
		t.Helper()
		items, err := r.List(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range items {
			s := it.Name
			if it.Dir != nil {
				s += "/"
			}
			if it.Path != "" {
				s += " " + it.Path
			}
			out = append(out, s)
			one, err := r.Lookup(context.Background(), o, it.Name)
			if err != nil || one.Path != it.Path || (one.Dir == nil) != (it.Dir == nil) || one.Size != it.Size {
				t.Errorf("look-up of %s gives %+v, %v", it.Name, one, err)
			}
		}
		return out
	}
	if d := cmp.Diff([]string{"a run/a", "model/", "other/", "plain/"}, show(&o)); d != "" {
		t.Error(d)
	}
	model, err := r.descend(context.Background(), o, "model")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"MLmodel m/MLmodel", "data m/data", "extra run/model/extra", "registered_model_meta", "sub/"}, show(&model)); d != "" {
		t.Error(d)
	}
	if !model.Mtime.Equal(o.Mtime) || !model.Final {
		t.Error("the model in a run has not the run's time")
	}
	sub, err := r.descend(context.Background(), o, "model/sub")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"x m/sub/x"}, show(&sub)); d != "" {
		t.Error(d) // no registered_model_meta below the root
	}
	if _, err := r.Lookup(context.Background(), &o, MetaName); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a directory without an MLmodel has registered_model_meta:", err)
	}
	for _, p := range []string{"a", "none", "model/none"} {
		if _, err := r.descend(context.Background(), o, p); !errors.Is(err, fs.ErrNotExist) {
			t.Error(p, err)
		}
	}
}

func TestLatest(t *testing.T) {
	m := &mlflow.RegisteredModel{Latest: []mlflow.Version{{Version: "9", Stage: "None"}, {Version: "10", Stage: "Production"}, {Version: "3", Stage: "Staging"}}}
	for stage, want := range map[string]string{"": "10", "none": "9", "PRODUCTION": "10", "Staging": "3", "Archived": ""} {
		if v, ok := Latest(m, stage); v.Version != want || ok != (want != "") {
			t.Errorf("%q: %v", stage, v)
		}
	}
}

// A version's source may lead to another version, and in a hostile store in a
// circle.
func TestSourcesInACircle(t *testing.T) {
	dir := t.TempDir()
	for name, source := range map[string]string{"a": "models:/b/1", "b": "models:/a/latest"} {
		p := filepath.Join(dir, "models", name, "version-1")
		if err := errors.Join(os.MkdirAll(p, 0o755),
			os.WriteFile(filepath.Join(p, "meta.yaml"), []byte("version: 1\ncurrent_stage: None\nsource: "+source+"\nstatus: READY\n"), 0o644),
			os.WriteFile(filepath.Join(filepath.Dir(p), "meta.yaml"), []byte("name: "+name+"\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	s, _, err := mlflow.Open(dir, func(string) string { return "" }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := New(Options{Tracking: s})
	if _, err := r.VersionOrigin(context.Background(), "a", "1"); err == nil || !strings.Contains(err.Error(), "circle") {
		t.Error(err)
	}
}
